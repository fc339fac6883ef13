// The bench of templates: many questions in, answers corrected by hand, templates out.

import * as run from "./bench_run.js";
import { write } from "./bench_csv.js";
import { LongList } from "./bench_list.js";
import { showForm, start as startForm } from "./bench_source.js";
import { $, download, element, icon, question, showOptions } from "./dom.js";
import { number, onLanguage, say } from "./language.js";
import * as presets from "./presets.js";
import { onTold } from "./tabs.js";
import { fileName } from "./transfer.js";

const { state } = run;
const SAVE_MS = 300;
const FILTERS = {
  benchAll: () => true,
  benchOpen: (row) => row.state === "todo",
  benchDone: (row) => row.state === "done",
  benchFailed: (row) => row.state === "failed",
  benchGood: (row) => row.good,
};
let adding = false; // Whether the form for a new list is shown.
let saving = 0;
let list = null;
let ready = null;

const filter = () => FILTERS[$("b-filter").value] ?? FILTERS.benchAll;
const edited = (row) => row.state === "done" && row.answer !== row.original;
const stateOf = (row) => (run.run(row.batch)?.busy.has(row.number) ? "running" : row.state);
const stateWord = (name) => say({ todo: "stateTodo", running: "stateRunning", done: "stateDone", failed: "stateFailed" }[name]);

// The list

function fill(node, row) {
  const name = stateOf(row);
  const mark = element("span", { class: `b-mark ${name}`, title: stateWord(name) });
  if (row.good) mark.append(icon("star"));
  const text = element("span", { class: "b-text", text: row.question });
  const state_ = row.good ? `${stateWord(name)}, ${say("benchGood")}` : stateWord(name);
  node.replaceChildren(
    element("span", { class: "b-number", text: number(row.number) }),
    mark,
    text,
    element("span", { class: "unseen", text: state_ }),
  );
  node.classList.toggle("good", row.good);
}

function showRow(row) {
  $("b-pick").hidden = Boolean(row);
  $("b-one").hidden = !row;
  $("bench").classList.toggle("with-row", Boolean(row));
  if (!row) return;
  const name = stateOf(row);
  const parts = [`${number(row.number)}${row.id ? ` (${row.id})` : ""}`, stateWord(name)];
  if (edited(row)) parts.push(say("benchEdited"));
  if (row.state === "done" && row.finish === "length") parts.push(say("length"));
  if (row.state === "done") parts.push(`${number(row.tokens)} ${say("tokens")}`);
  if (row.state === "failed") parts.push(row.error);
  $("b-state").textContent = parts.join(" · ");
  $("b-question").textContent = row.question;
  if ($("b-answer").value !== row.answer) $("b-answer").value = row.answer;
  $("b-answer").disabled = name === "running";
  $("b-good").lastChild.textContent = say(row.good ? "benchUnmark" : "benchMark");
  $("b-good").ariaPressed = String(row.good);
  $("b-good").disabled = !row.answer.trim();
  $("b-restore").hidden = !edited(row);
  $("b-again").disabled = Boolean(run.run(row.batch)) || run.elsewhere(state.batch);
}

function showRun() {
  const at = run.run();
  const away = run.elsewhere(state.batch);
  const done = state.rows.filter((row) => row.state === "done").length;
  const failed = state.rows.filter((row) => row.state === "failed").length;
  const good = state.rows.filter((row) => row.good).length;
  $("b-run").replaceChildren(icon(at ? "stop" : "resume"), say(at ? "benchPause" : "benchRun"));
  $("b-run").disabled = away || (!at && done === state.rows.length);
  $("b-progress").max = Math.max(1, state.rows.length);
  $("b-progress").value = done + failed;
  const parts = [say("benchProgress", { done: number(done), total: number(state.rows.length) })];
  if (failed) parts.push(say("benchFailures", { count: number(failed) }));
  if (good) parts.push(say("benchGoods", { count: number(good) }));
  if (at && at.done > 3) {
    const minutes = ((Date.now() - at.started) / at.done) * (state.rows.length - done - failed);
    parts.push(say("benchRate", { minutes: number(Math.ceil(minutes / 60_000)) }));
  }
  $("b-counts").textContent = parts.join(" · ");
  const trouble = away ? "benchElsewhere" : at ? at.trouble : lastTrouble;
  $("b-notice").hidden = !trouble;
  if (trouble && $("b-notice").textContent !== say(trouble)) $("b-notice").textContent = say(trouble);
}

let lastTrouble = null; // Why the last run ended, if not by itself.

function showList() {
  list.set(state.rows.filter(filter()));
  showRow(list.picked);
}

function showAll() {
  const form = adding || !state.batch;
  $("b-lists").hidden = form;
  $("b-source").hidden = !form;
  $("b-work").hidden = form;
  $("b-cancel").hidden = !state.batches.length;
  if (form) return showForm();
  showOptions($("b-batch"), state.batches, state.batch.id);
  showOptions($("b-preset"), presets.all(), state.batch.preset);
  const chosen = $("b-filter").value;
  $("b-filter").replaceChildren(...Object.keys(FILTERS).map((name) => new Option(say(name), name)));
  $("b-filter").value = chosen in FILTERS ? chosen : "benchAll";
  showList();
  showRun();
}

async function edit(fields) {
  const row = list.picked;
  if (!row) return;
  await run.change(row, fields);
  list.refresh(row);
  showRow(row);
  showRun();
}

