// The column of turns, the gauge of the context, and what screen readers hear. Shows what `sessions` holds.

import { facts, hasNotice, isWell, showNotice } from "./circumstances.js";
import { $, element } from "./dom.js";
import * as key from "./key.js";
import { number, onLanguage, say as words } from "./language.js";
import * as sessions from "./sessions.js";
import { Turn } from "./turn.js";
import { newestLeaf, versions } from "./tree.js";

const { state } = sessions;
const NEAR_END = 80; // Pixels: as close to the end, the page follows the answer.
const FULL = 0.85; // Share of the context from which the gauge warns.
let turns = new Map(); // Message id to Turn.
let conversation = null;
let sticky = true; // Whether the end is to stay in view as the answer grows.

const box = () => $("turns");
const atEnd = () => box().scrollHeight - box().scrollTop - box().clientHeight < NEAR_END;

// Rendering costs the server something: only what comes into view is rendered.
const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      turns.get(target.dataset.id)?.finish();
    }
  },
  { rootMargin: "600px" },
);

export const leafBelow = (message) => newestLeaf(state.messages, message.id);

export function toEnd() {
  sticky = true;
  box().scrollTop = box().scrollHeight;
}

// Whatever was made before is made anew, as after a change of the language.
export function forget() {
  turns = new Map();
  $("list").replaceChildren();
}

function turnOf(message, model, acts) {
  const all = versions(state.messages, message);
  const old = turns.get(message.id);
  if (old) {
    const ended = old.message.open && !message.open;
    old.message = message;
    old.fill(all);
    if (message.role === "assistant") ended ? old.finish() : old.show();
    return old;
  }
  const made = new Turn(message, { model, versions: all, acts });
  if (message.role === "assistant" && !message.open) {
    made.blocks.host.textContent = message.content;
    seen.observe(made.node);
  }
  return made;
}

export function showTurns(model, acts) {
  if (state.current?.id !== conversation) {
    sticky = true;
    forget();
  }
  conversation = state.current?.id;
  showTitle();
  const path = sessions.path();
  turns = new Map(path.map((message) => [message.id, turnOf(message, model, acts)]));
  const nodes = [...turns.values()].map(({ node }) => node);
  const start = path.findIndex(({ id }) => id === state.current?.start);
  const dropped = state.current?.start === "next" ? path.length : start;
  path.forEach(({ id }, at) => turns.get(id).node.classList.toggle("dropped", at < dropped));
  if (dropped > 0) nodes.splice(dropped, 0, element("p", { class: "divider", text: words("dropped") }));
  const last = path.at(-1);
  if (last?.role === "user") {
    const again = element("button", { type: "button", text: words("tryAgain"), on: { click: () => acts.answer(last) } });
    nodes.push(element("div", { class: "unanswered" }, element("span", { text: words("unanswered") }), again));
  }
  const there = [...$("list").childNodes];
  if (there.length !== nodes.length || nodes.some((node, at) => node !== there[at])) $("list").replaceChildren(...nodes);
  $("empty").hidden = path.length > 0;
  if (sticky) toEnd();
  showEnd();
}

// An answer has grown.
export function grow(message) {
  turns.get(message.id)?.show();
}

export async function ended(message) {
  await turns.get(message.id)?.finish();
}

// Render what has not come into view yet.
export async function finishAll() {
  for (const { node, message } of turns.values()) if (message.role === "assistant") seen.unobserve(node);
  for (const turn of turns.values()) if (turn.message.role === "assistant" && !turn.message.open) await turn.finish();
}

export function editLast() {
  const last = sessions.path().findLast(({ role }) => role === "user");
  turns.get(last?.id)?.edit();
}

function showEnd() {
  $("to-end").hidden = atEnd();
}

export function showGauge(context) {
  const last = sessions.path().findLast((message) => message.facts);
  $("gauge").hidden = !context;
  if (!context) return;
  const used = last ? last.facts.usage.prompt_tokens + last.facts.usage.completion_tokens : 0;
  $("gauge-text").textContent = `${number(used)} / ${number(context)}`;
  $("gauge-meter").max = context;
  $("gauge-meter").value = used;
  $("gauge").classList.toggle("full", used >= FULL * context);
  $("gauge").title = words("gaugeHelp");
}

// What screen readers hear: whole blocks, not every token; the last few stay in the page.
export function say(text) {
  if (!text.trim()) return;
  $("spoken").append(element("p", { text: text.trim() }));
  while ($("spoken").childElementCount > 20) $("spoken").firstChild.remove();
}

export function hush() {
  $("spoken").replaceChildren();
}

export function askForKey() {
  showNotice("unauthorized");
  key.ask();
}

// What an answer waits for, before it has begun; null: no more.
export function wait(message, text) {
  turns.get(message.id)?.wait(text);
}

// The tab is called as its conversation is.
export function showTitle() {
  const model = isWell() ? facts.model : "Youtu";
  const atBench = document.body.dataset.view === "bench";
  const title = atBench ? words("bench") : state.current?.title;
  document.title = title ? `${title} · ${model}` : model;
}

let folded = null; // The words about the model that were put away.

function showAbout(text) {
  $("about-text").textContent = text;
  $("about").hidden = !text || folded === text;
}

let told = false;
export function unsaved(error) {
  if (!told) showNotice("unsaved", { message: error.message });
  told = true;
}

export function showModel() {
  const well = isWell();
  $("light").dataset.state = facts?.status ?? "asking";
  $("model").textContent = well ? facts.model : "Youtu";
  showTitle();
  $("demo").hidden = !(well && facts.demo);
  // most descriptions only add the weights' format to the name
  const more = well && !facts.description.startsWith(`${facts.model}, `) ? facts.description : "";
  showAbout(well && facts.demo ? words("aboutDemo") : more);
  key.need(Boolean(facts?.needs_key) || hasNotice("unauthorized"));
}

export function start() {
  let top = 0;
  const scrolled = () => {
    // Not being at the end is no sign: the answer may have grown since. Going up is.
    if (atEnd()) sticky = true;
    else if (box().scrollTop < top) sticky = false;
    top = box().scrollTop;
    showEnd();
  };
  $("close-about").addEventListener("click", () => {
    folded = $("about-text").textContent;
    showAbout(folded);
    $("demo").focus();
  });
  $("demo").addEventListener("click", () => {
    folded = $("about").hidden ? null : $("about-text").textContent;
    showAbout($("about-text").textContent);
  });
  box().addEventListener("scroll", scrolled, { passive: true });
  // What is rendered later, too, must not push the end out of view; what the reader opens or edits stays put.
  new ResizeObserver(() => (sticky ? toEnd() : showEnd())).observe($("list"));
  $("list").addEventListener("pointerdown", () => (sticky = false));
  $("to-end").addEventListener("click", toEnd);
  onLanguage(() => {
    forget();
    showModel();
  });
}
