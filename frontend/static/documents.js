// Documents at the composer: attached by button, drop and paste, read by the server, counted, and named in requests.

import * as attachments from "./attachments.js";
import { facts, onFacts, showNotice } from "./circumstances.js";
import { $, button, element } from "./dom.js";
import { number, onLanguage, say } from "./language.js";
import * as sessions from "./sessions.js";
import * as store from "./store.js";
import * as wire from "./stream.js";
import { askForKey, unsaved } from "./view.js";

const KNOWLEDGE = "knowledge";
const COUNT_MS = 400;
const SWEEP_MS = 5000;
const TRIES = 20;
const ANSWER_SHARE = 4; // The server keeps one of so many parts of the context for the answer.
const WHY = {
  document_image: "documentImage",
  document_kind: "documentKind",
  document_encrypted: "documentEncrypted",
  document_damaged: "documentDamaged",
  document_empty: "documentEmpty",
  document_too_slow: "documentTooSlow",
  document_too_long: "documentTooLarge",
  document_too_big_inside: "documentTooLarge",
  body_too_large: "documentTooLarge",
};

let shown = []; // The records of the conversation at the composer.
let here = null; // Its id; null: a new one.
let overview = null; // What GET documents says: {largest, knowledge}.
let typed = 0; // Tokens in the field.
let timer = 0;
let sweeping = 0;
let counting = null;
const reading = new Map(); // Id of a record to the promise that the server has read it.

const current = () => sessions.state.current?.id ?? null;
const named = (records) => records.filter(({ knowledge, facts: read }) => knowledge || read);
const names = (records) => named(records).map(({ knowledge, facts: read }) => (knowledge ? KNOWLEDGE : read.id));
const headers = () => ($("key").value ? { Authorization: `Bearer ${$("key").value}` } : {});

function why({ code, message }) {
  return WHY[code] ? say(WHY[code]) : message;
}

function chip(record) {
  const { name, facts: read, error } = record;
  const state = error ? why(error) : read ? `${number(read.tokens ?? 0)} ${say("tokens")}` : say("documentReading");
  return element(
    "li",
    { class: error ? "chip bad" : "chip", data: { id: record.id } },
    element("span", { class: "chip-name", text: name, title: name }),
    element("span", { class: "chip-state", text: state }),
    button("close", say("documentRemove", { name }), () => drop(record)),
  );
}

function show() {
  const files = shown.filter(({ knowledge }) => !knowledge);
  $("attachments").hidden = !files.length;
  $("attachments").replaceChildren(...files.map(chip));
  const base = overview?.knowledge;
  $("knowledge-line").hidden = !base;
  $("knowledge").checked = shown.some(({ knowledge }) => knowledge);
  if (base) $("knowledge-line").title = say("knowledgeHelp", { count: number(base.documents) });
  showCount();
}

function showCount() {
  const attached = shown.reduce((sum, { facts: read }) => sum + (read?.tokens ?? 0), 0);
  $("tokens").textContent = typed || attached ? `${number(typed + attached)} ${say("tokens")}` : "";
  const room = (facts?.context ?? Infinity) * (1 - 1 / ANSWER_SHARE);
  $("cut").hidden = !attached || typed + attached < room;
}

// How many tokens the field has. Only the last text that was typed is asked about.
async function count() {
  counting?.abort();
  const text = $("draft").value;
  if (!text.trim() || !facts?.context) return (typed = 0), showCount();
  counting = new AbortController();
  try {
    const options = { key: $("key").value, signal: counting.signal };
    typed = (await (await wire.post("tokenize", { prompt: text }, options)).json()).count;
  } catch {
    typed = 0; // No count is no reason to disturb; a server that is away shows elsewhere.
  }
  showCount();
}

function countSoon() {
  clearTimeout(timer);
  timer = setTimeout(count, COUNT_MS);
}

// Another conversation is at the composer.
export async function change() {
  const id = current();
  shown = [];
  let records = [];
  try {
    records = await attachments.among(id);
  } catch (error) {
    unsaved(error);
  }
  if (id !== current()) return;
  here = id;
  shown = records;
  show();
  countSoon();
  for (const record of records) read(record);
}

async function again() {
  if (here !== current()) return change();
  shown = await attachments.among(here);
  show();
}

// Have the server read it, unless it has or cannot.
function read(record) {
  if (record.knowledge || record.facts || record.error) return null;
  if (!reading.has(record.id)) {
    reading.set(record.id, send(record).finally(() => reading.delete(record.id)));
  }
  return reading.get(record.id);
}

