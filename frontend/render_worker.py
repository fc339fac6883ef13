"""`python -m frontend.render_worker FD`: renders texts for `renderer`, one after the other.

In: the text as UTF-8. Out: CPU seconds as 8 bytes, then the answer of `POST /render` as JSON. It ends when
the other end of the connection is closed, as it is when the frontend dies in whatever way.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import NoReturn

from pygments.lexers import get_lexer_by_name

from .render_markdown import LANGUAGES, OverBudget, blocks

CPU_S = 0.25
NICE = 5


def main() -> None:
    """Serve the connection whose file descriptor is the first argument."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C in a terminal: the frontend finishes its answers first.
    signal.signal(signal.SIGPROF, _out_of_time)
    os.nice(NICE)
    connection = Connection(int(sys.argv[1]))
    lexers = list(LANGUAGES)
    while True:
        if lexers and not connection.poll(0):
            get_lexer_by_name(lexers.pop())  # Importing one takes longer than most texts.
            continue
        try:
            text = connection.recv_bytes().decode()
            begun = time.process_time()
            made = [asdict(block) for block in blocks(text, CPU_S)]
            took = time.process_time() - begun
            body = json.dumps({"blocks": made}, ensure_ascii=False, separators=(",", ":")).encode()
            connection.send_bytes(struct.pack("d", took) + body)
        except (EOFError, OSError):
            return


def _out_of_time(_signal: int, _frame: object) -> NoReturn:
    raise OverBudget


if __name__ == "__main__":
    main()
