// Tables of questions: CSV as RFC 4180 and spreadsheets write it, in and out. Knows text and files; no page.

const QUESTION = /^(question|questions|prompt|text|query|问题|客户问题|提问|问)$/i;
const ID = /^(id|no|number|key|编号|序号|工单号)$/i;

export class NotCsv extends Error {
  constructor(line) {
    super(`line ${line}`);
    this.line = line; // Where the quotation mark stands that nothing closes.
  }
}

// What separates fields: the most frequent of the usual ones in the first record.
function delimiterOf(text) {
  const counts = { ",": 0, ";": 0, "\t": 0, "，": 0 };
  let quoted = false;
  for (const character of text) {
    if (character === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (character === "\n" || character === "\r") break;
    else if (character in counts) counts[character] += 1;
  }
  // A full-width comma is part of Chinese sentences; as a separator it only counts where nothing else is.
  for (const delimiter of ["\t", ",", ";"]) {
    if (counts[delimiter] === Math.max(counts["\t"], counts[","], counts[";"]) && counts[delimiter]) return delimiter;
  }
  return ",";
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

export function write(records) {
  const cell = (value) => {
    const text = String(value ?? "");
    return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  // The mark at the start is what makes Excel read the file as UTF-8.
  return `\ufeff${records.map((record) => record.map(cell).join(",")).join("\r\n")}\r\n`;
}

// How a text is to be read: {kind: "table" | "lines", header, column, idColumn}; what a person may then change.
export function guess(text) {
  let records;
  try {
    records = parse(text);
  } catch {
    return { kind: "table", header: false, column: 0, idColumn: -1 };
  }
  const names = (records[0] ?? []).map((name) => name.trim());
  const column = names.findIndex((name) => QUESTION.test(name));
  if (column >= 0) return { kind: "table", header: true, column, idColumn: names.findIndex((name) => ID.test(name)) };
  const width = names.length;
  const even = width > 1 && records.length > 1 && records.every((record) => record.length === width);
  const table = even || text.includes("\t") || /(^|[,;\t\n])"/.test(text);
  return { kind: table ? "table" : "lines", header: false, column: table && width > 1 ? longest(records) : 0, idColumn: -1 };
}

// The column with the most text in it.
function longest(records) {
  const sums = [];
  for (const record of records.slice(0, 50)) record.forEach((cell, at) => (sums[at] = (sums[at] ?? 0) + cell.length));
  return sums.indexOf(Math.max(...sums));
}

// {id, question} of every row that has a question.
export function questions(text, { kind, header, column, idColumn }) {
  const records = kind === "lines" ? text.split(/\r\n?|\n/).map((line) => [line]) : parse(text);
  return records
    .slice(kind === "table" && header ? 1 : 0)
    .map((record) => ({ id: (record[idColumn] ?? "").trim(), question: (record[kind === "lines" ? 0 : column] ?? "").trim() }))
    .filter(({ question }) => question);
}

// The text of a file and whether it was read as GBK; null when it is neither that nor Unicode.
export async function readFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const utf16 = { "255,254": "utf-16le", "254,255": "utf-16be" }[bytes.slice(0, 2).join()];
  for (const encoding of utf16 ? [utf16] : ["utf-8", "gb18030"]) {
    try {
      return { text: new TextDecoder(encoding, { fatal: true }).decode(bytes), gbk: encoding === "gb18030" };
    } catch {
      // The next one.
    }
  }
  return null;
}
