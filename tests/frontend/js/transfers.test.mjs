import assert from "node:assert/strict";
import test, { beforeEach } from "node:test";

import "./browser.mjs";
import * as presets from "../../../frontend/static/presets.js";
import * as store from "../../../frontend/static/store.js";
import { conversationToMarkdown, everything, fileName, read } from "../../../frontend/static/transfer.js";

const KINDS = ["conversations", "messages", "presets", "batches", "rows", "templates"];
const kept = async () => Object.fromEntries(await Promise.all(KINDS.map(async (kind) => [kind, await store.all(kind)])));

beforeEach(async () => {
  await store.clear(...KINDS);
  await presets.load();
});

const FACTS = {
  model: "m", finish_reason: "length", token_count: 3,
  usage: { prompt_tokens: 1, completion_tokens: 3, total_tokens: 4, cached_tokens: 0 },
  timings: { ttft_s: 0.1, total_s: 0.2, tokens_per_second: 15 },
};
const CONVERSATION = {
  id: "c", title: "退货 / return", named: true, created: 1, updated: 9, leaf: "a2", start: null, preset: "mine", thinking: false,
};
const MESSAGES = [
  { id: "q", conversation: "c", parent: null, role: "user", content: "第一行\n\n<!-- youtu:assistant -->\n# x", created: 1 },
  { id: "a1", conversation: "c", parent: "q", role: "assistant", content: "old", created: 2, facts: FACTS },
  { id: "a2", conversation: "c", parent: "q", role: "assistant", content: "## new\n\n> a", reasoning: "why\n\n> b", created: 3, end: "stopped" },
];
const BATCH = { id: "b", name: "list", created: 5, preset: "mine", running: false, runner: null };
const ROW = {
  batch: "b", number: 1, id: "T", question: "=q", category: "", answer: "a", original: "o", good: true, state: "done", error: "",
  finish: "stop", tokens: 2, seconds: 0.5, fields: { 订单号: "+1" }, previous: { answer: "p", original: "p", good: false },
};

async function fillStore() {
  await store.put("presets", { id: "mine", name: "Mine", system: "Be brief.", thinking: true, temperature: 0.1, created: 4 });
  await store.put("conversations", CONVERSATION);
  await store.put("messages", ...MESSAGES);
  await store.put("batches", BATCH);
  await store.put("rows", ROW);
  await store.put("templates", { id: "t", title: "Hi", text: "Dear {name}", category: "x", created: 6 });
  await presets.load();
}

test("everything that was made comes back from its file; a second reading adds nothing", async () => {
  await fillStore();
  const before = await kept();
  const file = await everything(before.conversations);
  await store.clear(...KINDS);
  await presets.load();
  assert.deepEqual(await read("all.json", file), { conversations: 1, messages: 3, presets: 1, templates: 1, batches: 1 });
  assert.deepEqual(await kept(), before);
  assert.deepEqual(await read("all.json", file), { conversations: 0, messages: 0, presets: 0, templates: 0, batches: 0 });
  assert.deepEqual(await kept(), before);
});

test("Markdown brings back the path that is shown, also where a text looks like the file's own marks", async () => {
  await fillStore();
  const file = await conversationToMarkdown(CONVERSATION);
  await store.clear(...KINDS);
  assert.deepEqual(await read("a.md", file.replaceAll("\n", "\r\n")), { conversations: 1, messages: 2, presets: 0, templates: 0, batches: 0 });
  const { conversations, messages } = await kept();
  assert.equal(conversations[0].title, CONVERSATION.title);
  assert.equal(conversations[0].leaf, messages[1].id);
  assert.deepEqual(messages.map(({ role, content, reasoning }) => ({ role, content, reasoning })), [
    { role: "user", content: MESSAGES[0].content, reasoning: undefined },
    { role: "assistant", content: MESSAGES[2].content, reasoning: MESSAGES[2].reasoning },
  ]);
});

