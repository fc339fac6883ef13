// The bench of templates: many questions in, answers corrected by hand, templates out.

import * as run from "./bench_run.js";
import { write } from "./bench_csv.js";
import { toJsonl, toTable } from "./bench_export.js";
import { LongList } from "./bench_list.js";
import { RowView, stateOf, stateWord } from "./bench_row.js";
import { showForm, start as startForm } from "./bench_source.js";
import { $, download, element, icon, question, showOptions } from "./dom.js";
import { number, onLanguage, say } from "./language.js";
import * as library from "./library.js";
import * as presets from "./presets.js";
import { onTold } from "./tabs.js";
import { fileName } from "./transfer.js";

const { state } = run;
const XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
const FILTERS = {
  benchAll: () => true,
  benchOpen: (row) => row.state === "todo",
  benchDone: (row) => row.state === "done",
  benchFailed: (row) => row.state === "failed",
  benchGood: (row) => row.good,
  benchNewer: (row) => Boolean(row.previous),
};
// Which rows are asked, besides those that have no answer.
const AGAIN = { benchRunOpen: () => false, benchRunGood: (row) => row.good, benchRunAll: () => true };
let adding = false; // Whether the form for a new list is shown.
let list = null;
let view = null; // Of the row that is picked.
let ready = null;
let lastTrouble = null; // Why the last run ended, if not by itself.

// The list

