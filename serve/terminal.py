"""Being the terminal's foreground, so that Ctrl-C reaches us and not the `make` that started us.

make would die of the same Ctrl-C and report a failure, although everything stopped correctly.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def foreground() -> Iterator[None]:
    """Hold the terminal in a process group of our own; nothing where there is no terminal to hold."""
    group = os.getpgrp()
    try:
        terminal = sys.stdin.fileno()
        ours_to_take = group != os.getpid() and os.tcgetpgrp(terminal) == group
    except (OSError, ValueError):  # no terminal, or no standard input
        ours_to_take = False
    if not ours_to_take:
        yield
        return
    # A background group that sets the foreground is stopped by SIGTTOU. Ctrl-Z would stop us, but not the
    # make that the shell waits for.
    for number in (signal.SIGTTOU, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, group)
