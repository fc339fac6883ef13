// The field a question is typed in, its draft, and which preset the conversation uses.

import { change as showDocuments } from "./documents.js";
import { $, composing, sends, showOptions, touch } from "./dom.js";
import * as presets from "./presets.js";
import * as sessions from "./sessions.js";
import { unsaved } from "./view.js";

const SAVE_MS = 200;
let timer = 0;
let owner = sessions.NEW; // The conversation whose draft the field holds.
let running = false;
let sending = null; // {text, owner} of a question until the store has it; until then it is still part of the draft.

export const text = () => $("draft").value;
const currentId = () => sessions.state.current?.id ?? sessions.NEW;

function fit() {
  const draft = $("draft");
  draft.style.height = "auto";
  draft.style.height = `${Math.min(draft.scrollHeight, 240)}px`;
}

// All that must survive a reload.
function draft() {
  return sending?.owner === owner ? [sending.text, text()].filter(Boolean).join("\n") : text();
}

export async function save() {
  clearTimeout(timer);
  timer = 0;
  try {
    await sessions.saveDraft(draft(), owner);
  } catch (error) {
    unsaved(error);
  }
}

// Empty the field for a question that is being sent: what is typed from now on is not part of it.
export function take() {
  sending = { text: text(), owner };
  $("draft").value = "";
  fit();
  showRunning();
}

// The store has the question that was taken.
export async function sent() {
  const { text: asked, owner: before } = sending;
  sending = null;
  if (owner === before) owner = currentId();
  sessions.noteDraft(text(), owner);
  await sessions.forgetDraft(asked, before);
  await save();
}

// The store could not take the question.
export function restore() {
  const whole = draft();
  sending = null;
  return set(whole);
}

export function set(value) {
  $("draft").value = value;
  owner = currentId();
  sessions.noteDraft(value, owner);
  fit();
  showRunning(running);
  return save();
}

// Another conversation is shown: its draft and preset. What is typed meanwhile stays.
export async function change() {
  if (timer) await save();
  const before = text();
  owner = currentId();
  const kept = await sessions.draft(owner);
  if (owner === currentId() && text() === before) $("draft").value = kept;
  sessions.noteDraft(text(), owner);
  fit();
  showRunning();
  showPresets();
  $("thinking").value = String(sessions.state.current?.thinking ?? "");
  showDocuments();
}

export function preset() {
  return $("preset").value;
}

// Whether this conversation's answers are to be thought about; null: as the preset says.
export function thinking() {
  const { value } = $("thinking");
  return value === "" ? null : value === "true";
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

// `send()` and `editLast()` do what the keys say.
export function start({ send, stop, editLast }) {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("stop").addEventListener("click", () => {
    stop();
    $("draft").focus();
  });
  $("draft").addEventListener("input", () => {
    fit();
    showRunning();
    sessions.noteDraft(draft(), owner);
    timer ||= setTimeout(save, SAVE_MS);
  });
  $("draft").addEventListener("keydown", (event) => {
    if (composing(event)) return;
    if (event.key === "ArrowUp" && !text()) {
      event.preventDefault();
      editLast();
    } else if (sends(event)) {
      event.preventDefault();
      send();
    }
  });
  $("preset").addEventListener("change", async () => {
    presets.remember(preset());
    if (sessions.state.current) await sessions.change(sessions.state.current.id, { preset: preset() });
  });
  $("thinking").addEventListener("change", async () => {
    if (sessions.state.current) await sessions.change(sessions.state.current.id, { thinking: thinking() });
  });
  $("draft").enterKeyHint = touch.matches ? "enter" : "send";
  document.body.classList.toggle("touch", touch.matches);
  addEventListener("resize", fit);
}
