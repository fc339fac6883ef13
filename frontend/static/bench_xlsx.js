// Workbooks of Excel: the first sheet as records, and records as a workbook. All cells are text. Knows no page.

import { unzip, zip } from "./bench_zip.js";

const MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
const OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const PACKAGE = "http://schemas.openxmlformats.org/package/2006";
const TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml";
const MOST_COLUMNS = 500;

function xml(text) {
  const parsed = new DOMParser().parseFromString(text, "application/xml");
  if (parsed.querySelector("parsererror") || parsed.doctype) throw new RangeError("no XML");
  return parsed;
}

const all = (node, name) => [...node.getElementsByTagNameNS("*", name)];

// A text in runs; how Chinese and Japanese words are read aloud stands beside them and is left out.
const words = (node) => all(node, "t").filter((one) => one.parentNode.localName !== "rPh").map((one) => one.textContent).join("");

function columnOf(reference) {
  const letters = /^[A-Z]+/.exec(reference ?? "")?.[0];
  return letters ? [...letters].reduce((sum, letter) => 26 * sum + letter.charCodeAt(0) - 64, 0) - 1 : -1;
}

function firstSheet(files) {
  const sheet = all(xml(files.get("xl/workbook.xml") ?? ""), "sheet")[0];
  const relations = all(xml(files.get("xl/_rels/workbook.xml.rels") ?? ""), "Relationship");
  const id = sheet?.getAttributeNS(OFFICE, "id");
  const target = relations.find((one) => one.getAttribute("Id") === id)?.getAttribute("Target") ?? "worksheets/sheet1.xml";
  return files.get(target.startsWith("/") ? target.slice(1) : `xl/${target}`) ?? "";
}

// The records of the first sheet. Raises an Error for what is no workbook.
export async function read(bytes) {
  const files = await unzip(bytes, (name) => /^xl\/(workbook|sharedStrings|worksheets\/[^/]+|_rels\/workbook)\.xml(\.rels)?$/.test(name));
  const shared = files.has("xl/sharedStrings.xml") ? all(xml(files.get("xl/sharedStrings.xml")), "si").map(words) : [];
  const records = [];
  for (const row of all(xml(firstSheet(files)), "row")) {
    const record = [];
    for (const cell of all(row, "c")) {
      const at = columnOf(cell.getAttribute("r"));
      const column = at < 0 ? record.length : at;
      if (column >= MOST_COLUMNS) continue;
      while (record.length < column) record.push("");
      const type = cell.getAttribute("t");
      const value = all(cell, "v")[0]?.textContent ?? "";
      record[column] = type === "s" ? shared[Number(value)] ?? "" : type === "inlineStr" ? words(cell) : value;
    }
    if (record.some(Boolean)) records.push(record);
  }
  return records;
}

// Characters that XML cannot hold are left out.
function escaped(text) {
  // oxlint-disable-next-line eslint/no-control-regex
  const plain = text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "").replaceAll("&", "&amp;");
  return plain.replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;").replaceAll("\r", "&#13;");
}

function letters(column) {
  const rest = column % 26;
  const letter = String.fromCharCode(65 + rest);
  return column < 26 ? letter : letters((column - rest) / 26 - 1) + letter;
}

// A workbook: text is text in it, also where it begins with an equals sign.
export function write(records, name) {
  const cell = (value, at, row) =>
    `<c r="${letters(at)}${row}" t="inlineStr"><is><t xml:space="preserve">${escaped(String(value ?? ""))}</t></is></c>`;
  const rows = records.map((record, at) => {
    const cells = record.map((value, column) => (value ?? "") === "" ? "" : cell(value, column, at + 1));
    return `<row r="${at + 1}">${cells.join("")}</row>`;
  });
  const head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n';
  const title = escaped(name.replace(/[\\/?*[\]:"]/g, " ").slice(0, 31).trim() || "1");
  const part = (path, type) => `<Override PartName="${path}" ContentType="${TYPE}.${type}+xml"/>`;
  const relation = (type, target) =>
    `${head}<Relationships xmlns="${PACKAGE}/relationships"><Relationship Id="r1" Type="${OFFICE}/${type}" Target="${target}"/></Relationships>`;
  return zip({
    "[Content_Types].xml": `${head}<Types xmlns="${PACKAGE}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>${part("/xl/workbook.xml", "sheet.main")}${part("/xl/worksheets/sheet1.xml", "worksheet")}</Types>`,
    "_rels/.rels": relation("officeDocument", "xl/workbook.xml"),
    "xl/workbook.xml": `${head}<workbook xmlns="${MAIN}" xmlns:r="${OFFICE}"><sheets><sheet name="${title}" sheetId="1" r:id="r1"/></sheets></workbook>`,
    "xl/_rels/workbook.xml.rels": relation("worksheet", "worksheets/sheet1.xml"),
    "xl/worksheets/sheet1.xml": `${head}<worksheet xmlns="${MAIN}"><sheetData>${rows.join("")}</sheetData></worksheet>`,
  });
}
