// The API key: kept for this tab, or for this browser where the person says so, and folded away once it works.

import { $ } from "./dom.js";

const STORE = "youtu.key";
const listeners = [];
let needed = false;
let open = false; // Whether the field is to be seen although there is a key.

function stored(name) {
  try {
    return window[name].getItem(STORE);
  } catch {
    return null; // No storage in this browser: the key is typed in after each reload.
  }
}

function keep() {
  const { value } = $("key");
  try {
    sessionStorage.setItem(STORE, value);
    if ($("key-remember").checked && value) localStorage.setItem(STORE, value);
    else localStorage.removeItem(STORE);
  } catch {
    // As above.
  }
}

function show() {
  $("key-line").hidden = !needed || (Boolean($("key").value) && !open);
  $("open-key").hidden = !needed || !$("key-line").hidden;
}

// `yes`: the server asks for a key.
export function need(yes) {
  needed = yes;
  show();
}

// The key is missing or wrong: the field, with the cursor in it.
export function ask() {
  needed = open = true;
  show();
  $("key").focus();
}

// The server took the key.
export function taken() {
  if (document.activeElement === $("key")) return;
  open = false;
  show();
}

// `act(changed)`: it is being typed, or (`changed`) another one is there.
export function onKey(act) {
  listeners.push(act);
}

export function start() {
  $("key").value = stored("sessionStorage") ?? stored("localStorage") ?? "";
  $("key-remember").checked = stored("localStorage") !== null;
  $("key").addEventListener("input", () => {
    open = true;
    keep();
    for (const act of listeners) act(false);
  });
  $("key").addEventListener("change", () => {
    for (const act of listeners) act(true);
  });
  $("key").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // It is a field of the form that sends the question.
    $("draft").focus();
    taken();
  });
  $("key-remember").addEventListener("change", keep);
  $("open-key").addEventListener("click", ask);
  // Another tab was told to remember it, or to forget it.
  addEventListener("storage", ({ key, newValue }) => {
    if (key !== STORE) return;
    $("key-remember").checked = newValue !== null;
    if (newValue && !$("key").value) $("key").value = newValue;
    show();
  });
}