function shown() {
  const words = $("b-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const category = $("b-category").value;
  const passes = FILTERS[$("b-filter").value] ?? FILTERS.benchAll;
  return state.rows.filter((row) => {
    if (!passes(row) || (category && row.category !== category)) return false;
    const text = `${row.id}\n${row.question}\n${row.answer}\n${row.category ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function fill(node, row) {
  const name = stateOf(row);
  const mark = element("span", { class: `b-mark ${name}`, title: stateWord(name) });
  if (row.good) mark.append(icon("star"));
  const text = element("span", { class: "b-text" });
  text.append(
    element("span", { class: "b-line", dir: "auto", text: row.question || "…" }),
    element("span", { class: "b-line b-said", dir: "auto", text: row.answer.slice(0, 200) || row.error || "" }),
  );
  const state_ = row.good ? `${stateWord(name)}, ${say("benchGood")}` : stateWord(name);
  node.replaceChildren(
    element("span", { class: "b-number", text: number(row.number) }),
    mark,
    text,
    ...(row.category ? [element("span", { class: "badge b-tag", text: row.category })] : []),
    element("span", { class: "unseen", text: state_ }),
  );
  node.classList.toggle("good", row.good);
}

function showRun() {
  const at = run.run();
  const away = run.elsewhere(state.batch);
  const count = (passes) => state.rows.filter(passes).length;
  const [done, failed, good] = [FILTERS.benchDone, FILTERS.benchFailed, FILTERS.benchGood].map(count);
  $("b-run").replaceChildren(icon(at ? "stop" : "resume"), say(at ? "benchPause" : "benchRun"));
  const asked = state.rows.some((row) => row.state !== "done" || AGAIN[$("b-which").value]?.(row));
  $("b-run").disabled = away || (!at && !asked);
  $("b-which").disabled = Boolean(at) || away;
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

function showChoices() {
  const choices = (id, names, first) => {
    const chosen = $(id).value;
    $(id).replaceChildren(...names.map((name) => new Option(say(name), name)));
    $(id).value = names.includes(chosen) ? chosen : first;
  };
  choices("b-filter", Object.keys(FILTERS), "benchAll");
  choices("b-which", Object.keys(AGAIN), "benchRunOpen");
  const categories = [...new Set(state.rows.map(({ category }) => category).filter(Boolean))].sort();
  const chosen = $("b-category").value;
  $("b-category").replaceChildren(new Option(say("benchAllCategories"), ""), ...categories.map((name) => new Option(name)));
  $("b-category").value = categories.includes(chosen) ? chosen : "";
  $("b-category").parentElement.hidden = !categories.length;
  $("b-categories").replaceChildren(...categories.map((name) => new Option(name)));
}

function showList() {
  list.set(shown());
  view.show(list.picked);
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
  showChoices();
  showList();
  showRun();
}

function changed(row) {
  list.refresh(row);
  view.show(list.picked);
  showRun();
}

// One row again, beside no run.
async function again() {
  const row = list.picked;
  const made = { controller: new AbortController(), busy: new Set(), trouble: null, done: 0 };
  row.state = "running";
  list.refresh(row);
  view.show(row);
  const timer = setTimeout(() => made.controller.abort(), 300_000);
  await run.answer(made, state.batch, row);
  clearTimeout(timer);
  if (row.state === "running") row.state = row.answer ? "done" : "todo";
  lastTrouble = made.trouble;
  changed(row);
}

async function addRow() {
  view.save();
  const row = await run.add();
  for (const id of ["b-search", "b-category"]) $(id).value = "";
  $("b-filter").value = "benchAll";
  showList();
  list.pick(row);
  showRun();
  $("b-question").focus();
}

async function removeRow() {
  const row = list.picked;
  const title = say("benchDeleteRowTitle", { question: row.question.slice(0, 60) || number(row.number) });
  if (!(await question({ title, yes: say("delete"), danger: true }))) return;
  const at = list.items.indexOf(row);
  await run.removeRow(row);
  list.pick(null);
  showAll();
  list.pick(list.items[Math.min(at, list.items.length - 1)] ?? null);
}

// Answers to the chat's library: this one, or all that are marked.
async function toLibrary(rows) {
  const count = await library.add(rows.map((row) => ({ title: row.question, text: row.answer, category: row.category ?? "" })));
  $("b-said-library").textContent = say("benchInLibrary", { count: number(count) });
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
    view.save();
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
    else if (!(await run.start(state.batch.id, { again: AGAIN[$("b-which").value] }))) await run.load();
    $("b-which").value = "benchRunOpen";
    showAll();
  });
  on("b-preset", "change", () => run.changeBatch(state.batch.id, { preset: $("b-preset").value }));
  on("b-which", "change", showRun);
  on("b-filter", "change", showList);
  on("b-category", "change", showList);
  on("b-search", "input", showList);
  on("b-csv", "click", () => {
    download(fileName(state.batch.name, "csv"), "text/csv", write(toTable(shown())));
  });
  on("b-xlsx", "click", async () => {
    const { write: workbook } = await import("./bench_xlsx.js");
    const { name } = state.batch;
    download(fileName(name, "xlsx"), XLSX, workbook(toTable(shown()), name));
  });
  on("b-jsonl", "click", () => {
    download(fileName(state.batch.name, "jsonl"), "application/jsonl", toJsonl(shown(), presets.get(state.batch.preset)));
  });
  on("b-add", "click", addRow);
  on("b-remove", "click", removeRow);
  on("b-again", "click", () => (view.save(), again()));
  on("b-to-library", "click", () => toLibrary([list.picked]));
  on("b-goods-to-library", "click", () => toLibrary(state.rows.filter(FILTERS.benchGood)));
  for (const [id, by] of [["b-previous", -1], ["b-next", 1]]) {
    on(id, "click", () => {
      view.save();
      list.step(by);
    });
  }
  on("b-back", "click", () => {
    view.save();
    list.pick(null);
    $("b-rows").focus();
  });
}

async function prepare() {
  list = new LongList($("b-rows"), $("b-space"), { fill, onPick: (row) => view.show(row) });
  view = new RowView({ picked: () => list.picked, onChange: changed });
  listen();
  run.onChange((kind, row) => {
    if (kind === "row") {
      if (row.batch !== state.batch?.id) return;
      list.refresh(row);
      if (row === list.picked) view.show(row);
      showRun();
    } else if (state.batch) {
      const at = run.run();
      if (at) lastTrouble = at.trouble;
      showRun();
      if (list.picked) view.show(list.picked);
    }
  });
  onTold(async (change) => {
    if (change.kind === "row") await run.again(change);
    if (change.kind === "rows" && change.id === state.batch?.id && !run.run()) {
      const at = list.picked?.number;
      view.save();
      await run.open(change.id);
      showAll();
      list.pick(state.rows.find(({ number: one }) => one === at) ?? null);
    }
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
  if (!ready) return (ready = prepare()).then(showAll);
  // An import may have brought lists.
  return ready.then(() => run.load()).then(() => state.batch || run.open()).then(showAll);
}

// Called when the page starts and a list was at work when it was left.
export async function resume() {
  await (ready ??= prepare());
  await run.resume();
  await run.open(state.batch?.id);
  showAll();
}
