// Conversations to files and back: JSON keeps all versions, Markdown what is shown. Files are not trusted.

import { add as addMade, made, presetFor } from "./archive.js";
import { newId } from "./dom.js";
import { say } from "./language.js";
import { migrated } from "./migration.js";
import * as presets from "./presets.js";
import * as store from "./store.js";
import { pathTo } from "./tree.js";

const FORMAT = "youtu-conversations";
const VERSION = 2; // Of both kinds of files; 1 had thinking and answer in one text.
const LINE = /\r\n?|\n/;
const ROLES = ["user", "assistant"];
const MARK = /^<!-- (\\*)youtu:(conversation|user|assistant)\b(.*)-->$/;
const REASONING = "<!-- youtu:reasoning -->"; // Quoted lines follow.
const THOUGHT = new RegExp(`^${REASONING}\n((?:>[^\n]*\n)+)\n?`);

async function withMessages(conversation) {
  const messages = await store.among("messages", conversation.id);
  const { system = "" } = presets.get(conversation.preset);
  return { ...conversation, system, messages: messages.map(({ open: _, ...message }) => message) };
}

// `more`: what else the file holds.
export async function toJson(conversations, more = {}) {
  const full = await Promise.all(conversations.map(withMessages));
  const file = { format: FORMAT, version: VERSION, exported: new Date().toISOString(), conversations: full, ...more };
  return JSON.stringify(file, null, 1);
}

// Everything that was made in this browser.
export const everything = async (conversations) => toJson(conversations, await made());

export const conversationToJson = (conversation) => toJson([conversation]);

// A line of the text that looks like one of our marks gets a backslash more; reading takes it away.
function escaped(text) {
  return text.replace(/^<!-- (\\*)youtu:/gm, "<!-- \\$1youtu:");
}

function unescaped(text) {
  return text.replace(/^<!-- \\(\\*)youtu:/gm, "<!-- $1youtu:");
}

function quoted(text) {
  return text.split(LINE).map((line) => `> ${line}`).join("\n");
}

export async function conversationToMarkdown(conversation) {
  const { messages } = await withMessages(conversation);
  const path = pathTo(new Map(messages.map((message) => [message.id, message])), conversation.leaf);
  const names = { user: say("you"), assistant: say("assistant") };
  const parts = path.map(({ role, content, reasoning }) => {
    const thought = reasoning ? `${REASONING}\n${quoted(reasoning)}\n\n` : "";
    return `<!-- youtu:${role} -->\n## ${names[role]}\n\n${thought}${escaped(content)}\n`;
  });
  return `<!-- youtu:conversation ${VERSION} -->\n# ${conversation.title.replace(/\s+/g, " ")}\n\n${parts.join("\n")}`;
}

export async function toMarkdown(conversations) {
  return (await Promise.all(conversations.map(conversationToMarkdown))).join("\n");
}

