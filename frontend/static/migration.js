// Messages as versions of this page before store version 2 kept them: `content` held the text as the model wrote it,
// thinking included, and `thinks` said that it began within the thinking. The server sends the parts apart now; the
// parser stays here because browsers and exported files still hold such messages.

const OPEN = "<think>";
const CLOSE = "</think>";

function split(content, thinks) {
  const text = content.trimStart();
  let start = thinks ? 0 : -1;
  if (text.startsWith(OPEN)) start = OPEN.length;
  if (start < 0) return { reasoning: "", answer: content };
  const end = text.indexOf(CLOSE, start);
  if (end < 0) return { reasoning: text.slice(start).trim(), answer: "" };
  return { reasoning: text.slice(start, end).trim(), answer: text.slice(end + CLOSE.length).trimStart() };
}

// The message with `content` and `reasoning` apart.
export function migrated({ thinks, ...message }) {
  if (message.role !== "assistant" || typeof message.content !== "string") return message;
  const { reasoning, answer } = split(message.content, thinks);
  message.content = answer;
  if (reasoning) message.reasoning = reasoning;
  if (message.facts) delete message.facts.starts_in_thinking;
  return message;
}
