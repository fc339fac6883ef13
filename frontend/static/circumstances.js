// How things stand with the server: the light, the model's facts, and the notice above the question.
// A notice is kept by its name, so that it changes with the language.

import { $, element } from "./dom.js";
import { say } from "./language.js";

const LOOK_MS = 3000; // While it is not well.
const LOOK_WELL_MS = 30_000;
const PASSING = ["loading", "down", "offline"]; // Notices that go when the server is well again.

export let facts = null; // GET page/facts; {status: "offline"} when nothing answers.
let notice = null; // {name, values, actions: [{name, act, primary}]}
let timer = 0;
const listeners = [];

export function onFacts(act) {
  listeners.push(act);
}

export const isWell = () => facts?.status === "healthy";

export function showNotice(name, values = {}, actions = []) {
  notice = name ? { name, values, actions } : null;
  writeNotice();
}

export function hasNotice(...names) {
  return Boolean(notice) && (!names.length || names.includes(notice.name));
}

export function writeNotice() {
  $("notice").hidden = !notice;
  // The role alert makes it heard; a text that did not change is not said again.
  const text = notice ? say(notice.name, notice.values) : "";
  if ($("notice-text").textContent !== text) $("notice-text").textContent = text;
  $("notice-count").textContent = "";
  $("notice-actions").replaceChildren(
    ...(notice?.actions ?? []).map(({ name, act, primary }) =>
      element("button", { type: "button", class: primary && "primary", text: say(name), on: { click: act } }),
    ),
  );
}

// Counts down in the notice; true when the time is up, false when `signal` ended it.
export function countDown(seconds, signal) {
  const until = Date.now() + 1000 * seconds;
  return new Promise((resolve) => {
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      $("notice-count").textContent = left > 0 ? say("inSeconds", { seconds: left }) : "";
      if (signal.aborted || left <= 0) {
        clearInterval(ticking);
        resolve(!signal.aborted);
      }
    };
    const ticking = setInterval(tick, 250);
    signal.addEventListener("abort", tick, { once: true });
    tick();
  });
}

export async function look() {
  clearTimeout(timer);
  const wasWell = isWell();
  try {
    facts = await (await fetch("page/facts")).json();
  } catch {
    facts = { needs_key: facts?.needs_key, status: "offline" };
  }
  const well = isWell();
  // One request that was lost while all is well is not news that passes by itself.
  if (well && !wasWell && hasNotice(...PASSING)) showNotice(null);
  else if (!well && (!hasNotice() || hasNotice(...PASSING))) {
    showNotice({ loading: "loading", offline: "offline" }[facts.status] ?? "down");
  }
  for (const act of listeners) act();
  if (!document.hidden || !well) timer = setTimeout(look, well ? LOOK_WELL_MS : LOOK_MS);
}

addEventListener("online", look);
addEventListener("offline", look);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
