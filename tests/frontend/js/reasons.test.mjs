import assert from "node:assert/strict";
import test from "node:test";

import { speak } from "./browser.mjs";
import { full, reason } from "../../../frontend/static/reasons.js";
import { Refused } from "../../../frontend/static/stream.js";
import { STRINGS } from "../../../frontend/static/strings.js";

const LONG = "This model's maximum context length is 2048 tokens; it has at least 123456 tokens";
const refused = (code, { message = "as the server said it", param = null, status = 400 } = {}) =>
  new Refused(status, { code, message, param }, 2);

test("English shows the server's own sentence", () => {
  speak("en");
  assert.equal(reason(refused("invalid_value", { param: "top_p" })), "as the server said it");
});

test("Chinese names the field as the settings do, and the parameter as it was sent", () => {
  speak("zh-CN");
  const { reasonValue, topP, conversation, reasonField } = STRINGS.zh;
  const filled = (field, param) => reasonValue.replace("{field}", field).replace("{param}", param);
  assert.equal(reason(refused("invalid_value", { param: "top_p" })), filled(topP, "top_p"));
  assert.equal(reason(refused("missing_field", { param: "messages[0].content" })), filled(conversation, "messages[0].content"));
  assert.equal(reason(refused("invalid_value", { param: "messages.3" })), filled(conversation, "messages.3"));
  assert.equal(reason(refused("invalid_value", { param: "logit_bias" })), filled(reasonField, "logit_bias"));
  assert.equal(reason(refused("invalid_value")), filled(reasonField, ""));
});

test("what is wrong with documents of a question has Chinese words", () => {
  speak("zh-CN");
  const { documentGone, documentsUnread, knowledgeLoading } = STRINGS.zh;
  const codes = ["document_not_found", "documents_busy", "documents_loading"];
  assert.deepEqual(codes.map((code) => reason(refused(code))), [documentGone, documentsUnread, knowledgeLoading]);
});

test("a code without words of its own keeps the server's sentence in Chinese, too", () => {
  speak("zh-CN");
  assert.equal(reason(refused("never_heard_of")), "as the server said it");
  assert.equal(reason(refused("queue_full")), STRINGS.zh.busy);
});

test("a prompt that is too long is told with its numbers, where the server counted", () => {
  speak("en");
  const error = refused("context_length_exceeded", { message: LONG });
  assert.deepEqual(full(error), ["contextFullBy", { sent: "123,456", most: "2,048" }]);
  assert.equal(reason(error), "The conversation has 123,456 tokens; the model's context holds 2,048.");
  assert.deepEqual(full(refused("body_too_large", { status: 413 })), ["contextFull", {}]);
  assert.equal(reason(refused("body_too_large", { status: 413 })), "as the server said it");
});

test("which refusals pass by themselves and which mean that the conversation is too long", () => {
  const passing = [400, 401, 413, 429, 502, 503, 504].filter((status) => refused("x", { status }).passing);
  assert.deepEqual(passing, [429, 503]);
  assert.ok(refused("x", { status: 413 }).contextFull);
  assert.ok(refused("context_length_exceeded").contextFull);
  assert.ok(!refused("invalid_value").contextFull);
});
