"""One gRPC call written byte by byte, for headers that no client library sends."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
TIMEOUT = 60.0  # s


@dataclass(frozen=True)
class Answer:
    """`message` is what came back, empty when the call failed; `reset`: the server broke the stream off."""

    message: bytes
    reset: bool


def call(address: tuple[str, int], path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Answer:
    """Send one message to a gRPC method and read until the stream ends."""
    ours = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in (*ours, *headers))
    message = b"\0" + struct.pack(">I", len(body)) + body
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, b"")
            + _frame(HEADERS, END_HEADERS, 1, block)
            + _frame(DATA, END_STREAM, 1, message)
        )
        received = b""
        for kind, flags, stream, payload in _frames(connection):
            if kind == GOAWAY or (kind == RST_STREAM and stream == 1):
                return Answer(received, reset=True)
            if stream == 1:
                received += payload if kind == DATA else b""
                if flags & END_STREAM:
                    return Answer(received, reset=False)
    return Answer(received, reset=True)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    with connection.makefile("rb") as stream:
        while len(head := stream.read(9)) == 9:
            kind, flags, number = struct.unpack(">BBI", head[3:])
            yield kind, flags, number, stream.read(int.from_bytes(head[:3], "big"))


def _text(text: bytes) -> bytes:
    """A literal of HPACK without Huffman coding (RFC 7541, 5.1 and 5.2)."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, length = len(text) - 127, bytearray([127])
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + text
