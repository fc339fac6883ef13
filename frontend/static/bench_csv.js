// Tables of questions: CSV as RFC 4180 and spreadsheets write it, in and out. Knows text; no page.

// Names of columns, in any case; of a field's names, the earlier ones go before the later ones.
const NAMES = {
  question: [
    /^(questions?|prompt|query|问题|客户问题|用户问题|问题内容|提问|提问内容|咨询|咨询内容|问)$/i,
    /^(text|content|body|message|instruction|内容|正文|文本|描述|消息)$/i,
    /(questions?|query|问题|提问|咨询|留言|反馈|诉求)$/i,
    /^(title|subject|标题|主题)$/i,
  ],
  id: [/^(id|no\.?|number|key|编号|序号|工单号)$/i],
  category: [/^(category|categories|tag|tags|分类|类别|类目|标签)$/i],
};

// What this page and `youtu batch` write beside the question; read back only where the answer is there, too.
const OWN = {
  answer: /^answer$/i,
  good: /^good$/i,
  original: /^model_answer$/i,
  finish: /^finish_reason$/i,
  tokens: /^(completion_)?tokens$/i,
  seconds: /^seconds$/i,
  error: /^error$/i,
};
const NOT_OURS = /^(row|edited|key|prompt_tokens)$/i; // Written for people, or by `youtu batch` for itself.

// What a spreadsheet would take for a formula gets an apostrophe, as in the spreadsheet; reading takes it away.
const FORMULA = /^'*(?:\s*[=+\-@＝＋－＠]|[\t\r\n])/;
const safe = (text) => (FORMULA.test(text) ? `'${text}` : text);
const unsafe = (text) => (text.startsWith("'") && FORMULA.test(text) ? text.slice(1) : text);

export class NotCsv extends Error {
  constructor(line) {
    super(`line ${line}`);
    this.line = line; // Where the quotation mark stands that nothing closes.
  }
}

// What separates fields: the most frequent of the usual ones in the first record.
function delimiterOf(text) {
  const counts = { ",": 0, ";": 0, "\t": 0 };
  let quoted = false;
  for (const character of text) {
    if (character === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (character === "\n" || character === "\r") break;
    else if (character in counts) counts[character] += 1;
  }
  const most = Math.max(...Object.values(counts));
  return most ? ["\t", ",", ";"].find((delimiter) => counts[delimiter] === most) : ",";
}

// The records of a table: lists of texts. Raises NotCsv.
export function parse(text, delimiter = delimiterOf(text)) {
  const records = [];
  let record = [];
  let field = "";
  let line = 1;
  let opened = 0; // Line of the quotation mark that is open; 0: none.
  let was = false; // Whether the field was quoted.
  const endField = () => {
    record.push(field);
    field = "";
    was = false;
  };
  const endRecord = () => {
    endField();
    if (record.length > 1 || record[0] !== "") records.push(record);
    record = [];
  };
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "\n") line += 1;
    if (opened) {
      if (character !== '"') field += character;
      else if (text[at + 1] === '"') (field += '"'), (at += 1);
      else opened = 0;
    } else if (character === '"' && field === "" && !was) {
      opened = line;
      was = true;
    } else if (character === delimiter) {
      endField();
    } else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[at + 1] === "\n") (at += 1), (line += 1);
      endRecord();
    } else {
      field += character;
    }
  }
  if (opened) throw new NotCsv(opened);
  if (field !== "" || record.length) endRecord();
  return records;
}