function saveAnswer() {
  clearTimeout(saving);
  saving = 0;
  const row = list.picked;
  if (!row || row.answer === $("b-answer").value) return;
  edit({ answer: $("b-answer").value, state: row.state === "running" ? "todo" : "done", tokens: row.tokens ?? 0 });
}

// One row again, beside no run.
async function again() {
  const row = list.picked;
  const made = { controller: new AbortController(), busy: new Set(), trouble: null, done: 0 };
  row.state = "running";
  list.refresh(row);
  showRow(row);
  const timer = setTimeout(() => made.controller.abort(), 300_000);
  await run.answer(made, state.batch, row);
  clearTimeout(timer);
  if (row.state === "running") row.state = row.answer ? "done" : "todo";
  lastTrouble = made.trouble;
  list.refresh(row);
  showRow(row);
  showRun();
}

// Files

function exportCsv() {
  const head = "id,question,answer,good,edited,model_answer,finish_reason,tokens,seconds,error".split(",");
  const records = state.rows.filter(filter()).map((row) => [
    row.id || row.number,
    row.question,
    row.answer,
    row.good ? "yes" : "",
    edited(row) ? "yes" : "",
    row.original,
    row.finish,
    row.tokens,
    row.seconds,
    row.error,
  ]);
  download(fileName(state.batch.name, "csv"), "text/csv", write([head, ...records]));
}

function exportJsonl() {
  const preset = presets.get(state.batch.preset);
  const lines = state.rows.filter(filter()).map((row) => {
    const answered = row.answer ? [{ role: "assistant", content: row.answer }] : [];
    return JSON.stringify({
      id: row.id || String(row.number),
      question: row.question,
      answer: row.answer,
      good: row.good,
      edited: edited(row),
      model_answer: row.original,
      finish_reason: row.finish ?? null,
      tokens: row.tokens ?? null,
      seconds: row.seconds ?? null,
      error: row.error || null,
      messages: [...run.messages(row, preset), ...answered],
    });
  });
  download(fileName(state.batch.name, "jsonl"), "application/jsonl", lines.map((line) => `${line}\n`).join(""));
}

// Wiring

function listen() {
  const on = (id, event, act) => $(id).addEventListener(event, act);
  startForm(async (name, found) => {
    await run.create(name, found);
    adding = false;
    $("b-filter").value = "benchAll";
    showAll();
    $("b-run").focus();
  });
  on("b-new", "click", () => {
    adding = true;
    showAll();
    $("b-paste").focus();
  });
  on("b-cancel", "click", () => {
    adding = false;
    showAll();
  });
  on("b-batch", "change", async () => {
    saveAnswer();
    await run.open($("b-batch").value);
    list.pick(null);
    showAll();
  });
  on("b-rename", "click", async () => {
    const name = await question({ title: say("benchRenameTitle"), yes: say("rename"), value: state.batch.name });
    if (!name) return;
    await run.changeBatch(state.batch.id, { name });
    showAll();
  });
  on("b-delete", "click", async () => {
    const title = say("benchDeleteTitle", { name: state.batch.name });
    if (!(await question({ title, yes: say("delete"), danger: true }))) return;
    await run.remove(state.batch.id);
    list.pick(null);
    showAll();
  });
  on("b-run", "click", async () => {
    lastTrouble = null;
    if (run.run()) run.pause(state.batch.id);
    else if (!(await run.start(state.batch.id))) await run.load();
    showAll();
  });
  on("b-preset", "change", () => run.changeBatch(state.batch.id, { preset: $("b-preset").value }));
  on("b-filter", "change", showList);
  on("b-csv", "click", exportCsv);
  on("b-jsonl", "click", exportJsonl);
  on("b-answer", "input", () => (saving ||= setTimeout(saveAnswer, SAVE_MS)));
  on("b-answer", "blur", saveAnswer);
  on("b-good", "click", () => edit({ good: !list.picked.good }));
  on("b-again", "click", again);
  on("b-restore", "click", () => edit({ answer: list.picked.original }));
  for (const [id, by] of [["b-previous", -1], ["b-next", 1]]) {
    on(id, "click", () => {
      saveAnswer();
      list.step(by);
    });
  }
  on("b-back", "click", () => {
    saveAnswer();
    list.pick(null);
    $("b-rows").focus();
  });
  addEventListener("pagehide", saveAnswer);
}

async function prepare() {
  list = new LongList($("b-rows"), $("b-space"), { fill, onPick: showRow });
  listen();
  run.onChange((kind, row) => {
    if (kind === "row") {
      if (row.batch !== state.batch?.id) return;
      list.refresh(row);
      if (row === list.picked) showRow(row);
      showRun();
    } else if (state.batch) {
      const at = run.run();
      if (at) lastTrouble = at.trouble;
      showRun();
      if (list.picked) showRow(list.picked);
    }
  });
  onTold(async (change) => {
    if (change.kind === "row") await run.again(change);
    if (change.kind !== "batch") return;
    const { batch } = state;
    await run.load();
    if (batch && !state.batch) await run.open();
    showAll();
  });
  onLanguage(showAll);
  setInterval(() => state.batch?.runner && showRun(), 2000);
  await run.load();
  await run.open();
}

export function show() {
  ready ??= prepare();
  return ready.then(showAll);
}

// Called when the page starts and a list was at work when it was left.
export async function resume() {
  await (ready ??= prepare());
  await run.resume();
  await run.open(state.batch?.id);
  showAll();
}
