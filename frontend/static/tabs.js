// This tab among others that show the same page: its id, and what they tell one another.

import { newId } from "./dom.js";

const STORE = "youtu.tab";
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

const others = new Set(); // Ids of the tabs that answered, or came later, and have not gone.

export const isThere = (id) => id !== tab && others.has(id);

channel.addEventListener("message", ({ data }) => {
  if (data.kind === "gone") others.delete(data.tab);
  else if (data.kind === "here" || data.kind === "answer") others.add(data.tab);
});

// A duplicated tab brings the id of the first along; the first one says so.
export function settle() {
  return new Promise((resolve) => {
    channel.addEventListener("message", ({ data }) => {
      if (data.kind === "answer" && data.tab === tab) tab = remember(newId());
    });
    channel.postMessage({ kind: "here", tab });
    setTimeout(() => {
      channel.addEventListener("message", ({ data }) => {
        if (data.kind === "here") channel.postMessage({ kind: "answer", tab });
      });
      addEventListener("pagehide", () => channel.postMessage({ kind: "gone", tab }));
      resolve();
    }, 60);
  });
}

// `change`: {kind: "conversation" | "message" | "presets" | "batch" | "cleared", id?, conversation?}
export function tell(change) {
  channel.postMessage(change);
}

export function onTold(act) {
  listeners.push(act);
}

channel.addEventListener("message", ({ data }) => {
  if (!["here", "answer", "gone"].includes(data.kind)) for (const act of listeners) act(data);
});
