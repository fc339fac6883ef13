// A file of questions as text: which encoding it is in, a workbook as a table, and what is neither. Knows files; no page.

import { asText } from "./bench_csv.js";

const ENCODINGS = { "255,254": "utf-16le", "254,255": "utf-16be" };
const SHEETS = /\.(xlsx?|ods|numbers|et)$/i; // What can be saved as CSV by the program it is from.

// {text, gbk}, with whether it was read as GBK; or {reason: "sheet" | "encoding"} when it is no text.
export async function readFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const utf16 = ENCODINGS[bytes.slice(0, 2).join()];
  const zip = bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] === 3;
  const ole = bytes[0] === 0xd0 && bytes[1] === 0xcf && bytes[2] === 0x11;
  if (zip) {
    try {
      const { read } = await import("./bench_xlsx.js");
      return { text: asText(await read(bytes)), gbk: false };
    } catch {
      return { reason: SHEETS.test(file.name) ? "sheet" : "encoding" };
    }
  }
  if (ole || SHEETS.test(file.name)) return { reason: "sheet" };
  for (const encoding of utf16 ? [utf16] : ["utf-8", "gb18030"]) {
    try {
      const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
      // Excel may say in a line of its own which separator follows.
      if (!text.includes("\0")) return { text: text.replace(/^sep=.\r?\n/i, ""), gbk: encoding === "gb18030" };
    } catch {
      // The next one.
    }
  }
  return { reason: "encoding" };
}
