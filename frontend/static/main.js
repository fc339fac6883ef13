// Starts the page: loads what is kept, follows the address (#/, #/c/<id>, #/bench), listens to keys and other tabs.

import * as chat from "./chat.js";
import * as circumstances from "./circumstances.js";
import * as composer from "./composer.js";
import * as documents from "./documents.js";
import { $, composing, element, icon, touch } from "./dom.js";
import { choose, language, onLanguage, say, showWords } from "./language.js";
import { printConversation } from "./printing.js";
import * as key from "./key.js";
import * as library from "./library.js";
import * as presets from "./presets.js";
import * as sessions from "./sessions.js";
import * as settings from "./settings.js";
import * as sidebar from "./sidebar.js";
import * as store from "./store.js";
import { onTold, settle, withoutEarlier } from "./tabs.js";
import * as view from "./view.js";

const SHORTCUTS = [
  [["Enter"], "keySend"],
  [["Shift", "Enter"], "keyLine"],
  [["Ctrl", "Enter"], "keySendAlways"],
  [["Esc"], "keyStop"],
  [["↑"], "keyEdit"],
  [["Ctrl", "Shift", "O"], "keyNew"],
  [["Ctrl", "K"], "keySearch"],
  [["Ctrl", "P"], "keyPrint"],
  [["Ctrl", ","], "keySettings"],
  [["Ctrl", "/"], "keyShortcuts"],
];
let bench = null; // The module of the other view, once it was asked for.

async function load() {
  bench ??= await import("./bench.js");
  return bench;
}

async function route() {
  const [, kind, id] = location.hash.split("/");
  const atBench = kind === "bench";
  $("chat").hidden = atBench;
  $("bench").hidden = !atBench;
  for (const [name, here] of [["to-chat", !atBench], ["to-bench", atBench]]) {
    here ? $(name).setAttribute("aria-current", "page") : $(name).removeAttribute("aria-current");
  }
  $("skip").href = atBench ? "#bench" : "#draft";
  document.body.dataset.view = atBench ? "bench" : "chat";
  sidebar.leave();
  if (atBench) {
    return (await load()).show();
  }
  if (sessions.state.current && kind === "c" && sessions.state.current.id === id) return sidebar.showSessions();
  await sessions.show(kind === "c" ? id : null, chat.beingWritten());
  if (circumstances.hasNotice("contextFull", "contextFullBy", "tooLong", "refused", "torn", "failed", "late")) circumstances.showNotice(null);
  await composer.change();
  chat.showAll();
  sidebar.showSessions();
  if (!touch.matches) $("draft").focus();
}

function scenes() {
  $("scenes").replaceChildren(
    ...presets.all().filter(({ id }) => presets.isBuiltIn(id) && id !== "general").map(({ id, name }) => {
      const example = say(`example_${id}`);
      const use = () => {
        $("preset").value = id;
        $("preset").dispatchEvent(new Event("change"));
        composer.set(example);
        $("draft").focus();
      };
      const words = [element("strong", { text: name }), element("span", { text: example })];
      return element("button", { type: "button", class: "scene", on: { click: use } }, ...words);
    }),
  );
}

function words() {
  showWords(document);
  $("language").textContent = say("other");
  $("language").lang = language() === "zh" ? "en" : "zh-CN";
  const mac = /Mac|iP/.test(navigator.platform);
  $("shortcut-list").replaceChildren(
    ...SHORTCUTS.flatMap(([keys, name]) => [
      element("dt", {}, ...keys.map((key) => element("kbd", { text: mac && key === "Ctrl" ? "⌘" : key }))),
      element("dd", { text: say(name) }),
    ]),
  );
  scenes();
}

function onKey(event) {
  if (composing(event)) return;
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (sidebar.isOpen()) sidebar.open(false);
    else chat.stop();
    return;
  }
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
  const acts = {
    k: sidebar.startSearch,
    p: document.body.dataset.view === "chat" && printConversation,
    ",": settings.open,
    "/": () => $("shortcuts").showModal(),
    O: fresh,
    o: event.shiftKey && fresh, // Shift with the caps lock on.
  };
  const act = acts[event.key];
  if (!act || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  act();
}

async function fresh() {
  if (location.hash.startsWith("#/c/") || location.hash === "#/bench") location.hash = "#/";
  else await route();
  $("draft").focus();
}

async function changed() {
  await sessions.load();
  const { current } = sessions.state;
  if (current && !sessions.state.conversations.has(current.id)) {
    if (location.hash.startsWith("#/c/")) location.hash = "#/";
  } else if (current) {
    sessions.state.current = sessions.state.conversations.get(current.id);
  }
  sidebar.showSessions();
}

// What another tab did. Many changes come at once while it writes an answer.
let due = 0;
function told({ kind, conversation }) {
  if (kind === "presets") presets.load().then(() => (composer.showPresets(), scenes()));
  if (kind === "conversation" || kind === "cleared") changed();
  if (kind === "message" && conversation === sessions.state.current?.id && !due) {
    due = setTimeout(() => {
      due = 0;
      chat.lookAgain();
    }, 200);
  }
}

// What is kept is about to be migrated. A tab with the earlier page could save nothing any more after that.
async function withoutEarlierTabs() {
  await withoutEarlier(() => {
    for (const node of document.querySelectorAll("#sidebar, .composer")) node.inert = true;
    if (!circumstances.hasNotice("earlierTab")) circumstances.showNotice("earlierTab");
  });
  for (const node of document.querySelectorAll("#sidebar, .composer")) node.inert = false;
  if (circumstances.hasNotice("earlierTab")) circumstances.showNotice(null);
}

async function start() {
  for (const node of document.querySelectorAll("[data-icon]")) node.prepend(icon(node.dataset.icon));
  key.start();
  key.onKey((changed) => {
    if (circumstances.hasNotice("unauthorized")) circumstances.showNotice(null);
    if (!changed) return;
    view.forget();
    chat.showAll();
  });
  words();
  view.start();
  sidebar.start();
  library.start();
  settings.start({ changed });
  documents.start();
  composer.start({ send: chat.send, stop: chat.stop, editLast: view.editLast });
  circumstances.onFacts(() => {
    view.showModel();
    chat.showState();
  });
  onLanguage(() => {
    words();
    circumstances.writeNotice();
    chat.showAll();
  });
  $("language").addEventListener("click", () => choose(language() === "zh" ? "en" : "zh"));
  $("fresh").addEventListener("click", fresh);
  $("open-shortcuts").addEventListener("click", () => $("shortcuts").showModal());
  addEventListener("keydown", onKey);
  addEventListener("hashchange", route);
  const looked = circumstances.look();
  await Promise.all([store.open(withoutEarlierTabs), settle()]);
  onTold(told);
  if (store.failure) view.unsaved(store.failure);
  await Promise.all([sessions.load(), presets.load()]);
  composer.showPresets();
  scenes();
  await route();
  await looked;
  if ((await store.all("batches")).some(({ running }) => running)) (await load()).resume();
  document.body.dataset.ready = "";
}

start();
