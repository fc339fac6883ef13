// Which language the page speaks, and its words in it.

import { STRINGS } from "./strings.js";

const STORE = "youtu.language";
const listeners = [];
let chosen = null; // "en" | "zh" | null: as the browser says

try {
  chosen = localStorage.getItem(STORE);
} catch {
  // No storage in this browser: the choice lasts as long as the page.
}
if (!(chosen in STRINGS)) chosen = null;

export function choice() {
  return chosen;
}

export function language() {
  return chosen ?? ((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en");
}

export function choose(name) {
  chosen = name in STRINGS ? name : null;
  try {
    if (chosen) localStorage.setItem(STORE, chosen);
    else localStorage.removeItem(STORE);
  } catch {
    // As above.
  }
  showWords(document);
  for (const act of listeners) act();
}

export function onLanguage(act) {
  listeners.push(act);
}

export function say(name, values = {}) {
  return STRINGS[language()][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

const locale = () => (language() === "zh" ? "zh-CN" : "en");

export function number(value, digits = 0) {
  const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value.toLocaleString(locale(), format);
}

export function date(time) {
  const day = { month: "short", day: "numeric" };
  const format = new Date(time).toDateString() === new Date().toDateString() ? { hour: "2-digit", minute: "2-digit" } : day;
  return new Date(time).toLocaleString(locale(), format);
}

// Fill what is marked with data-text, data-hint (placeholder), data-title (tooltip) and data-label (name for screen readers, tooltip).
export function showWords(root) {
  document.documentElement.lang = locale();
  for (const node of root.querySelectorAll("[data-text]")) node.textContent = say(node.dataset.text);
  for (const node of root.querySelectorAll("[data-hint]")) node.placeholder = say(node.dataset.hint);
  for (const node of root.querySelectorAll("[data-title]")) node.title = say(node.dataset.title);
  for (const node of root.querySelectorAll("[data-label]")) {
    node.ariaLabel = say(node.dataset.label);
    if (node.tagName === "BUTTON") node.title = node.ariaLabel;
  }
}
