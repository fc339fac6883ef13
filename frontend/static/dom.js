// Making and finding elements. Text enters the page as text only; what is HTML comes from the server (blocks.js).

const PATHS = {
  attach: "M8 12l6-6a3 3 0 0 1 4 4l-8 8a5 5 0 0 1-7-7l7-7",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  chat: "M5 5h14v10H10l-5 4z",
  bench: "M4 5h16v14H4zM4 10h16M10 10v9",
  settings: "M4 8h9M17 8h3M15 6v4M4 16h3M11 16h9M9 14v4",
  keyboard: "M3 7h18v10H3zM7 11h.01M11 11h.01M15 11h.01M8 14h8",
  send: "M12 19V6M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  copy: "M9 9h10v10H9zM5 15V5h10",
  plain: "M9 9h10v10H9zM5 15V5h10M12 12h4M14 12v4",
  check: "M5 13l4 4L19 7",
  retry: "M19 12a7 7 0 1 1-2-5M19 4v4h-4",
  edit: "M5 19l1-4L16 5l3 3L9 18z",
  branch: "M7 8v8M17 9v1a3 3 0 0 1-3 3H7M7 4a2 2 0 1 0 .01 0M7 16a2 2 0 1 0 .01 0M17 5a2 2 0 1 0 .01 0",
  resume: "M7 5l11 7-11 7z",
  back: "M14 6l-6 6 6 6",
  forth: "M10 6l6 6-6 6",
  down: "M12 5v13M6 13l6 6 6-6",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  trash: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13",
  key: "M8 12a4 4 0 1 0 .01 0M12 13h8v3M17 13v3",
  library: "M5 4h10a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h10M9 8h5",
  star: "M12 4l2.4 5 5.6.7-4.1 3.8 1.1 5.5-5-2.8-5 2.8 1.1-5.5L4 9.7l5.6-.7z",
};

export const $ = (id) => document.getElementById(id);

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

// element("button", { class: "icon", label: "Copy", icon: "copy", on: { click } }, ...children)
export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (name === "icon") made.append(icon(value));
    else if (name === "label") (made.ariaLabel = value), (made.title = value);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "text") made.append(value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function button(name, label, act, options = {}) {
  return element("button", { type: "button", class: "icon", icon: name, label, ...options, on: { click: act } });
}

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain HTTP from another machine there is no clipboard object.
  const area = element("textarea", { class: "unseen" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// A copy button that shows for a moment that it did.
export function copier(label, done, text, name = "copy") {
  const made = button(name, label, async () => {
    await copy(await text());
    made.replaceChildren(icon("check"));
    made.ariaLabel = made.title = done;
    setTimeout(() => {
      made.replaceChildren(icon(name));
      made.ariaLabel = made.title = label;
    }, 1600);
  });
  made.classList.add("copy");
  return made;
}

export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// crypto.randomUUID is missing over plain HTTP.
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(10))].map((byte) => byte.toString(36).padStart(2, "0")).join("");
}

// The choices of a <select>, of which one is chosen.
export function showOptions(select, items, chosen) {
  select.replaceChildren(...items.map(({ id, name }) => new Option(name, id, false, id === chosen)));
}

// While an input method composes, keys choose a word; 229 is what some browsers report at its end.
export const composing = (event) => event.isComposing || event.keyCode === 229;

// A finger on glass: no key is held down there, so Enter has to start new lines.
export const touch = matchMedia("(hover: none) and (pointer: coarse)");

// Whether a key sends what was typed.
export const sends = (event) => event.key === "Enter" && !event.shiftKey && (!touch.matches || event.ctrlKey || event.metaKey);

// `question`: what the dialog asks. With `value` (a string) it holds a field and gives its text; else true. null: no.
export function question({ title, yes, value, label = title, danger = false }) {
  const dialog = $("question");
  $("question-title").textContent = title;
  $("question-yes").textContent = yes;
  $("question-yes").className = danger ? "danger" : "primary";
  $("question-field").hidden = value === undefined;
  $("question-label").textContent = label;
  $("question-input").value = value ?? "";
  dialog.returnValue = "";
  dialog.showModal();
  (value === undefined ? $("question-yes") : $("question-input")).focus();
  if (value !== undefined) $("question-input").select();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        if (dialog.returnValue !== "yes") resolve(null);
        else resolve(value === undefined ? true : $("question-input").value.trim() || null);
      },
      { once: true },
    );
  });
}

$("question-input").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || composing(event)) return;
  event.preventDefault(); // The first button of a form would be taken for the answer: Cancel.
  $("question").close("yes");
});
