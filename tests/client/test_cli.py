"""`youtu ask`, `chat` and `info` as a user runs them: in processes of their own, the chat on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.client.fake_triton import FakeTriton
from tests.client.test_client import SILENT, UNENDING, free_port

YOUTU = [sys.executable, "-m", "youtu_client"]
CLIENT = Path(__file__).parents[2] / "client"


def environment(fake: FakeTriton, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CLIENT), "YOUTU_SERVER": fake.address, **more}


def youtu(
    fake: FakeTriton, *args: str, stdin: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; `stdin` is piped in, `more` are environment variables."""
    return subprocess.run(
        [*YOUTU, *args],
        env=environment(fake, **more),
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_ask_prints_the_answer_and_nothing_else(fake: FakeTriton) -> None:
    done = youtu(fake, "ask", "你好 😀")
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said: 你好 😀\n", "")


def test_ask_adds_no_second_line_end(fake: FakeTriton) -> None:
    assert youtu(fake, "ask", 'fake:{"pieces": ["a\\n"]}').stdout == "a\n"


def test_ask_streams(fake: FakeTriton) -> None:
    process = subprocess.Popen(
        [*YOUTU, "ask", 'fake:{"tokens": 4, "delay": 0.4}'], env=environment(fake), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 100)
    assert first == b"t0 "
    began = time.monotonic()
    assert process.stdout.read() == b"t1 t2 t3 \n"
    assert time.monotonic() - began > 0.8
    assert process.wait(5) == 0


@pytest.mark.parametrize("args", [["ask"], ["ask", "-"]])
def test_ask_reads_a_pipe(fake: FakeTriton, args: list[str]) -> None:
    done = youtu(fake, *args, stdin="two\nlines\n")
    assert done.stdout == "You said: two\nlines\n"


def test_ask_passes_every_option_on(fake: FakeTriton) -> None:
    done = youtu(
        fake,
        *[
            "ask",
            "--max-tokens",
            "50",
            "--temperature",
            "0.5",
            "--top-p",
            "0.25",
            "--top-k",
            "9",
            "--min-tokens",
            "2",
        ],
        *[
            "--repetition-penalty",
            "1.5",
            "--presence-penalty",
            "0.5",
            "--frequency-penalty",
            "-0.5",
            "--seed",
            "18446744073709551615",
        ],
        *["--stop", "END", "--stop", "。", "--no-thinking", "--system", "be kind", "--timeout", "9", "hi"],
    )
    assert done.returncode == 0, done.stderr
    assert fake.calls[0].inputs == {
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "max_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 9,
        "min_tokens": 2,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "seed": 2**64 - 1,
        "stop_words": ["END", "。"],
        "chat_template_kwargs": '{"enable_thinking":false}',
        "stream": True,
    }


def test_ask_json(fake: FakeTriton) -> None:
    answer = json.loads(youtu(fake, "ask", "--json", "你好").stdout)
    assert answer["answer"] == "You said: 你好"
    assert answer["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "cached_tokens": 0}
    assert set(answer["timings"]) == {"ttft", "total", "tokens_per_second"}
    assert answer["request_id"] == fake.calls[0].id


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["ask", 'fake:{"queue_full": true}'], 1, "youtu: the engine's queue is full"),
        (["ask", 'fake:{"tokens": 5, "fail_at": 2}'], 1, "failed: the fake fails"),
        (["ask", "x", "--temperature", "nan"], 1, "youtu: temperature must be"),
        (["ask", "x", "--seed", "-1"], 1, "youtu: seed must be from 0 to 18446744073709551615, not -1"),
        (["ask", SILENT, "--timeout", "0.2"], 1, "was not done within the timeout"),
        (["ask", ""], 2, "youtu: the question is empty"),
        (["ask", "x", "--seed", "many"], 2, "--seed"),
        (["ask", "x", "--server", "http://localhost:8001"], 2, "is not an address like localhost:8001"),
        ([], 2, "COMMAND"),
    ],
)
def test_failures_are_one_line_and_an_exit_code(
    fake: FakeTriton, args: list[str], code: int, says: str
) -> None:
    done = youtu(fake, *args)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.count("\n") == 1


