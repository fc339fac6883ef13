// Lists of questions being answered: kept row by row, one tab at work on each, going on after a reload.
// Knows the store and the wire; no elements.

import { $, newId } from "./dom.js";
import { facts } from "./circumstances.js";
import * as presets from "./presets.js";
import { reason } from "./reasons.js";
import * as store from "./store.js";
import { Refused, whole } from "./stream.js";
import { tab, tell } from "./tabs.js";
import { fill } from "./variables.js";
import { toSend } from "./tree.js";

const LEASE_MS = 8000;
const BEAT_MS = 2000;
const RETRY_S = 3;

export const state = { batches: [], batch: null, rows: [] }; // All lists; the one shown and its rows.
const runs = new Map(); // Id of a list to its run in this tab.
let listener = () => {};

// `act(kind, row)`: "rows" (many changed), "row" (this one), "run" (started, ended, or is held up).
export function onChange(act) {
  listener = act;
}

export async function load() {
  state.batches = (await store.all("batches")).sort((a, b) => b.created - a.created);
  if (state.batch) state.batch = state.batches.find(({ id }) => id === state.batch.id) ?? null;
}

export async function open(id) {
  state.batch = state.batches.find((batch) => batch.id === id) ?? state.batches[0] ?? null;
  const run = state.batch && runs.get(state.batch.id);
  state.rows = run ? run.rows : state.batch ? await store.among("rows", state.batch.id) : [];
}

export async function create(name, questions) {
  const batch = { id: newId(), name, created: Date.now(), preset: presets.last(), running: false, runner: null };
  const rows = questions.map((given, at) => newRow(batch.id, at + 1, given));
  await store.put("rows", ...rows);
  await store.put("batches", batch);
  tell({ kind: "batch", id: batch.id });
  await load();
  await open(batch.id);
}

// `given`: what is known of it, which may be an answer, too, as in a list that was exported.
function newRow(batch, number, given = {}) {
  const state = given.answer ? "done" : given.error ? "failed" : "todo";
  return { batch, number, id: "", question: "", answer: "", original: "", good: false, state, ...given };
}

// A row at the end of the list shown.
export async function add() {
  const row = newRow(state.batch.id, Math.max(0, ...state.rows.map(({ number }) => number)) + 1);
  await store.put("rows", row);
  state.rows.push(row);
  tell({ kind: "rows", id: row.batch });
  return row;
}

export async function removeRow(row) {
  state.rows.splice(state.rows.indexOf(row), 1);
  await store.remove("rows", [row.batch, row.number]);
  tell({ kind: "rows", id: row.batch });
}

export async function changeBatch(id, fields) {
  const batch = await store.change("batches", id, (record) => void Object.assign(record, fields));
  const here = state.batches.find((one) => one.id === id);
  if (here) Object.assign(here, fields);
  tell({ kind: "batch", id });
  return batch;
}

export async function remove(id) {
  pause(id);
  await store.remove("batches", id);
  const rows = await store.among("rows", id);
  await store.remove("rows", ...rows.map((row) => [row.batch, row.number]));
  tell({ kind: "batch", id });
  await load();
  await open();
}

// Change fields of one row, here and in the store.
export async function change(row, fields) {
  Object.assign(row, fields);
  await store.change("rows", [row.batch, row.number], (record) => void Object.assign(record, fields));
  tell({ kind: "row", batch: row.batch, number: row.number });
}

// Another tab changed a row of the list shown.
export async function again({ batch, number }) {
  if (state.batch?.id !== batch) return;
  const kept = await store.get("rows", [batch, number]);
  const row = state.rows.find((one) => one.number === number);
  if (kept && row) {
    Object.assign(row, kept);
    listener("row", row);
  }
}

export const run = (id = state.batch?.id) => runs.get(id);
export const elsewhere = (batch) =>
  Boolean(batch?.runner && batch.runner.tab !== tab && Date.now() - batch.runner.beat < LEASE_MS);