async function send(record) {
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    try {
      const response = await fetch(`documents?name=${encodeURIComponent(record.name)}`, {
        method: "POST",
        headers: { ...headers(), "Content-Type": "application/octet-stream" },
        body: record.file,
      });
      const sent = await response.json();
      if (response.ok) {
        await attachments.change(record.id, { facts: sent });
        break;
      }
      if (response.status === 401) return askForKey();
      if (response.status < 429) {
        await attachments.change(record.id, { error: { code: sent.error.code, message: sent.error.message } });
        break;
      }
      await pause(Number(response.headers.get("Retry-After")) || 2);
    } catch {
      await pause(2); // The server is away: the light says so.
    }
  }
  await again();
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function attach(files) {
  for (const file of files) {
    const image = file.type.startsWith("image/") && { code: "document_image", message: "" };
    const large = overview && file.size > overview.largest && { code: "body_too_large", message: "" };
    const fields = { name: file.name || say("documentPasted"), size: file.size, file, error: image || large || null };
    try {
      const record = await attachments.add(current(), fields);
      await again();
      read(record);
    } catch (error) {
      unsaved(error);
    }
  }
}

async function drop(record) {
  await attachments.remove(record.id);
  await again();
  $("draft").focus();
}

async function chooseKnowledge() {
  if ($("knowledge").checked) await attachments.add(current(), { knowledge: true, name: "" });
  else await attachments.remove(...shown.filter(({ knowledge }) => knowledge).map(({ id }) => id));
  await again();
}

// Whether anything is attached at the composer.
export const attached = () => shown.length > 0;

// Before a question is sent: whether all that is attached can be asked about. Waits for what is being read.
export async function ready() {
  await Promise.all(shown.map(read));
  await again();
  if (shown.some(({ error }) => error)) return showNotice("documentsBad"), false;
  if (shown.some(({ knowledge, facts: known }) => !knowledge && !known)) return showNotice("documentsUnread"), false;
  clearTimeout(timer);
  typed = 0;
  return true;
}

// The new conversation has its id: what was attached before belongs to it.
export async function adopt(id) {
  await attachments.adopt(id);
  await change();
}

export const copy = attachments.copy;

// `ask` of the wire, with the documents of the conversation. A server that has forgotten them gets them again.
export async function* ask(body, options, conversation) {
  const records = await attachments.among(conversation);
  const documents = names(records);
  if (!documents.length) return yield* wire.ask(body, options);
  try {
    yield* wire.ask({ ...body, documents }, options);
  } catch (error) {
    if (error.code !== "document_not_found") throw error;
    const files = records.filter(({ knowledge }) => !knowledge);
    for (const record of files) await attachments.change(record.id, { facts: null });
    await Promise.all(files.map((record) => read({ ...record, facts: null })));
    const known = names(await attachments.among(conversation));
    if (known.length < documents.length) throw error;
    yield* wire.ask({ ...body, documents: known }, options);
  }
}

async function look() {
  try {
    const response = await fetch("documents", { headers: headers() });
    if (response.ok) overview = await response.json();
  } catch {
    // Asked again when the server is there.
  }
  show();
}

// What was attached to conversations that are gone. Which there are is asked of the store, not of this tab, which
// may have slept; where the store cannot be used, nothing goes.
async function sweep() {
  if (store.failure) return;
  const there = await store.all("conversations");
  await attachments.sweep(new Set(there.map(({ id }) => id)));
}

function hasFiles(event) {
  return [...(event.dataTransfer?.types ?? [])].includes("Files");
}

export function start() {
  $("attach").addEventListener("click", () => $("attach-file").click());
  $("attach-file").addEventListener("change", async () => {
    const files = [...$("attach-file").files];
    $("attach-file").value = "";
    await attach(files);
  });
  $("knowledge").addEventListener("change", chooseKnowledge);
  $("draft").addEventListener("input", countSoon);
  $("draft").addEventListener("paste", (event) => {
    const { files } = event.clipboardData;
    // A spreadsheet puts a picture of its cells beside their text: the text is what was meant.
    if (!files.length || event.clipboardData.getData("text/plain")) return;
    event.preventDefault();
    attach([...files]);
  });
  $("chat").addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    $("chat").classList.add("dropping");
  });
  $("chat").addEventListener("dragleave", (event) => {
    if (!$("chat").contains(event.relatedTarget)) $("chat").classList.remove("dropping");
  });
  $("chat").addEventListener("drop", (event) => {
    $("chat").classList.remove("dropping");
    if (!hasFiles(event)) return;
    event.preventDefault();
    attach([...event.dataTransfer.files]);
  });
  $("key").addEventListener("change", () => {
    look();
    for (const record of shown) read(record);
  });
  sessions.onChange.push(() => {
    clearTimeout(sweeping);
    sweeping = setTimeout(sweep, SWEEP_MS);
  });
  onLanguage(show);
  let well = false;
  onFacts(() => {
    if (facts.status === "healthy" && !well) look();
    well = facts.status === "healthy";
  });
}
