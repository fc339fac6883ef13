// The conversations: which there are, which is shown, and every change to them on its way to the store.
// Knows records and tabs; no elements.

import { newId } from "./dom.js";
import * as store from "./store.js";
import { isThere, tab, tell } from "./tabs.js";
import { newestLeaf, pathTo } from "./tree.js";

export const NEW = "new"; // Whose draft it is while there is no conversation yet.
const DRAFT = "youtu.draft";
export const STALE_MS = 9000; // An answer under way says at least every few seconds that it is.

export const state = {
  conversations: new Map(),
  current: null, // The conversation shown; null: a new one.
  messages: new Map(), // Its messages, all versions.
  leaf: null, // The last message shown.
};

// `act` is called when a conversation came, went or changed here.
export const onChange = [];

function changed(id) {
  for (const act of onChange) act();
  tell({ kind: "conversation", id });
}

export function conversations() {
  return [...state.conversations.values()].sort((a, b) => b.updated - a.updated);
}

export function path() {
  return pathTo(state.messages, state.leaf);
}

export async function load() {
  state.conversations = new Map((await store.all("conversations")).map((record) => [record.id, record]));
}

async function messagesOf(id) {
  const messages = new Map((await store.among("messages", id)).map((message) => [message.id, message]));
  for (const message of messages.values()) {
    const alive = message.open && message.open.tab !== tab && Date.now() - message.open.beat < STALE_MS;
    if (message.open && !alive) Object.assign(message, { open: undefined, end: message.facts ? undefined : "broken" });
  }
  return messages;
}

// `running`: messages of this tab that are being written now; the store may lag behind them.
export async function show(id, running = []) {
  const conversation = id && state.conversations.get(id);
  const messages = conversation ? await messagesOf(id) : new Map();
  for (const message of running) if (message.conversation === id) messages.set(message.id, message);
  state.current = conversation || null;
  state.messages = messages;
  state.leaf = conversation ? conversation.leaf : null;
  if (conversation && !messages.has(state.leaf)) state.leaf = newestLeaf(messages, null);
}

// What another tab did to the conversation shown here. Goes on to what it added below the last message.
export async function again(running) {
  const { current, leaf } = state;
  if (!current) return;
  const messages = await messagesOf(current.id);
  if (state.current !== current) return;
  for (const message of running) if (message.conversation === current.id) messages.set(message.id, message);
  state.messages = messages;
  state.leaf = newestLeaf(messages, messages.has(leaf) ? leaf : null);
}

export function titleFrom(text) {
  const line = text.trim().split("\n")[0];
  return line.length > 60 ? `${line.slice(0, 60)}…` : line;
}

export async function create(title, preset, thinking = null) {
  const now = Date.now();
  const record = { id: newId(), title, named: false, created: now, updated: now, leaf: null, start: null, preset, thinking };
  state.conversations.set(record.id, record);
  state.current = record;
  state.messages = new Map();
  state.leaf = null;
  try {
    await store.put("conversations", record);
  } catch (error) {
    state.conversations.delete(record.id);
    if (state.current === record) state.current = null;
    throw error;
  }
  changed(record.id);
  return record;
}

// Change fields of a conversation, whatever another tab changes in others.
export async function change(id, fields) {
  const here = state.conversations.get(id);
  if (here) Object.assign(here, fields);
  await store.change("conversations", id, (record) => void Object.assign(record, fields));
  changed(id);
}

export async function select(leaf) {
  state.leaf = leaf;
  if (state.current) await change(state.current.id, { leaf });
}

export function message(fields) {
  return { id: newId(), created: Date.now(), ...fields };
}

export async function append(made) {
  await store.put("messages", made);
  if (state.current?.id === made.conversation) {
    state.messages.set(made.id, made);
    state.leaf = made.id;
  }
  await change(made.conversation, { leaf: made.id, updated: Date.now() });
  tell({ kind: "message", conversation: made.conversation });
}

