// ZIP archives, as far as workbooks need them: files by name, in and out. Knows bytes only.

const MOST = 64_000_000; // Bytes of all files, unpacked.
const END = 0x06054b50;
const ENTRY = 0x02014b50;
const FILE = 0x04034b50;
const UTF8 = 0x0800; // The flag that says so of names.

async function inflated(bytes, most) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const parts = [];
  let size = 0;
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    size += value.length;
    if (size > most) throw new RangeError("too large");
    parts.push(value);
  }
}

// The texts of the files whose names `wanted` accepts, by name. Raises an Error for anything that is no such archive.
export async function unzip(bytes, wanted) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== END) end -= 1;
  if (end < 0) throw new RangeError("no archive");
  const files = new Map();
  let left = MOST;
  let at = view.getUint32(end + 16, true);
  for (let count = view.getUint16(end + 10, true); count > 0; count -= 1) {
    if (view.getUint32(at, true) !== ENTRY) throw new RangeError("no entry");
    const [method, size, names, extra, comment, start] = [
      view.getUint16(at + 10, true),
      view.getUint32(at + 20, true),
      view.getUint16(at + 28, true),
      view.getUint16(at + 30, true),
      view.getUint16(at + 32, true),
      view.getUint32(at + 42, true),
    ];
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + names));
    at += 46 + names + extra + comment;
    if (!wanted(name)) continue;
    const data = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
    const packed = bytes.subarray(data, data + size);
    if (method !== 0 && method !== 8) throw new RangeError("unknown compression");
    const plain = method === 0 ? packed : await inflated(packed, left);
    left -= plain.length;
    files.set(name, new TextDecoder().decode(plain));
  }
  return files;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, at) => {
  let value = at;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

function record(fields) {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return bytes;
}

// An archive of {name: text}, without compression.
export function zip(files) {
  const parts = [];
  const entries = [];
  let offset = 0;
  for (const [name, text] of Object.entries(files)) {
    const [path, data] = [name, text].map((one) => new TextEncoder().encode(one));
    const facts = [[2, 20], [2, UTF8], [2, 0], [2, 0], [2, 0x21], [4, crc(data)], [4, data.length], [4, data.length]];
    const head = record([[4, FILE], ...facts, [2, path.length], [2, 0]]);
    const rest = [[2, path.length], [2, 0], [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]];
    entries.push(record([[4, ENTRY], [2, 20], ...facts, ...rest]), path);
    parts.push(head, path, data);
    offset += head.length + path.length + data.length;
  }
  const size = entries.reduce((sum, { length }) => sum + length, 0);
  const count = entries.length / 2;
  const end = record([[4, END], [2, 0], [2, 0], [2, count], [2, count], [4, size], [4, offset], [2, 0]]);
  return new Blob([...parts, ...entries, end]);
}
