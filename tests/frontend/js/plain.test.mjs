import assert from "node:assert/strict";
import test from "node:test";

import { element } from "./nodes.mjs";
import { plainText } from "../../../frontend/static/plain.js";

const shown = (...children) => plainText(element("DIV", { class: "text" }, ...children));
const items = (...children) => children.map((child) => element("LI", {}, ...[child].flat()));

test("paragraphs keep their line breaks and lose those of the source", () => {
  const paragraph = element("P", {}, "订单\n 已 ", element("STRONG", {}, "发出"), "。", element("BR"), "\n请等待");
  assert.equal(shown(element("H3", {}, " 标题 "), "\n", paragraph), "标题\n\n订单 已 发出。\n请等待");
});

test("lists: numbers from where they start, marks, and what is below an item indented", () => {
  const inner = element("UL", {}, ...items("x", "y"));
  const list = element("OL", { start: 9 }, ...items("nine", ["ten", inner]));
  assert.equal(shown(list), "9. nine\n10. ten\n    • x\n    • y");
});

test("a task shows its own mark only", () => {
  assert.equal(shown(element("UL", {}, element("LI", { class: "task" }, "☑ done"), element("LI", {}, "other"))), "☑ done\n• other");
});

test("a table becomes lines with tabs, to be pasted into a spreadsheet", () => {
  const row = (tag, ...texts) => element("TR", {}, ...texts.map((one) => element(tag, {}, ...[one].flat())));
  const body = element("TBODY", {}, row("TD", " 123 ", ["a", element("BR"), "b"]));
  assert.equal(shown(element("TABLE", {}, element("THEAD", {}, row("TH", "订单号", "说明")), body)), "订单号\t说明\n123\ta b");
});

test("code keeps every space; the bar above it is no part of it", () => {
  const code = element("PRE", {}, element("CODE", {}, "def f():\n    return '*'\n"));
  const box = element("DIV", { class: "code" }, element("DIV", { class: "code-bar" }, "python"), code);
  assert.equal(shown(element("P", {}, "So:"), box), "So:\n\ndef f():\n    return '*'");
});

test("quotations, rules and formulas", () => {
  const formula = element("math", { display: "block" }, "x=1");
  const quotation = element("BLOCKQUOTE", {}, element("P", {}, "one"), element("P", {}, "two"));
  assert.equal(shown(quotation, element("HR"), element("P", {}, "Then", formula, "holds")), "one\n\ntwo\n\n———\n\nThen x=1 holds");
});

test("what a person typed is copied as it was typed", () => {
  assert.equal(plainText(element("DIV", { class: "text plain" }, "  a\n\n\n* b ")), "  a\n\n\n* b ");
});
