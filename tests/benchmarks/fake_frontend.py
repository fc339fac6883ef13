"""A stand-in for the frontend that does as it is told: for failures the real one does not show on call.

The last word of the last message is the order: `ok`, `busy` (429), `cut` (the stream ends without its end),
`torn` (the same within a chunked body), `broken` (an error event), `shut` (a whole answer on a connection
that is said to be kept and is shut), or `stall` (the first of them takes STALL seconds, the others none).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STALL = 1.5
PIECES, GAP = 3, 0.01
USAGE = {"prompt_tokens": 7, "completion_tokens": PIECES, "total_tokens": 7 + PIECES}
SHUT = f"""event: done
data: {json.dumps({"finish_reason": "length", "usage": USAGE})}

""".encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stalled = threading.Event()
    one_at_a_time = threading.Lock()

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        order = body["messages"][-1]["content"].split()[-1]
        if order == "busy":
            self._plain(429, {"error": {"message": "the queue is full", "code": "busy"}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if order == "torn":
            self.send_header("Transfer-Encoding", "chunked")
        if order == "shut":
            self.send_header("Content-Length", str(len(SHUT)))
            self.end_headers()
            self.wfile.write(SHUT)
            self.close_connection = True
            return
        self.send_header("Connection", "close")
        self.end_headers()
        if order == "torn":
            self.wfile.write(b"100\r\ndata: ")
            return
        v1 = self.path.startswith("/v1")
        with self.one_at_a_time:
            if order == "stall" and not self.stalled.is_set():
                self.stalled.set()
                time.sleep(STALL)
            for _ in range(PIECES):
                time.sleep(GAP)
                self._event({"choices": [{"delta": {"content": "x"}}]} if v1 else {"delta": "x"})
        if order == "broken":
            error = {"error": {"message": "the engine fell over"}}
            self._event(error, None if v1 else "error")
        elif order != "cut":
            self._end(v1)

    def _end(self, v1: bool) -> None:
        if v1:
            self._event({"choices": [{"delta": {}, "finish_reason": "length"}]})
            self._event({"choices": [], "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 2}}})
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            self._event({"finish_reason": "length", "usage": {**USAGE, "cached_tokens": 2}}, "done")

    def _plain(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _event(self, value: Any, name: str | None = None) -> None:
        self.wfile.write(
            (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(value)}\n\n".encode()
        )
        self.wfile.flush()


@contextmanager
def fake_frontend() -> Iterator[str]:
    """Its address, while it runs."""
    handler = type("Handler", (Handler,), {"stalled": threading.Event(), "one_at_a_time": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
