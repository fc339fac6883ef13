import assert from "node:assert/strict";
import test from "node:test";

import { speak } from "./browser.mjs";
import { language, number, say } from "../../../frontend/static/language.js";
import { STRINGS } from "../../../frontend/static/strings.js";

const { en, zh } = STRINGS;
const places = (text) => [...new Set(text.match(/\{\w+\}/g))].sort();

test("both languages have the same keys, in the same order", () => {
  assert.ok(Object.keys(en).length > 100);
  assert.deepEqual(Object.keys(zh), Object.keys(en));
});

test("every word is a text with the same places in both languages", () => {
  for (const [key, text] of Object.entries(en)) {
    assert.match(text, /\S/, key);
    assert.match(zh[key], /\S/, key);
    assert.deepEqual(places(zh[key]), places(text), key);
  }
});

test("the page speaks Chinese in every Chinese browser, else English", () => {
  const spoken = ["zh-CN", "ZH-tw", "zh", "en-GB", "de", ""].map((name) => (speak(name), language()));
  assert.deepEqual(spoken, ["zh", "zh", "zh", "en", "en", "en"]);
});

test("say fills every place; numbers follow the language", () => {
  speak("zh-CN");
  assert.equal(say("contextFullBy", { sent: 9, most: 8 }), "对话共 9 个 token，模型的上下文最多容纳 8 个。");
  speak("en");
  assert.equal(say("toolsOf", { title: "$& {title}" }), "More for “$& {title}”");
  assert.equal(number(12345.678, 1), "12,345.7");
  assert.equal(number(12345), "12,345");
});
