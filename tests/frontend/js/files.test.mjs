import assert from "node:assert/strict";
import test from "node:test";
import { deflateRawSync } from "node:zlib";

import { readFile } from "../../../frontend/static/bench_file.js";
import { unzip, zip } from "../../../frontend/static/bench_zip.js";

const TEXT = "问题,编号\n多少钱？,1\n";
const bytesOf = async (blob) => new Uint8Array(await blob.arrayBuffer());
const read = (name, ...bytes) => readFile(new File(bytes, name));

test("UTF-8, UTF-16 and GB18030 are told apart", async () => {
  const utf16 = Buffer.from(`\ufeff${TEXT}`, "utf16le");
  const gbk = Buffer.from("cecacce22cb1e0bac50ab6e0c9d9c7aea3bf2c310a", "hex");
  assert.deepEqual(await read("a.csv", TEXT), { text: TEXT, gbk: false });
  assert.deepEqual(await read("a.csv", "\ufeff", TEXT), { text: TEXT, gbk: false });
  assert.deepEqual(await read("a.csv", utf16), { text: TEXT, gbk: false });
  assert.deepEqual(await read("a.csv", Buffer.from(utf16).swap16()), { text: TEXT, gbk: false });
  assert.deepEqual(await read("a.csv", gbk), { text: TEXT, gbk: true });
});

test("Excel's line about the separator is no question", async () => {
  assert.equal((await read("a.csv", "sep=;\r\na;b\r\n")).text, "a;b\r\n");
});

test("what is no text is refused with what to do about it", async () => {
  assert.deepEqual(await read("a.xls", "x"), { reason: "sheet" });
  assert.deepEqual(await read("a", Buffer.from("d0cf11e0a1b11ae1", "hex")), { reason: "sheet" });
  assert.deepEqual(await read("a.xlsx", "PK\x03\x04broken"), { reason: "sheet" });
  assert.deepEqual(await read("a.zip", "PK\x03\x04broken"), { reason: "encoding" });
  assert.deepEqual(await read("a.csv", "a\0b"), { reason: "encoding" });
  assert.deepEqual(await read("a.csv", Buffer.from([0x61, 0xff, 0xff])), { reason: "encoding" });
});

test("an archive gives back the texts that were put in, of the names that are wanted", async () => {
  const bytes = await bytesOf(zip({ "a.xml": "<a>问</a>", "目录/b.xml": "", "c.bin": "no" }));
  const files = await unzip(bytes, (name) => name.endsWith(".xml"));
  assert.deepEqual([...files], [["a.xml", "<a>问</a>"], ["目录/b.xml", ""]]);
});

// An archive of one file named "x", compressed.
function deflated(data, method = 8) {
  const packed = deflateRawSync(data);
  const [head, entry, end] = [30, 46, 22].map((size) => Buffer.alloc(size));
  head.writeUInt32LE(0x04034b50);
  head.writeUInt16LE(1, 26);
  entry.writeUInt32LE(0x02014b50);
  entry.writeUInt16LE(method, 10);
  entry.writeUInt32LE(packed.length, 20);
  entry.writeUInt16LE(1, 28);
  end.writeUInt32LE(0x06054b50);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(head.length + 1 + packed.length, 16);
  return new Uint8Array(Buffer.concat([head, Buffer.from("x"), packed, entry, Buffer.from("x"), end]));
}

test("compressed files are read; those that unpack to more than 64 MB are refused, as are other methods", async () => {
  const text = "多少钱？".repeat(10_000);
  assert.equal((await unzip(deflated(text), () => true)).get("x"), text);
  await assert.rejects(unzip(deflated(Buffer.alloc(64_000_001)), () => true), /too large/);
  await assert.rejects(unzip(deflated(text, 9), () => true), /unknown compression/);
});

test("what is no archive, or only half of one, is refused", async () => {
  const bytes = await bytesOf(zip({ a: "b" }));
  await assert.rejects(unzip(bytes.subarray(0, -1), () => true), /no archive/);
  await assert.rejects(unzip(bytes.subarray(20), () => true), RangeError);
  await assert.rejects(unzip(new Uint8Array(5), () => true), /no archive/);
});
