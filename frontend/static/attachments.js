// The documents attached to conversations, in a database of their own: the files as they were chosen, so that they
// survive a reload and can be sent again to a server that has forgotten them. Knows records; no page, no server.
//
//   files  {id, conversation, tab, name, size, file, created, facts, error, knowledge}
//
// `facts` is what the server says of it; `error` {code, message} why it cannot be read. `knowledge`: no file, but
// the knowledge base was chosen.

import { newId } from "./dom.js";
import { isThere, tab } from "./tabs.js";

const NEW = "new";
const FRESH_MS = 60_000; // Another tab may have made its conversation a moment ago.
let last = 0; // When the newest record was made: no two have one time, by which they are ordered.
const memory = new Map(); // Where the browser has no database.
let opening = null;

function database() {
  opening ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open("youtu-documents", 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("files", { keyPath: "id" }).createIndex("conversation", "conversation");
      };
      request.onsuccess = () => {
        request.result.onversionchange = () => request.result.close();
        resolve(request.result);
      };
      request.onerror = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return opening;
}

// `work(store)` starts requests and may return one, whose result this resolves with once all is on disk.
async function transaction(mode, work) {
  const opened = await database();
  return new Promise((resolve, reject) => {
    const running = opened.transaction("files", mode);
    const request = work(running.objectStore("files"));
    running.oncomplete = () => resolve(request?.result);
    running.onabort = () => reject(running.error);
  });
}

async function all() {
  if (!(await database())) return [...memory.values()];
  return transaction("readonly", (store) => store.getAll());
}

async function put(...records) {
  if (!(await database())) return records.forEach((record) => memory.set(record.id, record));
  return transaction("readwrite", (store) => void records.forEach((record) => store.put(record)));
}

export async function remove(...ids) {
  if (!(await database())) return ids.forEach((id) => memory.delete(id));
  return transaction("readwrite", (store) => void ids.forEach((id) => store.delete(id)));
}

// Those of a conversation in the order in which they came; of a new one those of this tab, or of one that is gone.
export async function among(conversation) {
  const records = (await all()).filter((record) => record.conversation === (conversation ?? NEW));
  const own = conversation ? records : records.filter((record) => record.tab === tab || !isThere(record.tab));
  return own.sort((a, b) => a.created - b.created);
}

function now() {
  last = Math.max(Date.now(), last + 1);
  return last;
}

export async function add(conversation, fields) {
  const record = { id: newId(), conversation: conversation ?? NEW, tab, created: now(), facts: null, error: null };
  Object.assign(record, fields);
  await put(record);
  return record;
}

// False: it was removed meanwhile, and stays so.
export async function change(id, fields) {
  const record = (await all()).find((each) => each.id === id);
  if (!record) return false;
  await put(Object.assign(record, fields));
  return true;
}

// The new conversation has its id.
export async function adopt(conversation) {
  const records = await among(null);
  await put(...records.map((record) => Object.assign(record, { conversation, created: now() })));
}

export async function copy(from, to) {
  const records = await among(from);
  await put(...records.map((record) => ({ ...record, id: newId(), conversation: to, created: now() })));
}

// Those of conversations that are no more go.
export async function sweep(conversations) {
  const before = Date.now() - FRESH_MS;
  const gone = (await all()).filter(
    ({ conversation, created }) => conversation !== NEW && !conversations.has(conversation) && created < before,
  );
  if (gone.length) await remove(...gone.map(({ id }) => id));
}
