// The form for a new list of questions on the bench: a table pasted, loaded or dropped, and how it is to be read.

import { NotCsv, guess, parse, questions } from "./bench_csv.js";
import { readFile } from "./bench_file.js";
import { $ } from "./dom.js";
import { number, say } from "./language.js";

let fileTitle = "";

function settings() {
  return {
    kind: $("b-kind").value,
    header: $("b-header").checked,
    column: Number($("b-column").value),
    idColumn: Number($("b-id-column").value),
  };
}

function showColumns({ column, idColumn }) {
  let records = [];
  try {
    records = parse($("b-paste").value.slice(0, 100_000));
  } catch {
    // `showFound` says so.
  }
  const width = Math.max(1, ...records.slice(0, 20).map((record) => record.length));
  const names = $("b-header").checked ? records[0] ?? [] : [];
  const options = Array.from({ length: width }, (_, at) => [
    names[at]?.trim() || say("benchColumnNumber", { number: at + 1 }),
    at,
  ]);
  const option = ([name, at]) => new Option(name, at);
  $("b-column").replaceChildren(...options.map(option));
  $("b-id-column").replaceChildren(...[[say("benchNoColumn"), -1], ...options].map(option));
  $("b-column").value = Math.min(column, width - 1);
  $("b-id-column").value = idColumn < width ? idColumn : -1;
  for (const node of document.querySelectorAll("#b-source [data-table]")) node.hidden = $("b-kind").value !== "table";
}

function showFound() {
  let found = [];
  let words = say("benchNothing");
  try {
    found = questions($("b-paste").value, settings());
    if (found.length) words = found.slice(0, 3).map(({ question: text }) => text.slice(0, 60)).join(" · ");
  } catch (error) {
    if (!(error instanceof NotCsv)) throw error;
    words = say($("b-kind").value === "jsonl" ? "benchNotJson" : "benchNotCsv", { line: error.line });
  }
  $("b-create").disabled = !found.length;
  $("b-create").textContent = say("benchCreate", { count: number(found.length) });
  $("b-said").textContent = words;
  return found;
}

function takeText() {
  const guessed = guess($("b-paste").value);
  $("b-kind").value = guessed.kind;
  $("b-header").checked = guessed.header;
  showColumns(guessed);
  showFound();
}

async function takeFile(file) {
  if (!file) return;
  const read = await readFile(file);
  if (read.reason) {
    // Whatever was there before is not what the person meant to add now.
    $("b-paste").value = fileTitle = "";
    takeText();
    const why = read.reason === "sheet" ? "benchSheet" : "benchBadEncoding";
    $("b-said").textContent = say(why, { name: file.name });
    return;
  }
  fileTitle = file.name.replace(/\.\w+$/, "");
  $("b-paste").value = read.text;
  takeText();
  if (read.gbk) $("b-said").textContent = `${say("benchGbk", { name: file.name })} ${$("b-said").textContent}`;
}

// The form as it stands, in the language spoken now.
export function showForm() {
  showColumns(settings());
  showFound();
}

// `create(name, questions)`: a new list is wanted.
export function start(create) {
  const on = (id, event, act) => $(id).addEventListener(event, act);
  on("b-source", "submit", async (event) => {
    event.preventDefault();
    const found = showFound();
    if (!found.length) return;
    $("b-create").disabled = true;
    await create(fileTitle || found[0].question.slice(0, 40), found);
    $("b-paste").value = fileTitle = "";
  });
  on("b-paste", "input", takeText);
  on("b-paste", "paste", (event) => {
    // The browser takes seconds to type a thousand lines in.
    event.preventDefault();
    const { selectionStart, selectionEnd } = $("b-paste");
    $("b-paste").setRangeText(event.clipboardData.getData("text/plain"), selectionStart, selectionEnd, "end");
    takeText();
  });
  on("b-load", "click", () => $("b-file").click());
  on("b-file", "change", async () => {
    await takeFile($("b-file").files[0]);
    $("b-file").value = "";
  });
  on("b-source", "dragover", (event) => event.preventDefault());
  on("b-source", "drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    takeFile(event.dataTransfer.files[0]);
  });
  on("b-kind", "change", () => (showColumns(settings()), showFound()));
  on("b-header", "change", () => (showColumns(settings()), showFound()));
  on("b-column", "change", showFound);
  on("b-id-column", "change", showFound);
}
