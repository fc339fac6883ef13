// This tab among others that show the same page: its id, and what they tell one another.

import { newId } from "./dom.js";
import { VERSION } from "./store.js";

const STORE = "youtu.tab";
const ANSWER_MS = 1000; // Within it, also a busy tab answers.
const channel = new BroadcastChannel("youtu");
const listeners = [];

function remember(id) {
  try {
    sessionStorage.setItem(STORE, id);
  } catch {
    // Then this tab is a new one after every reload.
  }
  return id;
}

function remembered() {
  try {
    return sessionStorage.getItem(STORE);
  } catch {
    return null;
  }
}

export let tab = remembered() ?? remember(newId());

const others = new Map(); // Of the tabs that answered, or came later, and have not gone: id to version of the store.

export const isThere = (id) => id !== tab && others.has(id);

channel.addEventListener("message", ({ data }) => {
  if (data.kind === "gone") others.delete(data.tab);
  else if (data.kind === "here" || data.kind === "answer") others.set(data.tab, data.version ?? 1);
});

// A duplicated tab brings the id of the first along; the first one says so.
export function settle() {
  return new Promise((resolve) => {
    channel.addEventListener("message", ({ data }) => {
      if (data.kind === "answer" && data.tab === tab) tab = remember(newId());
    });
    channel.postMessage({ kind: "here", tab, version: VERSION });
    setTimeout(() => {
      channel.addEventListener("message", ({ data }) => {
        if (data.kind === "here") channel.postMessage({ kind: "answer", tab, version: VERSION });
      });
      addEventListener("pagehide", () => channel.postMessage({ kind: "gone", tab }));
      resolve();
    }, 60);
  });
}

// Resolves once no tab runs a page with an earlier version of the store: those could save nothing any more.
// `wait()` is called when there is one.
export async function withoutEarlier(wait) {
  for (;;) {
    for (const [id, version] of others) if (version < VERSION) others.delete(id);
    channel.postMessage({ kind: "here", tab, version: VERSION });
    await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
    if (![...others.values()].some((version) => version < VERSION)) return;
    wait();
  }
}

// `change`: {kind: "conversation" | "message" | "presets" | "batch" | "row" | "rows" | "templates" | "cleared", id?, conversation?}
export function tell(change) {
  channel.postMessage(change);
}

export function onTold(act) {
  listeners.push(act);
}

channel.addEventListener("message", ({ data }) => {
  if (!["here", "answer", "gone"].includes(data.kind)) for (const act of listeners) act(data);
});