function table(records, guard) {
  const cell = (value) => {
    const text = typeof value === "number" ? String(value) : guard(String(value ?? ""));
    return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return `${records.map((record) => record.map(cell).join(",")).join("\r\n")}\r\n`;
}

// A file for spreadsheets. The mark at the start is what makes Excel read it as UTF-8.
export const write = (records) => `\ufeff${table(records, safe)}`;

// Records of a workbook as the text of a table, to be read as every other one.
export function asText(records) {
  const own = places(records[0] ?? []).answer !== undefined;
  return table(records, own ? safe : (text) => text);
}

// Records without what makes them safe in a spreadsheet.
export const restored = (records) => records.map((record) => record.map(unsafe));

// Which column is meant by each name; -1: none.
export function places(names) {
  const found = {};
  for (const [field, tiers] of Object.entries(NAMES)) {
    const at = tiers.map((tier) => names.findIndex((name) => tier.test(name.trim())));
    found[field] = at.find((place) => place >= 0) ?? -1;
  }
  const own = Object.entries(OWN).map(([field, name]) => [field, names.findIndex((one) => name.test(one.trim()))]);
  if (own[0][1] >= 0 && found.question >= 0) Object.assign(found, Object.fromEntries(own.filter(([, at]) => at >= 0)));
  return found;
}

const isJson = (text) => /^\ufeff?\s*\{.*\}\s*$/.test(text.trimStart().split(/\r\n?|\n/, 1)[0]);

// How a text is to be read: {kind: "table" | "lines" | "jsonl", header, column, idColumn}; what a person may change.
export function guess(text) {
  if (isJson(text)) return { kind: "jsonl", header: false, column: 0, idColumn: -1 };
  let records;
  try {
    records = parse(text);
  } catch {
    return { kind: "table", header: false, column: 0, idColumn: -1 };
  }
  const { question: column, id: idColumn, category } = places(records[0] ?? []);
  if (column >= 0) return { kind: "table", header: true, column, idColumn };
  const width = records[0]?.length ?? 0;
  if (width > 1 && records.length > 1 && (idColumn >= 0 || category >= 0)) {
    return { kind: "table", header: true, column: longest(records.slice(1), [idColumn, category]), idColumn };
  }
  const table = text.includes("\t") || /(^|[,;\t\n])"/.test(text) || isEven(records);
  const header = table && width > 1 && hasNames(records);
  return { kind: table ? "table" : "lines", header, column: table && width > 1 ? longest(records) : 0, idColumn: -1 };
}

// Whether separators separate columns, and are not the commas of sentences: then one column holds nothing but keys.
function isEven(records) {
  const width = records[0]?.length ?? 0;
  if (width < 2 || records.length < 2 || records.some((record) => record.length !== width)) return false;
  const isKeys = (cells) => cells.every((cell) => /^[\w.#/-]{1,24}$/.test(cell) && /\d/.test(cell));
  const rest = records.slice(hasNames(records) ? 1 : 0);
  return rest.length > 0 && records[0].some((_, at) => isKeys(rest.map((record) => record[at].trim())));
}

// Whether the first record looks like names: short words, other than what stands below them.
function hasNames(records) {
  const [first, ...rest] = records.slice(0, 50);
  if (!rest.length || new Set(first).size < first.length) return false;
  return first.every((name) => /^[\p{L}_][\p{L}\p{N}_ /-]{0,15}$/u.test(name.trim())) &&
    rest.some((record) => record.some((cell) => /\d|[?？。，,.!！]/.test(cell) || cell.length > 16));
}

// The column with the most words in it, of all `but` these. Numbers and times are no words.
function longest(records, but = []) {
  const sums = [];
  for (const record of records.slice(0, 50)) {
    record.forEach((cell, at) => (sums[at] = (sums[at] ?? 0) + (but.includes(at) ? 0 : cell.match(/\p{L}/gu)?.length ?? 0)));
  }
  return sums.indexOf(Math.max(...sums));
}

// A record with more cells than there are names: its question holds the separator, and nobody quoted it.
function joined(record, width, column, delimiter) {
  let end = record.length;
  while (end > width && !record[end - 1].trim()) end -= 1;
  if (end <= width) return record;
  const more = end - width;
  const whole = record.slice(column, column + more + 1).join(delimiter);
  return [...record.slice(0, column), whole, ...record.slice(column + more + 1)];
}

function fromJsonLines(text) {
  const rows = [];
  text.replace(/^\ufeff/, "").split(/\r\n?|\n/).forEach((line, at) => {
    if (!line.trim()) return;
    let given;
    try {
      given = JSON.parse(line);
    } catch {
      throw new NotCsv(at + 1);
    }
    const asked = Array.isArray(given.messages) ? given.messages.findLast((one) => one?.role === "user")?.content : null;
    const { question = given.prompt ?? asked, id, category, answer, good, model_answer: original, error } = given;
    if (typeof question !== "string" || !question.trim()) return;
    const row = { id: String(id ?? ""), question: question.trim(), category: String(category ?? "") };
    if (typeof answer === "string" && answer) {
      Object.assign(row, { answer, good: good === true, original: String(original ?? answer), error: String(error ?? "") });
      Object.assign(row, { finish: given.finish_reason, tokens: given.tokens, seconds: given.seconds });
    }
    if (given.fields && typeof given.fields === "object") row.fields = texts(given.fields);
    rows.push(row);
  });
  return rows;
}

const texts = (given) => Object.fromEntries(Object.entries(given).map(([name, value]) => [name, String(value ?? "")]));

// Of every row that has a question: {id, question, category, fields}, and {answer, good, original, …} where the table is
// one that was exported. `fields` are the other columns, by their names.
export function questions(text, { kind, header, column, idColumn }) {
  if (kind === "jsonl") return fromJsonLines(text);
  if (kind === "lines") {
    const lines = text.split(/\r\n?|\n/).map((line) => line.trim());
    return lines.filter(Boolean).map((question) => ({ id: "", question }));
  }
  const delimiter = delimiterOf(text);
  const records = parse(text, delimiter);
  if (!header) return records.map((record) => made(record, { column, idColumn })).filter(({ question }) => question);
  const [names = [], ...rest] = records;
  const at = places(names);
  const own = at.answer !== undefined;
  const { question: _, id: __, ...more } = at;
  const known = new Set([column, ...Object.values(more)]);
  // What is called more than `id`, as an order's number, may have its place in a question, too.
  if (/^id$/i.test(names[idColumn]?.trim())) known.add(idColumn);
  const others = names.map((name, place) => [name.trim(), place]).filter(([name, place]) => {
    return name && !known.has(place) && !(own && NOT_OURS.test(name));
  });
  return (own ? restored(rest) : rest.map((record) => joined(record, names.length, column, delimiter)))
    .map((record) => made(record, { ...at, column, idColumn }, others))
    .filter(({ question }) => question);
}

function made(record, { column, idColumn, category = -1, ...own }, others = []) {
  const cell = (place) => record[place] ?? "";
  const row = { id: cell(idColumn).trim(), question: cell(column).trim() };
  if (category >= 0 && category !== column) row.category = cell(category).trim();
  const fields = others.map(([name, place]) => [name, cell(place)]).filter(([, value]) => value);
  if (fields.length) row.fields = Object.fromEntries(fields);
  if (own.answer === undefined || !(cell(own.answer) || cell(own.error))) return row;
  const count = (place) => (cell(place) === "" ? undefined : Number(cell(place)));
  return Object.assign(row, {
    answer: cell(own.answer),
    good: /^(yes|true|1|是)$/i.test(cell(own.good).trim()),
    original: own.original === undefined ? cell(own.answer) : cell(own.original),
    finish: cell(own.finish) || undefined,
    tokens: count(own.tokens),
    seconds: count(own.seconds),
    error: cell(own.error),
  });
}
