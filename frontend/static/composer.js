// The field a question is typed in, its draft, and which preset the conversation uses.

import { $, composing, showOptions } from "./dom.js";
import * as presets from "./presets.js";
import * as sessions from "./sessions.js";
import { unsaved } from "./view.js";

const SAVE_MS = 200;
let timer = 0;
let owner = sessions.NEW; // The conversation whose draft the field holds.
let running = false;

export const text = () => $("draft").value;

function fit() {
  const draft = $("draft");
  draft.style.height = "auto";
  draft.style.height = `${Math.min(draft.scrollHeight, 240)}px`;
}

// What was typed is on its way: writing it as a draft now would leave it behind.
export function forgetPending() {
  clearTimeout(timer);
  timer = 0;
}

export async function save() {
  forgetPending();
  try {
    await sessions.saveDraft(text(), owner);
  } catch (error) {
    unsaved(error);
  }
}

export function set(value) {
  $("draft").value = value;
  owner = sessions.state.current?.id ?? sessions.NEW;
  sessions.noteDraft(value, owner);
  fit();
  showRunning(running);
  return save();
}

// Another conversation is shown: its draft and preset. What is typed meanwhile stays.
export async function change() {
  if (timer) await save();
  const before = text();
  owner = sessions.state.current?.id ?? sessions.NEW;
  const draft = await sessions.draft(owner);
  if (owner === (sessions.state.current?.id ?? sessions.NEW) && text() === before) $("draft").value = draft;
  sessions.noteDraft(text(), owner);
  fit();
  showRunning();
  showPresets();
}

export function preset() {
  return $("preset").value;
}

export function showPresets() {
  const chosen = sessions.state.current?.preset ?? presets.last();
  showOptions($("preset"), presets.all(), chosen);
  if (!$("preset").value) $("preset").selectedIndex = 0;
}

export function showRunning(now = running) {
  running = now;
  $("send").hidden = running;
  $("stop").hidden = !running;
  $("send").disabled = !text().trim();
}

// `send(text)` and `editLast()` do what the keys say.
export function start({ send, stop, editLast }) {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    send(text());
  });
  $("stop").addEventListener("click", () => {
    stop();
    $("draft").focus();
  });
  $("draft").addEventListener("input", () => {
    fit();
    showRunning();
    sessions.noteDraft(text(), owner);
    timer ||= setTimeout(save, SAVE_MS);
  });
  $("draft").addEventListener("keydown", (event) => {
    if (composing(event)) return;
    if (event.key === "ArrowUp" && !text()) {
      event.preventDefault();
      editLast();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send(text());
    }
  });
  $("preset").addEventListener("change", async () => {
    presets.remember(preset());
    if (sessions.state.current) await sessions.change(sessions.state.current.id, { preset: preset() });
  });
  addEventListener("resize", fit);
}
