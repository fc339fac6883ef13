// POST /chat as an asynchronous iterator of its events. Knows the wire; knows nothing of the page.

export class Refused extends Error {
  // An error in the API's one shape. `status` is the HTTP status, 0 for an event in the middle of a stream.
  constructor(status, error, retryAfter) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.retryAfter = retryAfter;
  }
}

export async function* ask(messages, { key, signal }) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const body = JSON.stringify({ messages, stream: true });
  const response = await fetch("chat", { method: "POST", headers, body, signal });
  if (!response.ok) {
    const sent = await response.json().catch(() => null);
    const error = sent?.error ?? { message: `HTTP ${response.status}` };
    throw new Refused(response.status, error, Number(response.headers.get("Retry-After")) || 1);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const fields = { event: "message", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (!fields.data) continue;
      const data = JSON.parse(fields.data);
      if (fields.event === "error") throw new Refused(0, data.error, 1);
      yield { event: fields.event, data };
    }
  }
}