// Answer what has no answer, and once more what `again(row)` says. False: another tab is at it.
export async function start(id, { failed = true, again = () => false } = {}) {
  if (runs.has(id)) return true;
  const batch = await store.change("batches", id, (record) => {
    if (elsewhere(record)) return false;
    Object.assign(record, { running: true, runner: { tab, beat: Date.now() } });
  });
  if (batch?.runner?.tab !== tab) return false;
  const rows = state.batch?.id === id ? state.rows : await store.among("rows", id);
  const more = rows.filter((row) => row.state !== "todo" && ((failed && row.state === "failed") || again(row)));
  for (const row of more) row.state = "todo";
  if (more.length) await store.put("rows", ...more);
  const controller = new AbortController();
  const made = { id, rows, controller, busy: new Set(), trouble: null, started: Date.now(), done: 0 };
  runs.set(id, made);
  const beating = setInterval(() => {
    store.change("batches", id, (record) => void (record.runner = { tab, beat: Date.now() }));
  }, BEAT_MS);
  listener("run");
  work(made, batch).finally(async () => {
    clearInterval(beating);
    runs.delete(id);
    await changeBatch(id, { running: false, runner: null });
    listener("run");
  });
  return true;
}

export function pause(id) {
  runs.get(id)?.controller.abort();
}

// What was at work when the page was left goes on.
export async function resume() {
  await load();
  for (const { id, running } of state.batches) if (running) await start(id, { failed: false });
}

async function work(made, batch) {
  // One slot stays free for people.
  const workers = Math.max(1, (facts?.slots ?? 2) - 1);
  const open = made.rows.filter((row) => row.state === "todo" && row.question.trim());
  let next = 0;
  const worker = async () => {
    while (next < open.length && !made.controller.signal.aborted) await answer(made, batch, open[next++]);
  };
  await Promise.all(Array.from({ length: workers }, worker));
}

// What the model is sent. The row's other columns stand in the place of {their names}, in question and system prompt.
export function messages(row, preset) {
  const filled = (text) => fill(text ?? "", row.fields ?? {});
  return toSend([{ role: "user", content: filled(row.question) }], null, filled(preset.system).trim());
}

// One row, until it has an answer, a refusal that will not pass, or the run is over.
export async function answer(made, batch, row) {
  const { signal } = made.controller;
  made.busy.add(row.number);
  listener("row", row);
  try {
    while (!signal.aborted) {
      const preset = presets.get(state.batches.find(({ id }) => id === batch.id)?.preset ?? batch.preset);
      const body = { messages: messages(row, preset), ...presets.options(preset) };
      try {
        const reply = await whole(body, { key: $("key").value, signal });
        if (made.trouble) (made.trouble = null), listener("run");
        const text = reply.response.trim();
        made.done += 1;
        const before = row.answer ? { answer: row.answer, original: row.original, good: row.good } : null;
        return await change(row, {
          state: "done",
          previous: before && before.answer !== text ? before : null,
          good: row.good && before?.answer === text,
          answer: text,
          original: text,
          error: "",
          finish: reply.finish_reason,
          tokens: reply.token_count,
          seconds: reply.timings.total_s,
        });
      } catch (error) {
        if (signal.aborted) return;
        const refused = error instanceof Refused;
        if (refused && error.status === 401) {
          made.trouble = "benchKey";
          return made.controller.abort();
        }
        if (refused && !error.passing) return await change(row, { state: "failed", error: reason(error) });
        const trouble = refused && error.status === 429 ? "benchBusy" : "benchGone";
        if (made.trouble !== trouble) (made.trouble = trouble), listener("run");
        await pauseFor(refused ? error.retryAfter : RETRY_S, signal);
      }
    }
  } finally {
    made.busy.delete(row.number);
    listener("row", row);
  }
}

function pauseFor(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
