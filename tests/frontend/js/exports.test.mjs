import assert from "node:assert/strict";
import test from "node:test";

import "./browser.mjs";
import { guess, parse, questions, write } from "../../../frontend/static/bench_csv.js";
import { edited, toJsonl, toTable } from "../../../frontend/static/bench_export.js";

const answered = {
  number: 1, id: "T-1", question: "=cmd, {订单号}?", category: "退货", answer: '"Yes"\n-1', original: "No", good: true,
  state: "done", finish: "stop", tokens: 12, seconds: 1.25, error: "", fields: { 订单号: "+86 138", 备注: "'=x" },
};
const waiting = { number: 2, id: "", question: "b", category: "", answer: "", original: "", good: false, state: "todo" };
const failed = { ...waiting, number: 3, question: "c", state: "failed", error: "too long", fields: { 备注: "@急" } };
const rows = [answered, waiting, failed];

const kept = ({ number: _, state: __, ...row }) => row;
const read = (text) => questions(text, guess(text));

test("edited: an answer that is there and is not the model's", () => {
  assert.deepEqual(rows.map(edited), [true, false, false]);
  assert.equal(edited({ ...answered, state: "todo" }), false);
});

test("a table is read back with answers, marks and the list's other columns", () => {
  const text = write(toTable(rows)).slice(1);
  assert.deepEqual(parse(text)[0].slice(-2), ["订单号", "备注"]);
  const [first, second, third] = read(text);
  assert.deepEqual(first, kept(answered));
  assert.deepEqual(second, { id: "2", question: "b", category: "" });
  assert.deepEqual([third.id, third.error, third.fields], ["3", "too long", { 备注: "@急" }]);
});

test("lines of JSON are read back, too, and hold the conversation that the model had", () => {
  const text = toJsonl(rows, { system: " Order {订单号}. {nothing} " });
  assert.deepEqual(read(text)[0], kept(answered));
  assert.deepEqual(JSON.parse(text.split("\n")[0]).messages, [
    { role: "system", content: "Order +86 138. {nothing}" },
    { role: "user", content: "=cmd, +86 138?" },
    { role: "assistant", content: '"Yes"\n-1' },
  ]);
  assert.deepEqual(JSON.parse(text.split("\n")[1]).messages.map(({ role }) => role), ["system", "user"]);
  assert.deepEqual(JSON.parse(toJsonl([waiting], {})).messages, [{ role: "user", content: "b" }]);
});