test("a conversation that goes on elsewhere goes on here, unless here it is newer", async () => {
  await fillStore();
  const further = { id: "q2", parent: "a2", role: "user", content: "and?", created: 10 };
  const file = (updated) => JSON.stringify({
    format: "youtu-conversations", version: 2,
    conversations: [{ ...CONVERSATION, updated, leaf: "q2", messages: [...MESSAGES, further] }],
  });
  await read("a.json", file(8));
  assert.equal((await store.get("conversations", "c")).leaf, "a2");
  await store.remove("messages", "q2");
  assert.equal((await read("a.json", file(10))).messages, 1);
  assert.equal((await store.get("conversations", "c")).leaf, "q2");
});

test("messages as the APIs take them become a conversation; its system prompt finds or makes a preset", async () => {
  await fillStore();
  const turns = (system) => JSON.stringify([{ role: "system", content: system }, { role: "user", content: "Hi\nthere" }, { role: "assistant", content: "Yes" }]);
  await read("a.json", turns(" Be brief. "));
  await read("b.json", turns("Speak French."));
  const [, known, fresh] = (await kept()).conversations;
  assert.deepEqual([known.preset, known.title], ["mine", "Hi"]);
  assert.equal(presets.get(fresh.preset).system, "Speak French.");
  const path = (await store.among("messages", known.id)).map(({ id, parent, end }) => [id, parent, end]);
  assert.deepEqual(path, [[`${known.id}-0`, null, "imported"], [`${known.id}-1`, `${known.id}-0`, "imported"]]);
});

test("what a file should not hold is left out", async () => {
  const file = {
    format: "youtu-conversations", version: 2, conversations: [],
    presets: [{ id: "general", temperature: "hot", top_p: 0.5, evil: 1 }, { id: "nameless" }, null, { id: 7, name: "x" }],
    templates: [{ id: "t", text: "x", title: 5, created: "now" }, { id: "u" }, "x"],
    batches: [
      { id: "b", name: "list", created: null, running: true, runner: "them", preset: {}, rows: [
        { number: 1, question: "q", answer: "a", state: "hacked", tokens: "9", fields: { a: "1", b: 2 } },
        { number: 0, question: "q" }, { number: 1.5, question: "q" }, { number: 2 },
      ] },
      { id: "x" }, { id: "", name: "y" },
    ],
  };
  assert.deepEqual(await read("a.json", JSON.stringify(file)), { conversations: 0, messages: 0, presets: 1, templates: 1, batches: 1 });
  const { presets: [preset], templates: [template], batches: [batch], rows } = await kept();
  assert.deepEqual(preset, { id: "general", created: 0, top_p: 0.5 });
  assert.deepEqual(template, { id: "t", title: "", text: "x", category: "", created: 0 });
  assert.deepEqual([batch.running, batch.runner, batch.preset], [false, null, "general"]);
  assert.deepEqual(rows, [
    { batch: "b", number: 1, id: "", question: "q", answer: "a", original: "", good: false, state: "done", fields: { a: "1" } },
  ]);
});

test("files that are not ours are refused, and leave nothing behind", async () => {
  const ours = (conversation) => JSON.stringify({ format: "youtu-conversations", version: 2, conversations: [conversation] });
  const bad = ["{", "7", "[]", '{"format": "other"}', ours({ id: "c" }), ours({ ...CONVERSATION, messages: [{ ...MESSAGES[0], role: "system" }] })];
  for (const text of bad) await assert.rejects(read("a.json", text), Error, text);
  await assert.rejects(read("a.md", "# just a text"), /a\.md/);
  await assert.rejects(read("a.json", "{"), /^Error: JSON: /);
  assert.deepEqual(Object.values(await kept()).flat(), []);
});

test("the name of a file holds nothing that a file system refuses", () => {
  assert.equal(fileName('退货/return: "a"?\n', "md"), "退货 return   a.md");
  assert.equal(fileName("///", "json"), "youtu.json");
  assert.equal(fileName("x".repeat(99), "json").length, 65);
});
