// A list of the bench as a file that the bench reads back. Knows rows; no elements.

import { messages } from "./bench_run.js";

export const edited = (row) => row.state === "done" && row.answer !== row.original;

const HEAD = "id,question,category,answer,good,edited,model_answer,finish_reason,tokens,seconds,error".split(",");

// The records of a table, with the other columns that the list had behind ours.
export function toTable(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.fields ?? {})))];
  const records = rows.map((row) => [
    row.id || row.number,
    row.question,
    row.category,
    row.answer,
    row.good ? "yes" : "",
    edited(row) ? "yes" : "",
    row.original,
    row.finish,
    row.tokens,
    row.seconds,
    row.error,
    ...names.map((name) => row.fields?.[name]),
  ]);
  return [[...HEAD, ...names], ...records];
}

export function toJsonl(rows, preset) {
  const lines = rows.map((row) => {
    const answered = row.answer ? [{ role: "assistant", content: row.answer }] : [];
    return JSON.stringify({
      id: row.id || String(row.number),
      question: row.question,
      category: row.category || null,
      answer: row.answer,
      good: row.good,
      edited: edited(row),
      model_answer: row.original,
      finish_reason: row.finish ?? null,
      tokens: row.tokens ?? null,
      seconds: row.seconds ?? null,
      error: row.error || null,
      fields: row.fields ?? {},
      messages: [...messages(row, preset), ...answered],
    });
  });
  return lines.map((line) => `${line}\n`).join("");
}
