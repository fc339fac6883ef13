// What the server refuses and why, in the language of the page. Knows errors and words; no elements.

import { language, number, say } from "./language.js";

const CODES = {
  invalid_value: "reasonValue",
  missing_field: "reasonValue",
  unknown_field: "reasonUnsupported",
  unsupported: "reasonUnsupported",
  body_too_large: "reasonTooLarge",
  request_timeout: "reasonSlow",
  rate_limited: "reasonOften",
  too_many_wrong_keys: "reasonOften",
  queue_full: "busy",
  invalid_api_key: "unauthorized",
  unknown_host: "reasonHost",
  internal_error: "failed",
  engine_error: "failed",
  deadline_exceeded: "late",
  document_not_found: "documentGone",
  documents_busy: "documentsUnread",
  documents_loading: "knowledgeLoading",
};
const FIELDS = {
  temperature: "temperature",
  top_p: "topP",
  repetition_penalty: "penalty",
  max_tokens: "maxTokens",
  thinking: "thinking",
  messages: "conversation",
};

// The numbers of a prompt that is too long, as {sent, most}; null: the server did not count.
function overflow({ message }) {
  const most = /context length is (\d+)/.exec(message);
  const sent = /it has (?:at least )?(\d+) tokens/.exec(message);
  return most && sent ? { sent: number(Number(sent[1])), most: number(Number(most[1])) } : null;
}

// The name of a notice and its values, for a conversation that does not fit.
export function full(error) {
  const numbers = overflow(error);
  return numbers ? ["contextFullBy", numbers] : ["contextFull", {}];
}

// An error of the server as a sentence. What has no words of its own stands there as the server said it.
export function reason(error) {
  if (error.contextFull && overflow(error)) return say("contextFullBy", overflow(error));
  const name = CODES[error.code];
  if (language() === "en" || !name) return error.message;
  const field = error.param ? say(FIELDS[error.param.split(/[.[]/)[0]] ?? "reasonField") : say("reasonField");
  return say(name, { field, param: error.param ?? "", message: error.message });
}
