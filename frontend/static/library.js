// The library of the chat: prompts and quick replies, kept in this browser, put into the question with a click.

import * as composer from "./composer.js";
import { $, button, element, newId, question } from "./dom.js";
import { number, onLanguage, say } from "./language.js";
import * as store from "./store.js";
import { onTold, tell } from "./tabs.js";
import { fill, variables } from "./variables.js";

let texts = []; // As kept, newest first.
let edited = null; // The one in the form; {} is a new one.

async function load() {
  texts = (await store.all("templates")).sort((a, b) => b.created - a.created);
}

// Add texts that are not there yet, {title, text, category} each; how many were.
export async function add(given) {
  await load();
  const known = new Set(texts.map(({ title, text }) => `${title}\n${text}`));
  const fresh = given.filter(({ title, text }) => text.trim() && !known.has(`${title}\n${text}`));
  const created = Date.now();
  await store.put("templates", ...fresh.map((one, at) => ({ id: newId(), created: created - at, ...one })));
  tell({ kind: "templates" });
  return fresh.length;
}

// Into the question, with its places filled: each is asked for; one that is left empty stays.
async function use({ text }) {
  $("library").close();
  const values = {};
  for (const name of variables(text)) {
    const value = await question({ title: say("libraryFill", { name }), yes: say("insert"), value: "" });
    if (value) values[name] = value;
  }
  const before = composer.text();
  await composer.set(before ? `${before.trimEnd()}\n${fill(text, values)}` : fill(text, values));
  $("draft").focus();
}

async function remove(one) {
  const title = say("deleteTitle", { title: one.title || one.text.slice(0, 60) });
  if (!(await question({ title, yes: say("delete"), danger: true }))) return;
  await store.remove("templates", one.id);
  tell({ kind: "templates" });
  await show();
}

function item(one) {
  const insert = element("button", { type: "button", class: "text library-use", on: { click: () => use(one) } });
  if (one.title) insert.append(element("strong", { dir: "auto", text: one.title }));
  insert.append(element("span", { dir: "auto", text: one.text }));
  const parts = [insert];
  if (one.category) parts.push(element("span", { class: "badge", text: one.category }));
  parts.push(button("edit", say("libraryEdit"), () => edit(one)), button("trash", say("delete"), () => remove(one)));
  return element("li", {}, ...parts);
}

function showList() {
  const words = $("library-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = texts.filter(({ title, text, category }) => {
    const all = `${title}\n${text}\n${category}`.toLowerCase();
    return words.every((word) => all.includes(word));
  });
  $("library-list").replaceChildren(...found.slice(0, 200).map(item));
  $("library-said").textContent = texts.length
    ? say("libraryFound", { found: number(found.length), all: number(texts.length) })
    : say("libraryEmpty");
}

async function show() {
  await load();
  showList();
}

function edit(one) {
  edited = one;
  $("library-form").hidden = !one;
  $("library-browse").hidden = Boolean(one);
  if (!one) return;
  for (const name of ["title", "text", "category"]) $(`library-${name}`).value = one[name] ?? "";
  $("library-text").focus();
}

async function keep(event) {
  event.preventDefault();
  const value = (name) => $(`library-${name}`).value.trim();
  const one = { id: newId(), created: Date.now(), ...edited, title: value("title"), text: value("text"), category: value("category") };
  await store.put("templates", one);
  tell({ kind: "templates" });
  edit(null);
  await show();
}

export async function open(text = "") {
  edit(null);
  $("library-search").value = text;
  await show();
  $("library").showModal();
  $("library-search").focus();
}

export function start() {
  const on = (id, event, act) => $(id).addEventListener(event, act);
  on("open-library", "click", () => open());
  on("library-search", "input", showList);
  on("library-new", "click", () => edit({ text: composer.text() }));
  on("library-form", "submit", keep);
  on("library-cancel", "click", () => edit(null));
  onTold(({ kind }) => kind === "templates" && $("library").open && show());
  onLanguage(() => $("library").open && showList());
}
