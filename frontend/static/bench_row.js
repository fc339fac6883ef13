// One row of the bench: its question, its answer, the answer before it, and what can be done with them.

import { edited } from "./bench_export.js";
import * as run from "./bench_run.js";
import { $ } from "./dom.js";
import { number, say } from "./language.js";

const SAVE_MS = 300;
export const stateOf = (row) => (run.run(row.batch)?.busy.has(row.number) ? "running" : row.state);
export const stateWord = (name) =>
  say({ todo: "stateTodo", running: "stateRunning", done: "stateDone", failed: "stateFailed" }[name]);

const put = (id, value) => {
  if ($(id).value !== value) $(id).value = value;
};

export class RowView {
  // `onChange(row)`: it was changed here; `picked()`: the row shown.
  constructor({ picked, onChange }) {
    this.picked = picked;
    this.onChange = onChange;
    this.saving = 0;
    this.row = null; // Whose text the fields hold.
    for (const id of ["b-answer", "b-question", "b-row-category"]) {
      $(id).addEventListener("input", () => (this.saving ||= setTimeout(() => this.save(), SAVE_MS)));
      $(id).addEventListener("blur", () => this.save());
    }
    const on = (id, act) => $(id).addEventListener("click", act);
    on("b-good", () => this.edit({ good: !this.picked().good }));
    on("b-restore", () => this.edit({ answer: this.picked().original }));
    // Whichever of two answers stays: a mark that the earlier one had was for this question's answer.
    on("b-keep-new", () => this.edit({ previous: null, good: this.picked().previous.good }));
    on("b-keep-old", () => this.edit({ ...this.picked().previous, previous: null }));
    addEventListener("pagehide", () => this.save());
  }

  async edit(fields, row = this.picked()) {
    if (!row) return;
    await run.change(row, fields);
    this.onChange(row);
  }

  // What was typed and is not kept yet.
  save() {
    clearTimeout(this.saving);
    this.saving = 0;
    const { row } = this;
    if (!row) return;
    const fields = {};
    if (row.question !== $("b-question").value) fields.question = $("b-question").value;
    if ((row.category ?? "") !== $("b-row-category").value.trim()) fields.category = $("b-row-category").value.trim();
    if (row.answer !== $("b-answer").value) {
      Object.assign(fields, { answer: $("b-answer").value, tokens: row.tokens ?? 0 });
      fields.state = row.state === "running" ? "todo" : "done";
    }
    if (Object.keys(fields).length) this.edit(fields, row);
  }

  show(row) {
    if (row !== this.row && this.saving) this.save();
    this.row = row;
    $("b-pick").hidden = Boolean(row);
    $("b-one").hidden = !row;
    $("bench").classList.toggle("with-row", Boolean(row));
    if (!row) return;
    const name = stateOf(row);
    const parts = [`${number(row.number)}${row.id ? ` (${row.id})` : ""}`, stateWord(name)];
    if (edited(row)) parts.push(say("benchEdited"));
    if (row.state === "done" && row.finish === "length") parts.push(say("length"));
    if (row.state === "done") parts.push(`${number(row.tokens ?? 0)} ${say("tokens")}`);
    if (row.state === "failed") parts.push(row.error);
    for (const [field, value] of Object.entries(row.fields ?? {})) parts.push(`${field}: ${value}`);
    $("b-state").textContent = parts.join(" · ");
    // A field in which somebody types keeps what is typed until it is saved.
    if (!this.saving) {
      put("b-question", row.question);
      put("b-row-category", row.category ?? "");
      put("b-answer", row.answer);
    }
    $("b-answer").disabled = name === "running";
    $("b-good").lastChild.textContent = say(row.good ? "benchUnmark" : "benchMark");
    $("b-good").ariaPressed = String(row.good);
    $("b-good").disabled = !row.answer.trim();
    $("b-restore").hidden = !edited(row);
    $("b-to-library").disabled = !row.answer.trim();
    $("b-again").disabled = Boolean(run.run(row.batch)) || run.elsewhere(run.state.batch) || !row.question.trim();
    $("b-before").hidden = $("b-keep-new").hidden = !row.previous;
    $("b-before-text").textContent = row.previous?.answer ?? "";
  }
}
