// The list of conversations: search, rename, export, delete. On a narrow page it lies over the rest.

import { $, button, download, element, question } from "./dom.js";
import { date, language, onLanguage, say } from "./language.js";
import { printConversation } from "./printing.js";
import * as sessions from "./sessions.js";
import { conversationToJson, conversationToMarkdown, fileName } from "./transfer.js";

const SEARCH_MS = 150;
let found = null; // Ids that the search leaves; null: all.
let menuOf = null; // Id whose tools are open.
let timer = 0;

async function rename({ id, title }) {
  const given = await question({ title: say("renameTitle"), yes: say("rename"), value: title });
  if (!given) return;
  await sessions.change(id, { title: given, named: true });
}

async function remove({ id, title }) {
  const yes = await question({ title: say("deleteTitle", { title }), yes: say("delete"), danger: true });
  if (!yes) return;
  const shown = sessions.state.current?.id === id;
  const { node } = made.get(id);
  const beside = node.nextElementSibling ?? node.previousElementSibling;
  await sessions.remove(id);
  if (shown) location.hash = "#/";
  else (beside?.querySelector("a") ?? $("fresh")).focus();
}

function tools(conversation) {
  const save = async (kind) => {
    const text = kind === "json" ? await conversationToJson(conversation) : await conversationToMarkdown(conversation);
    const type = kind === "json" ? "application/json" : "text/markdown";
    download(fileName(conversation.title, kind), type, text);
  };
  const pick = (act) => {
    menuOf = null;
    showSessions();
    document.querySelector(`#sessions [data-id="${conversation.id}"] .more`)?.focus();
    act();
  };
  const item = (name, act, danger) =>
    element("button", { type: "button", class: danger && "danger", text: say(name), on: { click: () => pick(act) } });
  return element(
    "div",
    { class: "session-tools" },
    item("rename", () => rename(conversation)),
    ...(conversation.id === sessions.state.current?.id ? [item("print", printConversation)] : []),
    item("exportMarkdown", () => save("md")),
    item("exportJson", () => save("json")),
    item("delete", () => remove(conversation), true),
  );
}

function item(conversation) {
  const { id, title, updated } = conversation;
  const current = sessions.state.current?.id === id;
  const open = menuOf === id;
  const link = element(
    "a",
    { href: `#/c/${id}`, "aria-current": current && "page", title },
    element("span", { class: "session-title", text: title }),
    element("span", { class: "session-date", text: date(updated) }),
  );
  const more = button(
    "more",
    say("toolsOf", { title }),
    () => {
      menuOf = open ? null : id;
      showSessions();
      document.querySelector(`#sessions [data-id="${id}"] .more`)?.focus();
    },
    { class: "icon more", "aria-expanded": String(open) },
  );
  const made = element("li", { data: { id }, class: current && "current" }, link, more);
  if (open) made.append(tools(conversation));
  return made;
}

const made = new Map(); // Id to {node, key}: an item is made anew when what it shows has changed.

function nodeOf(conversation, words) {
  const { id, title, updated } = conversation;
  const key = [title, updated, sessions.state.current?.id === id, menuOf === id, words].join("\n");
  const old = made.get(id);
  if (old?.key === key) return old.node;
  const node = item(conversation);
  const focused = old?.node.contains(document.activeElement) && document.activeElement;
  if (old) old.node.replaceWith(node);
  if (focused) node.querySelector(focused.matches(".more") ? ".more" : "a").focus();
  made.set(id, { node, key });
  return node;
}

export function showSessions() {
  const all = sessions.conversations();
  const shown = found ? all.filter(({ id }) => found.has(id)) : all;
  const words = `${language()} ${new Date().toDateString()}`;
  const nodes = shown.map((conversation) => nodeOf(conversation, words));
  let at = $("sessions").firstElementChild;
  for (const node of nodes) {
    if (node === at) at = at.nextElementSibling;
    else $("sessions").insertBefore(node, at);
  }
  while (at) {
    const next = at.nextElementSibling;
    at.remove();
    at = next;
  }
  for (const id of made.keys()) if (!sessions.state.conversations.has(id)) made.delete(id);
  $("no-sessions").hidden = shown.length > 0;
  $("no-sessions").textContent = say(found && all.length ? "nothingFound" : "noSessions");
}

async function look() {
  const words = $("search").value.trim();
  found = words ? await sessions.search(words) : null;
  showSessions();
}

export function isOpen() {
  return document.body.classList.contains("with-sidebar");
}

export function open(yes = true) {
  document.body.classList.toggle("with-sidebar", yes);
  $("veil").hidden = !yes;
  if (yes) $("close-sidebar").focus();
  else if (document.activeElement?.closest("#sidebar")) $("open-sidebar").focus();
}

// Narrow: out of the way again. Wide: it stays.
export function leave() {
  if (isOpen()) open(false);
}

export function startSearch() {
  if (getComputedStyle($("open-sidebar")).display !== "none") open();
  $("search").focus();
  $("search").select();
}

export function start() {
  $("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, SEARCH_MS);
  });
  $("open-sidebar").addEventListener("click", () => open());
  $("close-sidebar").addEventListener("click", () => open(false));
  $("veil").addEventListener("click", () => open(false));
  onLanguage(showSessions);
  sessions.onChange.push(showSessions);
}

