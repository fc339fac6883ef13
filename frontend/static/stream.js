// Requests to the server, with the key and its errors; POST /chat as an asynchronous iterator of its events, or whole.
// Knows the wire; nothing of the page.

export class Refused extends Error {
  // An error in the API's one shape. `status` is the HTTP status, 0 for an event in the middle of a stream.
  constructor(status, error, retryAfter) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.param = error.param ?? null;
    this.retryAfter = retryAfter;
  }

  // Whether the same request may be answered a little later.
  get passing() {
    return this.status === 429 || this.status === 503;
  }

  // The conversation is too long, for the model or already for the server.
  get contextFull() {
    return this.status === 413 || this.code === "context_length_exceeded";
  }
}

// `id`: the request's name, by which the server tells where it stands.
export async function post(path, body, { key, signal, id }) {
  const headers = { "Content-Type": "application/json" };
  if (id) headers["X-Request-ID"] = id;
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (response.ok) return response;
  const sent = await response.json().catch(() => null);
  const error = sent?.error ?? { message: `HTTP ${response.status}` };
  throw new Refused(response.status, error, Number(response.headers.get("Retry-After")) || 2);
}

export async function whole(body, options) {
  return (await post("chat", body, options)).json();
}

export async function* ask(body, options) {
  const response = await post("chat", { ...body, stream: true }, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const fields = { event: "message", data: "" };
      for (const line of part.split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (!fields.data) continue;
      const data = JSON.parse(fields.data);
      if (fields.event === "error") throw new Refused(0, data.error, 2);
      yield { event: fields.event, data };
    }
  }
}