export function fileName(title, ending) {
  const plain = title.replace(/[\\/:*?"<>|\p{C}]+/gu, " ").trim().slice(0, 60) || "youtu";
  return `${plain}.${ending}`;
}

class NotOurs extends Error {}

const isText = (value, most = 4_000_000) => typeof value === "string" && value.length <= most;
const isId = (value) => isText(value, 100) && value.length > 0;

function numbers(source, names) {
  return Object.fromEntries(names.map((name) => [name, Number.isFinite(source?.[name]) ? source[name] : 0]));
}

function cleanMessage(given, conversation) {
  const { id, parent, role, content, reasoning, created, end, facts } = given ?? {};
  if (!isId(id) || !ROLES.includes(role) || !isText(content) || !(parent === null || isId(parent))) throw new NotOurs();
  const made = { id, conversation, parent, role, content, created: Number.isFinite(created) ? created : 0 };
  if (["stopped", "broken", "imported"].includes(end)) made.end = end;
  if (role === "assistant" && isText(reasoning) && reasoning) made.reasoning = reasoning;
  if (role === "assistant" && facts && typeof facts === "object") {
    made.facts = {
      model: isText(facts.model, 200) ? facts.model : "",
      finish_reason: facts.finish_reason === "length" ? "length" : "stop",
      token_count: Number.isFinite(facts.token_count) ? facts.token_count : 0,
      usage: numbers(facts.usage, ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"]),
      timings: numbers(facts.timings, ["ttft_s", "total_s", "tokens_per_second"]),
    };
  } else if (role === "assistant" && !made.end) {
    made.end = "broken";
  }
  return made;
}

// {system, messages: [{role, content}]}, or the messages alone: as the APIs take them, and as the terminal once wrote.
function fromTurns(file) {
  const turns = Array.isArray(file) ? file : file.messages;
  const first = turns[0]?.role === "system" ? turns[0].content : file.system;
  const now = Date.now();
  const id = newId();
  const messages = turns.filter((turn) => turn?.role !== "system").map((turn, at) => {
    const given = { id: `${id}-${at}`, parent: at ? `${id}-${at - 1}` : null, created: now + at, end: "imported" };
    return cleanMessage({ ...given, role: turn?.role, content: turn?.content }, id);
  });
  if (!messages.length) throw new NotOurs();
  const line = messages[0].content.trim().split("\n")[0];
  const record = { id, title: line.slice(0, 60), named: false, created: now, updated: now, start: null, thinking: null };
  return [{ record: { ...record, leaf: messages.at(-1).id }, messages, from: { system: first } }];
}

function fromJson(text) {
  const file = JSON.parse(text);
  if (Array.isArray(file) || (!file?.format && Array.isArray(file?.messages))) return { found: fromTurns(file) };
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) throw new NotOurs();
  const current = file.version >= 2 ? (message) => message : (message) => migrated(message ?? {});
  const found = file.conversations.map((given) => {
    const { id, title, created, updated, leaf, start, preset, thinking, system, messages } = given ?? {};
    if (!isId(id) || !isText(title, 1000) || !Array.isArray(messages)) throw new NotOurs();
    const now = Date.now();
    const record = {
      id,
      title,
      named: true,
      created: Number.isFinite(created) ? created : now,
      updated: Number.isFinite(updated) ? updated : now,
      leaf: isId(leaf) ? leaf : null,
      start: isId(start) ? start : null,
      thinking: typeof thinking === "boolean" ? thinking : null,
    };
    return { record, messages: messages.map((message) => cleanMessage(current(message), id)), from: { preset, system } };
  });
  return { found, file };
}

function fromMarkdown(text) {
  const found = [];
  let message = null;
  const done = () => {
    if (!message) return;
    const { record, lines, version } = message;
    let body = lines.join("\n").replace(/^\s*## .*\n/, "").replace(/^\n/, "");
    const thought = version >= 2 && record.role === "assistant" && THOUGHT.exec(body);
    if (thought) {
      record.reasoning = thought[1].trimEnd().split("\n").map((quote) => quote.replace(/^> ?/, "")).join("\n");
      body = body.slice(thought[0].length);
    }
    record.content = unescaped(body.replace(/\n$/, "").replace(/\n$/, ""));
    if (version < 2) Object.assign(record, migrated(record));
    message = null;
  };
  let line = 0;
  for (const words of text.split(LINE)) {
    const mark = MARK.exec(words);
    if (mark && !mark[1] && mark[2] === "conversation") {
      done();
      const now = Date.now();
      const record = { id: newId(), title: "", named: true, created: now, updated: now, start: null, leaf: null };
      found.push({ record, messages: [], from: {}, version: Number(mark[3]) || 1 });
    } else if (mark && !mark[1]) {
      done();
      const last = found.at(-1);
      if (!last) throw new NotOurs();
      const { id: conversation, leaf: parent } = last.record;
      const record = { id: newId(), conversation, parent, role: mark[2], content: "", created: Date.now() + line };
      if (mark[2] === "assistant") record.end = "imported";
      last.messages.push(record);
      last.record.leaf = record.id;
      message = { record, lines: [], version: last.version };
    } else if (message) {
      message.lines.push(words);
    } else if (found.length && words.startsWith("# ")) {
      found.at(-1).record.title = words.slice(2).trim();
    }
    line += 1;
  }
  done();
  if (!found.length) throw new NotOurs();
  for (const { record } of found) record.title ||= "Markdown";
  return found;
}

// Add what a file holds; what is there already stays as it is, but goes on where the file goes further. How many of
// each kind were new: {conversations, messages, presets, templates, batches}.
// Throws an Error when the file is not one that this page has written.
export async function read(name, text) {
  let given;
  try {
    given = /\.(md|markdown)$/i.test(name) ? { found: fromMarkdown(text) } : fromJson(text);
  } catch (error) {
    throw new Error(error instanceof SyntaxError ? `JSON: ${error.message}` : name, { cause: error });
  }
  const added = { conversations: 0, messages: 0, ...(await addMade(given.file ?? {})) };
  await presets.load();
  for (const { record, messages, from } of given.found) {
    record.preset = await presetFor(from);
    const fresh = await store.add("conversations", [record]);
    const more = await store.add("messages", messages);
    if (!fresh && more) {
      await store.change("conversations", record.id, (kept) => {
        if (record.updated < kept.updated || !record.leaf) return false;
        return void Object.assign(kept, { leaf: record.leaf, updated: record.updated });
      });
    }
    added.conversations += fresh;
    added.messages += more;
  }
  return added;
}
