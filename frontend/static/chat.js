// The page: what was said, what is being typed, and one answer at a time. Text enters the page as text only.

import { STRINGS } from "./strings.js";
import { Refused, ask } from "./stream.js";

const $ = (id) => document.getElementById(id);
const STORE = "youtu.chat";
const SAVE_EVERY_MS = 300;
const LOOK_EVERY_MS = 3000;

const state = { turns: [], draft: "", language: null, ...read() };
let running = null; // AbortController of the answer under way
let health = null;
let notice = null; // {name, values}: kept by name, so that it changes with the language
let saving = 0;

function read() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
}

function save() {
  clearTimeout(saving);
  saving = 0;
  try {
    localStorage.setItem(STORE, JSON.stringify(state));
  } catch (error) {
    show("unsaved", { message: error.message });
  }
}

function saveSoon() {
  saving ||= setTimeout(save, SAVE_EVERY_MS);
}

function language() {
  return state.language ?? ((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en");
}

function say(name, values = {}) {
  return STRINGS[language()][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// Showing

function show(name, values = {}) {
  notice = name ? { name, values } : null;
  $("notice").hidden = !notice;
  $("notice").textContent = notice ? say(name, values) : "";
}

function facts(turn) {
  if (turn.open) return "";
  const parts = [];
  if (turn.facts) {
    const { timings, token_count: tokens, finish_reason: why } = turn.facts;
    parts.push(`${say("ttft")} ${timings.ttft_s.toFixed(2)} s`, `${tokens} ${say("tokens")}`);
    if (timings.tokens_per_second) parts.push(`${timings.tokens_per_second.toFixed(1)} ${say("speed")}`);
    parts.push(turn.facts.time_cost);
    if (why === "length") parts.push(say("length"));
  }
  if (turn.end) parts.push(say(turn.end));
  return parts.join(" · ");
}

function turnElement(turn) {
  const made = element("article", `turn ${turn.role}`);
  const who = turn.role === "user" ? say("you") : turn.model || health?.model || "Youtu";
  made.append(element("div", "who", who), element("div", "text", turn.content));
  if (turn.role === "assistant") made.append(element("div", "facts", facts(turn)));
  if (turn.open) made.classList.add("open");
  return made;
}

function showTurns() {
  $("turns").querySelectorAll(".turn").forEach((turn) => turn.remove());
  $("turns").append(...state.turns.map(turnElement));
  $("empty").hidden = state.turns.length > 0;
  $("turns").scrollTop = $("turns").scrollHeight;
}

function showAll() {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = say(node.dataset.text);
  for (const node of document.querySelectorAll("[data-hint]")) node.placeholder = say(node.dataset.hint);
  for (const node of document.querySelectorAll("[data-label]")) node.ariaLabel = say(node.dataset.label);
  $("language").textContent = say("other");
  $("language").lang = language() === "zh" ? "en" : "zh-CN";
  showHealth();
  showTurns();
  if (notice) show(notice.name, notice.values);
}

function showHealth() {
  const healthy = health?.status === "healthy";
  $("light").dataset.state = health?.status ?? "asking";
  $("model").textContent = healthy ? health.model : "Youtu";
  document.title = healthy ? health.model : "Youtu";
  $("demo").hidden = !(healthy && health.demo);
  $("about").hidden = !(healthy && health.demo);
  $("about").textContent = healthy && health.demo ? say("aboutDemo") : "";
}

function showRunning() {
  $("send").hidden = Boolean(running);
  $("stop").hidden = !running;
  $("turns").ariaBusy = String(Boolean(running));
  $("send").disabled = !$("draft").value.trim();
}

function fitDraft() {
  const draft = $("draft");
  draft.style.height = "auto";
  draft.style.height = `${Math.min(draft.scrollHeight + 2, 200)}px`;
}

function setDraft(text) {
  $("draft").value = state.draft = text;
  fitDraft();
  showRunning();
}

// Doing

async function look() {
  try {
    health = await (await fetch("health")).json();
  } catch {
    health = { status: "offline" };
  }
  showHealth();
  if (health.status === "healthy") {
    if (["loading", "down", "offline"].includes(notice?.name)) show(null);
    return;
  }
  if (!running) show({ loading: "loading", offline: "offline" }[health.status] ?? "down");
  setTimeout(look, LOOK_EVERY_MS);
}

function explain(error) {
  if (!(error instanceof Refused)) return show("offline");
  const values = { message: error.message, seconds: error.retryAfter };
  if (error.status === 401) return show("unauthorized");
  if (error.status === 429) return show("busy", values);
  if (error.code === "deadline_exceeded") return show("late");
  if (["not_ready", "no_engine", "cancelled", "draining"].includes(error.code)) {
    return show("unavailable", values);
  }
  show(error.status >= 400 && error.status < 500 ? "refused" : "failed", values);
}

async function send() {
  const question = $("draft").value;
  if (running || !question.trim()) return;
  const turn = { role: "assistant", content: "", open: true };
  state.turns.push({ role: "user", content: question }, turn);
  const messages = state.turns.slice(0, -1).map(({ role, content }) => ({ role, content }));
  running = new AbortController();
  setDraft("");
  show(null);
  save();
  showTurns();
  const shown = $("turns").lastElementChild;
  try {
    for await (const { event, data } of ask(messages, { key: $("key")?.value, signal: running.signal })) {
      if (event === "done") {
        turn.facts = data;
        turn.model = data.model;
      } else {
        add(turn, shown, data.delta);
      }
    }
    if (!turn.facts) {
      turn.end = "broken";
      show("torn");
    }
  } catch (error) {
    const stopped = running.signal.aborted;
    turn.end = stopped ? "stopped" : "broken";
    if (!stopped && turn.content && !(error instanceof Refused)) show("torn");
    else if (!stopped) explain(error);
    if (!stopped && !(error instanceof Refused && error.status < 500 && error.status > 0)) look();
  }
  finish(turn, question);
}

function add(turn, shown, text) {
  const turns = $("turns");
  const atEnd = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 60;
  turn.content += text;
  shown.querySelector(".text").append(text);
  if (atEnd) turns.scrollTop = turns.scrollHeight;
  saveSoon();
}

function finish(turn, question) {
  running = null;
  delete turn.open;
  if (!turn.facts && !turn.content) {
    // Nothing came: the question goes back to where it was typed.
    state.turns.splice(-2);
    setDraft($("draft").value ? `${question}\n${$("draft").value}` : question);
  }
  save();
  showTurns();
  showRunning();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

$("draft").addEventListener("keydown", (event) => {
  // While an input method composes, Enter chooses a word; 229 is what some browsers report at its end.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});

$("draft").addEventListener("input", () => {
  state.draft = $("draft").value;
  fitDraft();
  showRunning();
  saveSoon();
});

$("stop").addEventListener("click", () => running?.abort());

$("fresh").addEventListener("click", () => {
  running?.abort();
  state.turns = [];
  show(null);
  save();
  showTurns();
  $("draft").focus();
});

$("language").addEventListener("click", () => {
  state.language = language() === "zh" ? "en" : "zh";
  save();
  showAll();
});

$("key")?.addEventListener("input", () => sessionStorage.setItem(STORE, $("key").value));
addEventListener("pagehide", save);

for (const turn of state.turns) {
  if (turn.open) Object.assign(turn, { open: undefined, end: "broken" });
}
if ($("key")) $("key").value = sessionStorage.getItem(STORE) ?? "";
showAll();
setDraft(state.draft);
$("draft").focus();
look();