def test_a_server_that_nobody_runs(fake: FakeTriton) -> None:
    done = youtu(fake, "ask", "x", "--server", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stderr.startswith("youtu: no connection to 127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_a_server_that_dies_mid_answer_is_one_line_too(fake: FakeTriton) -> None:
    """gRPC writes log lines of its own to stderr when a server goes."""
    command = [*YOUTU, "ask", UNENDING]
    process = subprocess.Popen(
        command, env=environment(fake), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    fake.wait_calls(1, 10)
    time.sleep(0.2)
    fake.stop()
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said.startswith("youtu: no connection to 127")
    assert said.count("\n") == 1


def test_ctrl_c_ends_ask_and_the_call(fake: FakeTriton) -> None:
    process = subprocess.Popen([*YOUTU, "ask", SILENT], env=environment(fake), stderr=subprocess.PIPE)
    (call,) = fake.wait_calls(1, 10)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert process.stderr is not None
    assert process.stderr.read() == b""
    call.wait_cancelled()


def test_a_reader_that_leaves_ends_ask_quietly(fake: FakeTriton) -> None:
    process = subprocess.Popen(
        [*YOUTU, "ask", UNENDING], env=environment(fake), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 3)
    process.stdout.close()
    assert process.wait(5) == 1
    assert process.stderr is not None
    assert process.stderr.read() == b""
    fake.calls[0].wait_cancelled()


def test_info(fake: FakeTriton) -> None:
    done = youtu(fake, "info")
    assert done.returncode == 0
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert (lines["id"], lines["demo"], lines["ready"], lines["context"]) == (
        "youtu-demo",
        "yes",
        "yes",
        "2048",
    )
    assert lines["defaults"] == "temperature 0.7, top_p 0.9, repetition_penalty 1.1"
    fake.ready = False
    done = youtu(fake, "info", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"server": fake.address, "live": True, "ready": False}
    assert done.stderr == f"youtu: not ready: {fake.address}\n"


# Makes the terminal it is given the controlling one, so that ^C typed there is a signal here.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """`youtu chat` on a pseudo-terminal."""

    def __init__(self, fake: FakeTriton, home: Path) -> None:
        self.fd, there = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *YOUTU, "chat", "--system", "be kind"],
            env=environment(fake, XDG_STATE_HOME=str(home), TERM="dumb"),
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
        )
        os.close(there)
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def wait(self, text: str, timeout: float = 10) -> str:
        """Read until `text` appears; returns everything up to and with it."""
        until = time.monotonic() + timeout
        while text not in self.text:
            left = until - time.monotonic()
            ready, _, _ = select.select([self.fd], [], [], max(0, left))
            assert ready, f"waited {timeout} s for {text!r}, saw {self.text!r}"
            self.text += os.read(self.fd, 4096).decode(errors="replace")
        before, _, self.text = self.text.partition(text)
        return before + text

    def interrupt(self, text: str) -> None:
        """Press Ctrl-C until `text` appears: readline misses a signal that comes with its prompt."""
        for _ in range(10):
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                self.wait(text, 1)
                return
        raise AssertionError(f"Ctrl-C does not bring {text!r}")

    def end(self) -> int:
        code = self.process.wait(10)
        os.close(self.fd)
        return code


def roles(fake: FakeTriton, at: int) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in fake.calls[at].inputs["messages"]]


def test_chat_keeps_the_conversation_and_outlives_ctrl_c(fake: FakeTriton, tmp_path: Path) -> None:
    terminal = Terminal(fake, tmp_path)
    terminal.wait("youtu-demo. A fake")
    terminal.wait("> ")
    terminal.type("hello\n")
    terminal.wait("You said: hello")
    terminal.wait("> ")
    terminal.type(UNENDING + "\n")
    terminal.wait("t3 ")
    pressed = time.monotonic()
    terminal.type("\x03")
    terminal.wait("(stopped)")
    assert fake.calls[1].wait_cancelled() - pressed < 0.5
    terminal.wait("> ")
    terminal.type("and now\n")
    terminal.wait("You said: and now")
    terminal.wait("> ")
    terminal.type('fake:{"queue_full": true}\n')
    terminal.wait("queue is full")
    terminal.wait("> ")
    terminal.interrupt("/quit")
    terminal.wait("> ")
    terminal.type("again\n")
    terminal.wait("You said: again")
    terminal.wait("> ")
    terminal.type("/reset\n")
    terminal.wait("(forgotten)")
    terminal.type("fresh\n")
    terminal.wait("You said: fresh")
    terminal.wait("> ")
    terminal.type("/quit\n")
    assert terminal.end() == 0

    assert roles(fake, 0) == [("system", "be kind"), ("user", "hello")]
    kept = roles(fake, 2)
    assert kept[1:4] == [("user", "hello"), ("assistant", "You said: hello"), ("user", UNENDING)]
    assert kept[4][0] == "assistant"
    assert kept[4][1].startswith("t0 t1 t2 t3 ")
    assert kept[5] == ("user", "and now")
    # The question that was refused is not part of the conversation.
    assert roles(fake, 4)[-2:] == [("assistant", "You said: and now"), ("user", "again")]
    assert roles(fake, 5) == [("system", "be kind"), ("user", "fresh")]
    history = tmp_path / "youtu" / "history"
    assert "and now" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_chat_ends_with_ctrl_d(fake: FakeTriton, tmp_path: Path) -> None:
    terminal = Terminal(fake, tmp_path)
    terminal.wait("> ")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_chat_without_a_server_says_so_and_goes_on(fake: FakeTriton, tmp_path: Path) -> None:
    fake.stop()
    terminal = Terminal(fake, tmp_path)
    terminal.wait("no connection to")
    terminal.wait("> ")
    fake.start()
    time.sleep(2.5)
    terminal.type("hello\n")
    terminal.wait("You said: hello")
    terminal.type("/quit\n")
    assert terminal.end() == 0
