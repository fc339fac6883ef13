"""The command line against the real server: a conversation on a terminal, a question about a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from youtu_client import Client

from tests.client.cli.terminal import Terminal
from tests.e2e.running import ROOT, RunningServer
from tests.e2e.test_cancelling import LONG, SLOTS, Try, tried
from tests.limits import START_S

YOUTU = [sys.executable, "-m", "youtu_cli"]
RETURNS = "签收后七天内，商品未使用、包装完整，就可以退货。"


def environment(server: RunningServer, home: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    addresses = {"YOUTU_SERVER": server.grpc_url, "XDG_STATE_HOME": str(home)}
    return {**ours, **addresses, "PYTHONPATH": str(ROOT / "client"), "TERM": "xterm-256color"}


def test_a_conversation_on_a_terminal(server: RunningServer, tmp_path: Path) -> None:
    terminal = Terminal([*YOUTU, "chat", "--temperature", "0"], environment(server, tmp_path), columns=120)
    try:
        terminal.prompt()
        assert "youtu-demo" in terminal.screen.text
        terminal.ask("怎么退货？", RETURNS)
        terminal.ask("/retry", RETURNS)
        terminal.type("用 Python 写一个判断素数的函数\r")
        terminal.wait("def is_prime")
        terminal.prompt()
        assert terminal.screen.style("def is_prime").fg != "default"
        assert "```" not in terminal.screen.text
        terminal.type("/quit\r")
        assert terminal.end() == 0
    finally:
        terminal.kill()
    terminal = Terminal([*YOUTU, "chat", "--continue"], environment(server, tmp_path), columns=120)
    try:
        terminal.wait("def is_prime")
    finally:
        terminal.kill()


def test_ctrl_c_frees_the_slot(client: Client, server: RunningServer, tmp_path: Path) -> None:
    """All slots are taken, one of them by an answer on a terminal: once that is stopped, one is free."""
    options = ["--min-tokens", str(LONG), "--max-tokens", str(LONG), "--temperature", "1"]

    def once(attempt: Try) -> bool:
        terminal = Terminal([*YOUTU, "chat", *options], environment(server, tmp_path))
        try:
            terminal.prompt()
            terminal.type("你好\r")
            others = attempt.busy(SLOTS - 1)
            terminal.wait_until(lambda: len(terminal.new.split()) > 5, "its answer")
            return attempt.served_in_the_left_slot(
                others, attempt.stream(tokens=3), lambda: terminal.type("\x03")
            ) and said_that_it_was_stopped(terminal)
        finally:
            terminal.kill()

    tried(client, once)


def said_that_it_was_stopped(terminal: Terminal) -> bool:
    terminal.wait("(stopped)")
    terminal.prompt()
    return True


def test_a_question_about_a_file(server: RunningServer, tmp_path: Path) -> None:
    command = [*YOUTU, "ask", "--temperature", "0", "--max-tokens", "20", "Summarise:"]
    done = subprocess.run(
        command,
        env=environment(server, tmp_path),
        input="a\nb\n",
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert "\x1b" not in done.stdout