// An answer that grows is saved over what is there, but never brought back once it was deleted.
export async function save(made) {
  const kept = await store.change("messages", made.id, (record) => {
    for (const name of Object.keys(record)) if (!(name in made)) delete record[name];
    Object.assign(record, made);
  });
  if (kept) tell({ kind: "message", conversation: made.conversation });
}

export async function drop(made) {
  await store.remove("messages", made.id);
  if (state.current?.id === made.conversation) {
    state.messages.delete(made.id);
    if (state.leaf === made.id) await select(made.parent);
  } else {
    await change(made.conversation, { leaf: made.parent });
  }
  tell({ kind: "message", conversation: made.conversation });
}

export async function remove(id) {
  state.conversations.delete(id);
  await store.remove("conversations", id);
  const messages = await store.among("messages", id);
  await store.remove("messages", ...messages.map((message) => message.id));
  const drafts = await store.among("drafts", id);
  await store.remove("drafts", ...drafts.map((draft) => [draft.conversation, draft.tab]));
  changed(id);
}

// A conversation whose only question went back to where it was typed never was one.
export async function removeIfEmpty(id) {
  if ((await store.among("messages", id)).length) return false;
  await remove(id);
  if (state.current?.id === id) await show(null);
  return true;
}

export async function clear() {
  state.conversations.clear();
  await store.clear("conversations", "messages", "drafts");
  tell({ kind: "cleared" });
}

// A conversation of its own, of the messages up to and with this one.
export async function branch(id, title) {
  const origin = state.current;
  const copied = pathTo(state.messages, id);
  const record = await create(title, origin.preset, origin.thinking ?? null);
  let parent = null;
  const copies = [];
  for (const { role, content, reasoning, facts, end, created } of copied) {
    const made = message({ conversation: record.id, parent, role, content, reasoning, facts, end, created });
    state.messages.set(made.id, made);
    copies.push(made);
    parent = made.id;
  }
  await store.put("messages", ...copies);
  await select(parent);
  return record;
}

// What is being typed, at once: a tab that is closed has no time for the store.
export function noteDraft(text, id = state.current?.id ?? NEW) {
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify({ id, text }));
  } catch {
    // No storage in this browser: the store has it a moment later.
  }
}

function notedDraft(id) {
  try {
    const noted = JSON.parse(sessionStorage.getItem(DRAFT));
    return noted?.id === id ? noted.text : null;
  } catch {
    return null;
  }
}

// The draft of this tab; else the newest that a tab left which is no more, as after a crash.
export async function draft(id = state.current?.id ?? NEW) {
  const noted = notedDraft(id);
  if (noted !== null) return noted;
  const drafts = (await store.among("drafts", id)).filter((record) => !isThere(record.tab));
  const own = drafts.find((record) => record.tab === tab);
  return (own ?? drafts.sort((a, b) => b.updated - a.updated)[0])?.text ?? "";
}

export async function saveDraft(text, id = state.current?.id ?? NEW) {
  if (text) return store.put("drafts", { conversation: id, tab, text, updated: Date.now() });
  return store.remove("drafts", [id, tab]);
}

// Sent: whoever else still has the same text as a draft of this conversation has it from here.
export async function forgetDraft(text, id) {
  const same = (await store.among("drafts", id)).filter((record) => record.tab === tab || record.text === text);
  return store.remove("drafts", ...same.map((record) => [record.conversation, record.tab]));
}

// Ids of the conversations whose title or messages hold all the words.
export async function search(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = new Map([...state.conversations.values()].map(({ id, title }) => [id, [title]]));
  for (const { conversation, content, reasoning } of await store.all("messages")) {
    texts.get(conversation)?.push(content, reasoning ?? "");
  }
  const found = new Set();
  for (const [id, parts] of texts) {
    const text = parts.join("\n").toLowerCase();
    if (wanted.every((word) => text.includes(word))) found.add(id);
  }
  return found;
}
