// What a person made besides conversations, in the same file: presets, the library's texts, the lists of the bench.
// Files are not trusted. Knows records; no elements.

import * as presets from "./presets.js";
import * as store from "./store.js";

const isText = (value, most = 4_000_000) => typeof value === "string" && value.length <= most;
const isId = (value) => isText(value, 100) && value.length > 0;
const isNumber = (value) => Number.isFinite(value);
const STATES = ["todo", "done", "failed"];

// All of it, as keys of the file.
export async function made() {
  const batches = await store.all("batches");
  const lists = batches.map(async ({ running: _, runner: __, ...batch }) => {
    const rows = await store.among("rows", batch.id);
    return { ...batch, rows: rows.map(({ batch: ___, ...row }) => row) };
  });
  return { presets: await store.all("presets"), templates: await store.all("templates"), batches: await Promise.all(lists) };
}

function cleanPreset(given) {
  const { id, name, system, thinking, created } = given ?? {};
  if (!isId(id)) return null;
  const record = { id, created: isNumber(created) ? created : 0 };
  if (isText(name, 200)) record.name = name;
  else if (!presets.isBuiltIn(id)) return null;
  if (isText(system)) record.system = system;
  if (typeof thinking === "boolean") record.thinking = thinking;
  for (const field of presets.NUMBERS) if (isNumber(given[field])) record[field] = given[field];
  return record;
}

function cleanTemplate(given) {
  const { id, title, text, category, created } = given ?? {};
  if (!isId(id) || !isText(text)) return null;
  const short = (value) => (isText(value, 1000) ? value : "");
  return { id, title: short(title), text, category: short(category), created: isNumber(created) ? created : 0 };
}

function cleanRow(given, batch) {
  const { number, question, answer, original, state, good, previous, fields } = given ?? {};
  if (!Number.isInteger(number) || number < 1 || !isText(question)) return null;
  const text = (value) => (isText(value) ? value : "");
  const row = { batch, number, question, answer: text(answer), original: text(original), good: good === true };
  row.state = STATES.includes(state) ? state : row.answer ? "done" : "todo";
  for (const name of ["id", "category", "error", "finish"]) if (isText(given[name])) row[name] = given[name];
  for (const name of ["tokens", "seconds"]) if (isNumber(given[name])) row[name] = given[name];
  row.id ??= "";
  if (fields && typeof fields === "object") {
    row.fields = Object.fromEntries(Object.entries(fields).filter(([name, value]) => isText(name, 200) && isText(value)));
  }
  if (isText(previous?.answer)) {
    row.previous = { answer: previous.answer, original: text(previous.original), good: previous.good === true };
  }
  return row;
}

const listOf = (value) => (Array.isArray(value) ? value : []);

// Add what a file holds of it; what is there already stays as it is. How many were new, by kind.
export async function add(file) {
  const added = { presets: 0, templates: 0, batches: 0 };
  const clean = (given, how) => listOf(given).map(how).filter(Boolean);
  added.presets = await store.add("presets", clean(file.presets, cleanPreset));
  added.templates = await store.add("templates", clean(file.templates, cleanTemplate));
  for (const given of listOf(file.batches)) {
    const { id, name, created, preset, rows } = given ?? {};
    if (!isId(id) || !isText(name, 1000)) continue;
    const record = { id, name, created: isNumber(created) ? created : Date.now(), running: false, runner: null };
    record.preset = isId(preset) ? preset : "general";
    if (!(await store.add("batches", [record]))) continue;
    await store.add("rows", clean(rows, (row) => cleanRow(row, id)));
    added.batches += 1;
  }
  return added;
}

// The preset of a conversation from elsewhere: the one it names, or one that says to the model what was said there.
export async function presetFor({ preset, system }) {
  const known = presets.all();
  if (isId(preset) && known.some(({ id }) => id === preset)) return preset;
  if (!isText(system) || !system.trim()) return "general";
  const same = known.find((one) => one.system?.trim() === system.trim());
  return same ? same.id : presets.create("general", system.trim().slice(0, 60), { system });
}
