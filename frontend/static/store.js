// What the page keeps, in the browser's IndexedDB; in memory where the browser has none. Knows records, no page.
//
//   conversations  {id, title, named, created, updated, leaf, start, preset, thinking}
//   messages       {id, conversation, parent, role, content, created, open, end, facts, reasoning}
//   drafts         {conversation, tab, text, updated}      one per tab: two of them do not overwrite each other
//   presets        {id, name, system, temperature, …}
//   batches, rows  the bench: {id, …}, {batch, number, …}
//   templates      {id, title, text, category, created}    prompts and quick replies
//
// Every change reads, changes and writes one record in one transaction, so tabs cannot undo one another's.

import { migrated } from "./migration.js";

export const VERSION = 3;
const BLOCKED_MS = 5000;

const STORES = {
  conversations: { keyPath: "id" },
  messages: { keyPath: "id", index: "conversation" },
  drafts: { keyPath: ["conversation", "tab"], index: "conversation" },
  presets: { keyPath: "id" },
  batches: { keyPath: "id" },
  rows: { keyPath: ["batch", "number"], index: "batch" },
  templates: { keyPath: "id" },
};

let database = null;
let memory = null;
export let failure = null; // Why nothing is kept, once that is so.

// The stores that are not there yet.
function create(made) {
  for (const [name, { keyPath, index }] of Object.entries(STORES)) {
    if (made.objectStoreNames.contains(name)) continue;
    const store = made.createObjectStore(name, { keyPath });
    if (index) store.createIndex(index, index);
  }
}

function migrate(messages) {
  messages.openCursor().onsuccess = ({ target: { result: cursor } }) => {
    if (!cursor) return;
    cursor.update(migrated(cursor.value));
    cursor.continue();
  };
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("youtu", VERSION);
    let late = false;
    request.onupgradeneeded = ({ oldVersion }) => {
      create(request.result);
      if (oldVersion === 1) migrate(request.transaction.objectStore("messages"));
    };
    request.onsuccess = () => {
      request.result.onversionchange = () => request.result.close();
      late ? request.result.close() : resolve(request.result);
    };
    request.onerror = () => reject(request.error);
    // Other tabs close their connection when they are asked; one that does not must not stop this page for ever.
    request.onblocked = () =>
      setTimeout(() => {
        late = true;
        reject(new Error("blocked"));
      }, BLOCKED_MS);
  });
}

// `upgrading()` is awaited before an earlier version becomes this one.
export async function open(upgrading) {
  try {
    const kept = (await indexedDB.databases?.())?.find(({ name }) => name === "youtu");
    if (kept?.version < VERSION) await upgrading();
    database = await opened();
  } catch (error) {
    failure = error;
    memory = Object.fromEntries(Object.keys(STORES).map((name) => [name, new Map()]));
  }
}

// `work(stores)` starts requests; resolves with what it returned, once all is on disk.
function transaction(names, mode, work) {
  return new Promise((resolve, reject) => {
    const running = database.transaction(names, mode);
    running.onabort = () => reject(running.error);
    const result = work(...[names].flat().map((name) => running.objectStore(name)));
    running.oncomplete = () => resolve(result.value);
  });
}

function answered(request, then = (value) => value) {
  const result = { value: undefined };
  request.onsuccess = () => (result.value = then(request.result));
  return result;
}

const keyOf = (name, record) => {
  const { keyPath } = STORES[name];
  return JSON.stringify(Array.isArray(keyPath) ? keyPath.map((part) => record[part]) : record[keyPath]);
};

export async function get(name, key) {
  if (memory) return structuredClone(memory[name].get(JSON.stringify(key)));
  return transaction(name, "readonly", (store) => answered(store.get(key)));
}

export async function all(name) {
  if (memory) return [...memory[name].values()].map((record) => structuredClone(record));
  return transaction(name, "readonly", (store) => answered(store.getAll()));
}

// The records whose indexed field is `value`.
export async function among(name, value) {
  if (memory) return (await all(name)).filter((record) => record[STORES[name].index] === value);
  return transaction(name, "readonly", (store) => answered(store.index(STORES[name].index).getAll(value)));
}

export async function put(name, ...records) {
  if (memory) return records.forEach((record) => memory[name].set(keyOf(name, record), structuredClone(record)));
  return transaction(name, "readwrite", (store) => {
    for (const record of records) store.put(record);
    return {};
  });
}

// Add those whose key is not there yet; how many were.
export async function add(name, records) {
  if (memory) {
    const before = memory[name].size;
    for (const record of records) if (!memory[name].has(keyOf(name, record))) await put(name, record);
    return memory[name].size - before;
  }
  return transaction(name, "readwrite", (store) => {
    const result = { value: 0 };
    for (const record of records) {
      const request = store.add(record);
      request.onsuccess = () => (result.value += 1);
      request.onerror = (event) => {
        // Else the whole transaction would be undone.
        if (request.error.name === "ConstraintError") event.preventDefault();
      };
    }
    return result;
  });
}

// `alter(record)` in place; false from it leaves the record as it was. The record as it is now, or undefined.
export async function change(name, key, alter) {
  if (memory) {
    const record = await get(name, key);
    if (record && alter(record) !== false) await put(name, record);
    return record;
  }
  return transaction(name, "readwrite", (store) =>
    answered(store.get(key), (record) => {
      if (record && alter(record) !== false) store.put(record);
      return record;
    }),
  );
}

export async function remove(name, ...keys) {
  if (memory) return keys.forEach((key) => memory[name].delete(JSON.stringify(key)));
  return transaction(name, "readwrite", (store) => {
    for (const key of keys) store.delete(key);
    return {};
  });
}

export async function clear(...names) {
  if (memory) return names.forEach((name) => memory[name].clear());
  return transaction(names, "readwrite", (...stores) => {
    for (const store of stores) store.clear();
    return {};
  });
}
