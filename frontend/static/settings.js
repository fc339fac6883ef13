// The dialog of settings: presets, theme, language, the stored conversations, and what the server says of itself.

import { facts, isWell } from "./circumstances.js";
import * as composer from "./composer.js";
import { $, download, element, question, showOptions } from "./dom.js";
import { choice, choose, number, onLanguage, say } from "./language.js";
import * as presets from "./presets.js";
import * as sessions from "./sessions.js";
import { tell } from "./tabs.js";
import { everything, read, toMarkdown } from "./transfer.js";

const TEXTS = ["name", "system"];
const DEFAULTS = ["temperature", "top_p", "repetition_penalty"];
let edited = "general"; // Id of the preset in the fields.
const field = (name) => $(`p-${name}`);

function showPreset() {
  const preset = presets.get(edited);
  edited = preset.id;
  showOptions($("edit-preset"), presets.all(), edited);
  for (const name of TEXTS) field(name).value = preset[name] ?? "";
  for (const name of presets.NUMBERS) field(name).value = preset[name] ?? "";
  field("thinking").value = String(preset.thinking ?? "");
  $("preset-reset").hidden = !(presets.isBuiltIn(edited) && presets.isChanged(edited));
  $("preset-delete").hidden = presets.isBuiltIn(edited);
}

function showFacts() {
  for (const name of DEFAULTS) {
    const value = facts?.defaults?.[name];
    field(name).placeholder = value === undefined ? say("serverDefault") : say("serverDefaultIs", { value });
  }
  field("max_tokens").placeholder = say("contextLeft");
  const rows = isWell() ? [
    [say("model"), facts.model],
    [say("about"), facts.demo ? say("aboutDemo") : facts.description],
    [say("context"), `${number(facts.context)} ${say("tokens")}`],
    [say("atOnce"), say("slotsAndQueue", { slots: number(facts.slots), queue: number(facts.queue) })],
  ] : [[say("model"), say("notThere")]];
  $("facts").replaceChildren(
    ...rows.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value })]),
  );
}

function showChoices() {
  $("theme").value = document.documentElement.dataset.theme;
  $("language-choice").value = choice() ?? "";
}

export function open() {
  edited = composer.preset() || edited;
  $("data-said").textContent = "";
  showKept();
  showPreset();
  showFacts();
  showChoices();
  $("settings").showModal();
}

async function change(name, value) {
  await presets.change(edited, { [name]: value });
  const before = document.activeElement;
  composer.showPresets();
  $("preset-reset").hidden = !(presets.isBuiltIn(edited) && presets.isChanged(edited));
  if (name === "name") $("edit-preset").selectedOptions[0].textContent = value;
  before?.focus();
}

function number_(input) {
  input.setAttribute("aria-invalid", String(!input.checkValidity()));
  if (!input.checkValidity()) return input.reportValidity();
  return change(input.id.slice(2), input.value === "" ? null : input.valueAsNumber);
}

function stamp() {
  return new Date().toISOString().slice(0, 10);
}

// The browser may throw away what it keeps for a page when its disk is full, unless it was asked not to.
async function showKept() {
  const kept = await navigator.storage?.persisted?.().catch(() => false);
  $("data-kept").textContent = navigator.storage?.persisted ? say(kept ? "keptForGood" : "keptForNow") : "";
}

async function importFiles(files, changed) {
  for (const file of files) {
    try {
      const added = await read(file.name, await file.text());
      const counts = Object.fromEntries(Object.entries(added).map(([kind, count]) => [kind, number(count)]));
      const more = added.presets + added.templates + added.batches > 0;
      $("data-said").textContent = say(more ? "importedMore" : "importedCount", counts);
    } catch (error) {
      $("data-said").textContent = say("notImported", { name: file.name, message: error.message });
    }
  }
  await changed();
}

// `changed()`: conversations came or went.
export function start({ changed }) {
  $("open-settings").addEventListener("click", open);
  $("edit-preset").addEventListener("change", () => {
    edited = $("edit-preset").value;
    showPreset();
  });
  for (const name of TEXTS) field(name).addEventListener("input", () => change(name, field(name).value));
  for (const name of presets.NUMBERS) field(name).addEventListener("change", () => number_(field(name)));
  field("thinking").addEventListener("change", () => {
    const value = field("thinking").value;
    change("thinking", value === "" ? null : value === "true");
  });
  $("preset-new").addEventListener("click", async () => {
    const name = await question({ title: say("presetNewTitle"), yes: say("create"), value: presets.get(edited).name });
    if (!name) return;
    edited = await presets.create(edited, name);
    showPreset();
    composer.showPresets();
  });
  for (const id of ["preset-reset", "preset-delete"]) {
    $(id).addEventListener("click", async () => {
      await presets.reset(edited);
      showPreset();
      composer.showPresets();
      $("edit-preset").focus();
    });
  }
  $("theme").addEventListener("change", () => {
    document.documentElement.dataset.theme = $("theme").value;
    try {
      localStorage.setItem("youtu.theme", $("theme").value);
    } catch {
      // No storage in this browser: it lasts as long as the page.
    }
  });
  $("language-choice").addEventListener("change", () => choose($("language-choice").value));
  $("export-all").addEventListener("click", async () => {
    download(`youtu-${stamp()}.json`, "application/json", await everything(sessions.conversations()));
  });
  $("export-all-md").addEventListener("click", async () => {
    download(`youtu-${stamp()}.md`, "text/markdown", await toMarkdown(sessions.conversations()));
  });
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", async () => {
    await importFiles([...$("import-file").files], changed);
    $("import-file").value = "";
    composer.showPresets();
    showPreset();
    for (const kind of ["presets", "batch", "templates"]) tell({ kind });
  });
  $("clear-all").addEventListener("click", async () => {
    const yes = await question({ title: say("clearTitle"), yes: say("clearAll"), danger: true });
    if (!yes) return;
    await sessions.clear();
    await changed();
    $("data-said").textContent = say("cleared");
  });
  onLanguage(() => {
    composer.showPresets();
    showPreset();
    showFacts();
  });
}
