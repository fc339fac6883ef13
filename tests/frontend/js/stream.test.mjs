import assert from "node:assert/strict";
import { createServer } from "node:http";
import test from "node:test";
import { setImmediate as turn } from "node:timers/promises";

import { Refused, ask, whole } from "../../../frontend/static/stream.js";

// A server that answers with `reply(response)`; `act` gets what it received, and asks under the page's own paths.
async function served(reply, act) {
  const received = [];
  const server = createServer(async (request, response) => {
    const parts = await request.toArray();
    received.push({ path: request.url, headers: request.headers, body: JSON.parse(Buffer.concat(parts)) });
    await reply(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const real = globalThis.fetch;
  globalThis.fetch = (path, options) => real(new URL(path, `http://127.0.0.1:${server.address().port}/`), options);
  try {
    await act(received);
  } finally {
    globalThis.fetch = real;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

async function all(events) {
  const found = [];
  for await (const event of events) found.push(event);
  return found;
}

const EVENTS = ': a comment\n\ndata: {"text": "多少: 😀\\n\\n"}\n\nevent: done\ndata: {"token_count": 2}\n\n';

test("events come whole, however the bytes were cut", async () => {
  const everyByte = async (response) => {
    for (const byte of Buffer.from(EVENTS)) (response.write(Buffer.of(byte)), await turn());
    response.end();
  };
  await served(everyByte, async (received) => {
    const expected = [
      { event: "message", data: { text: "多少: 😀\n\n" } },
      { event: "done", data: { token_count: 2 } },
    ];
    assert.deepEqual(await all(ask({ prompt: "q" }, { key: "k", id: "name" })), expected);
    const [{ path, headers, body }] = received;
    assert.equal(path, "/chat");
    assert.deepEqual(body, { prompt: "q", stream: true });
    assert.equal(headers.authorization, "Bearer k");
    assert.equal(headers["x-request-id"], "name");
  });
});

test("an error in the middle of a stream is thrown after what came before it", async () => {
  const broken = 'data: {"text": "a"}\n\nevent: error\ndata: {"error": {"message": "gone", "code": "engine_error"}}\n\n';
  await served((response) => response.end(broken), async () => {
    const events = ask({}, {});
    assert.deepEqual((await events.next()).value.data, { text: "a" });
    await assert.rejects(events.next(), (error) => error instanceof Refused && error.status === 0 && error.code === "engine_error");
  });
});

test("a refusal carries what the server said and when to ask again", async () => {
  const refusal = (response) => {
    response.writeHead(429, { "Retry-After": "7" });
    response.end('{"error": {"message": "full", "code": "queue_full", "param": null}}');
  };
  await served(refusal, async (received) => {
    await assert.rejects(whole({}, {}), { message: "full", status: 429, code: "queue_full", param: null, retryAfter: 7 });
    assert.equal(received[0].headers.authorization, undefined);
  });
});

test("a refusal by something else than the server is told by its status", async () => {
  const proxy = (response) => (response.writeHead(502), response.end("<h1>Bad Gateway</h1>"));
  await served(proxy, () => assert.rejects(whole({}, {}), { message: "HTTP 502", status: 502, retryAfter: 2 }));
});
