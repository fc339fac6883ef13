// How answers are to be made: presets of system prompt and sampling, four of them built in, all editable.
// An empty value is the deployment's default. Knows the store; no elements.

import { newId } from "./dom.js";
import { say } from "./language.js";
import * as store from "./store.js";
import { tell } from "./tabs.js";

export const NUMBERS = ["temperature", "top_p", "repetition_penalty", "max_tokens"];
const LAST = "youtu.preset";

// Name and system prompt of these are words of the page (`strings.js`) until somebody changes them.
const BUILT_IN = {
  general: { name: "presetGeneral" },
  support: { name: "presetSupport", system: "systemSupport", values: { temperature: 0.3 } },
  documents: { name: "presetDocuments", system: "systemDocuments", values: { temperature: 0.2 } },
  coding: { name: "presetCoding", system: "systemCoding", values: { temperature: 0.2, repetition_penalty: 1.05 } },
};

let changed = new Map(); // What differs from the built-in ones, and the user's own.

export async function load() {
  changed = new Map((await store.all("presets")).map((preset) => [preset.id, preset]));
}

function original(id) {
  const { name, system, values } = BUILT_IN[id];
  return { id, name: say(name), system: system ? say(system) : "", thinking: null, ...values };
}

export function all() {
  const built = Object.keys(BUILT_IN).map((id) => ({ ...original(id), ...changed.get(id) }));
  const own = [...changed.values()].filter(({ id }) => !(id in BUILT_IN));
  return [...built, ...own.sort((a, b) => a.created - b.created)];
}

export function get(id) {
  return all().find((preset) => preset.id === id) ?? all()[0];
}

export const isBuiltIn = (id) => id in BUILT_IN;
export const isChanged = (id) => changed.has(id);

export async function change(id, fields) {
  changed.set(id, { ...(changed.get(id) ?? { id }), ...fields });
  await store.put("presets", changed.get(id));
  tell({ kind: "presets" });
}

export async function create(from, name, fields = {}) {
  const { id: _, ...values } = get(from);
  const id = newId();
  await change(id, { ...values, ...fields, name, created: Date.now() });
  return id;
}

// Built in: as it was at first. The user's own: gone.
export async function reset(id) {
  changed.delete(id);
  await store.remove("presets", id);
  tell({ kind: "presets" });
}

export function last() {
  try {
    return localStorage.getItem(LAST) ?? "general";
  } catch {
    return "general";
  }
}

export function remember(id) {
  try {
    localStorage.setItem(LAST, id);
  } catch {
    // No storage in this browser: the next conversation starts with the first preset.
  }
}

// The preset as options of POST /chat.
export function options(preset) {
  const given = {};
  for (const name of NUMBERS) if (Number.isFinite(preset[name])) given[name] = preset[name];
  if (preset.thinking !== null && preset.thinking !== undefined) given.thinking = preset.thinking;
  return given;
}
