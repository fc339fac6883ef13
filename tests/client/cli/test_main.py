"""`youtu ask`, `info`, and `chat` through a pipe, as a user runs them: in processes of their own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import youtu_client

from serve.addresses import free_ports
from tests.client.fake_triton import FakeTriton
from tests.client.test_client import SILENT, UNENDING
from tests.limits import START_S, WAIT_S

YOUTU = [sys.executable, "-m", "youtu_cli"]
CLIENT = Path(__file__).parents[3] / "client"


def environment(fake: FakeTriton, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**ours, "PYTHONPATH": str(CLIENT), "YOUTU_SERVER": fake.address, **more}


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
        timeout=START_S,
        check=False,
    )


def test_ask_prints_the_answer_and_nothing_else(fake: FakeTriton) -> None:
    done = youtu(fake, "ask", "你好 😀")
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said: 你好 😀\n", "")


def test_ask_adds_no_second_line_end(fake: FakeTriton) -> None:
    assert youtu(fake, "ask", 'fake:{"pieces": ["a\\n"]}').stdout == "a\n"


def test_ask_streams(fake: FakeTriton) -> None:
    process = subprocess.Popen(
        [*YOUTU, "ask", 'fake:{"tokens": 4, "stepped": true}'], env=environment(fake), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    (call,) = fake.wait_calls(1)
    for at in range(4):  # each is there before the next one is made
        call.step()
        assert os.read(process.stdout.fileno(), 3) == f"t{at} ".encode()
    assert process.stdout.read() == b"\n"
    assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize("args", [["ask"], ["ask", "-"]])
def test_ask_reads_a_pipe(fake: FakeTriton, args: list[str]) -> None:
    done = youtu(fake, *args, stdin="two\nlines\n")
    assert done.stdout == "You said: two\nlines\n"


def test_ask_puts_a_pipe_behind_its_question(fake: FakeTriton) -> None:
    youtu(fake, "ask", "summarise", stdin="\ufeffone\n两行\n")
    assert fake.calls[0].inputs["messages"][-1]["content"] == "summarise\n\none\n两行"


def test_ask_puts_a_file_behind_its_question(fake: FakeTriton, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a file")
    with (tmp_path / "notes.txt").open() as notes:
        subprocess.run(
            [*YOUTU, "ask", "summarise"], env=environment(fake), stdin=notes, timeout=START_S, check=True
        )
    assert fake.calls[0].inputs["messages"][-1]["content"] == "summarise\n\na file"


def test_ask_does_not_wait_for_a_standard_input_that_is_no_pipe(fake: FakeTriton) -> None:
    ours, theirs = socket.socketpair()  # as some supervisors start programs; nothing ever comes
    with ours, theirs:
        command = [*YOUTU, "ask", "hi"]
        done = subprocess.run(
            command, env=environment(fake), stdin=theirs.fileno(), capture_output=True, timeout=START_S
        )
    assert done.stdout == b"You said: hi\n"


def test_ask_says_that_a_pipe_is_no_text(fake: FakeTriton) -> None:
    command = [*YOUTU, "ask", "summarise"]
    gbk = "退货".encode("gbk")
    done = subprocess.run(command, env=environment(fake), input=gbk, capture_output=True, timeout=START_S)
    assert done.returncode == 2
    assert done.stderr == b"youtu: standard input is not UTF-8 (byte 0); convert it with iconv\n"


THOUGHT = 'fake:{"thinking": true, "pieces": ["hm", " hm</thi", "nk>\\n\\n", "yes"]}'


def test_ask_leaves_the_thinking_out_of_a_pipe(fake: FakeTriton) -> None:
    assert youtu(fake, "ask", THOUGHT).stdout == "yes\n"


def test_ask_json_has_the_thinking_beside_the_answer(fake: FakeTriton) -> None:
    answer = json.loads(youtu(fake, "ask", "--json", THOUGHT).stdout)
    assert (answer["answer"], answer["thinking"]) == ("yes", "hm hm")


def test_a_pipe_gets_the_text_to_the_last_character(fake: FakeTriton) -> None:
    done = youtu(fake, "ask", 'fake:{"pieces": ["**a**\\t\\u001b[31m", "\\r\\n"]}')
    assert done.stdout == "**a**\t\x1b[31m\n"  # universal newlines of the test's own reading


def test_an_error_steers_no_terminal(fake: FakeTriton) -> None:
    script = r'fake:{"pieces": [], "fail_at": 0, "fail_message": "bad \u001b]0;title\u0007 end"}'
    assert youtu(fake, "ask", script).stderr.endswith("failed: bad ]0;title end\n")


def test_a_standard_input_that_is_closed(fake: FakeTriton, tmp_path: Path) -> None:
    home = {"XDG_STATE_HOME": str(tmp_path)}
    for args, says in ((["ask", "hi"], "You said: hi\n"), (["chat"], "youtu-demo. ")):
        command = shlex.join([*YOUTU, *args]) + " <&-"
        done = subprocess.run(
            command,
            shell=True,
            env=environment(fake, **home),
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(says)


def test_chat_through_a_pipe_is_plain(fake: FakeTriton, tmp_path: Path) -> None:
    lines = "hello **you**\ntwo\\\nlines\n/nonsense\n"
    done = youtu(fake, "chat", stdin=lines, XDG_STATE_HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()[2:]
    assert said[:3] == ["You said: hello **you**", "You said: two", "lines"]
    assert said[3].startswith("(unknown command /nonsense")


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
        *["--min-p", "0.125", "--stop-token-ids", "7", "--stop-token-ids", "9"],
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
        "min_p": 0.125,
        "seed": 2**64 - 1,
        "stop_words": ["END", "。"],
        "stop_token_ids": [7, 9],
        "chat_template_kwargs": '{"enable_thinking":false}',
        "stream": True,
        "return_parts": True,
    }


def test_ask_json(fake: FakeTriton) -> None:
    answer = json.loads(youtu(fake, "ask", "--json", "你好").stdout)
    assert answer["answer"] == "You said: 你好"
    assert answer["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "cached_tokens": 0}
    assert answer["thinking"] is None
    assert set(answer["timings"]) == {"ttft", "total", "tokens_per_second"}
    assert answer["request_id"] == fake.calls[0].id


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["ask", 'fake:{"queue_full": true}'], 1, "youtu: the queue is full"),
        (["ask", 'fake:{"tokens": 5, "fail_at": 2}'], 1, "failed: the fake fails"),
        (["ask", "x", "--temperature", "nan"], 1, "youtu: temperature: must be 0 to 10; got nan"),
        (["ask", "x", "--seed", "-1"], 1, "youtu: seed: must be from 0 to 18446744073709551615, not -1"),
        (["ask", SILENT, "--timeout", "0.2"], 1, "did not finish within the timeout"),
        (["ask", ""], 2, "youtu: the question is empty"),
        (["ask", "x", "--seed", "many"], 2, "--seed"),
        (["ask", "x", "--server", "http://localhost:8001"], 2, "is not an address such as localhost:8001"),
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
    done = youtu(fake, "ask", "x", "--server", f"127.0.0.1:{free_ports(1)[0]}")
    assert done.returncode == 1
    assert done.stderr.startswith("youtu: no connection to 127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_a_server_that_dies_mid_answer_is_one_line_too(fake: FakeTriton) -> None:
    """gRPC writes log lines of its own to stderr when a server goes."""
    command = [*YOUTU, "ask", UNENDING]
    process = subprocess.Popen(
        command, env=environment(fake), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == "t0 "
    fake.stop()
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert said.startswith("youtu: no connection to 127")
    assert said.count("\n") == 1


def test_ctrl_c_ends_ask_and_the_call(fake: FakeTriton) -> None:
    process = subprocess.Popen([*YOUTU, "ask", SILENT], env=environment(fake), stderr=subprocess.PIPE)
    (call,) = fake.wait_calls(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_S) == 130
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
    assert process.wait(WAIT_S) == 1
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


WITHOUT_GRPC = """
import os, sys
sys.modules["grpc"] = None
from youtu_cli.__main__ import main
try:
    main()
except ImportError:
    print(os.environ["GRPC_VERBOSITY"])
"""


def test_grpc_is_quiet(fake: FakeTriton) -> None:
    """It takes its log level when it is imported; the command sets it before."""
    env = {name: value for name, value in environment(fake).items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GRPC, "info"], env=env, capture_output=True, text=True
    )
    assert done.stdout == "NONE\n", done.stderr


def test_the_library_runs_as_the_command_too(fake: FakeTriton) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "youtu_client", "ask", "hello"],
        env=environment(fake),
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert (done.returncode, done.stdout) == (0, "You said: hello\n")


def test_the_version(fake: FakeTriton) -> None:
    done = youtu(fake, "--version")
    assert (done.returncode, done.stdout) == (0, f"youtu {youtu_client.__version__}\n")


@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "ascii"])
def test_an_output_that_cannot_write_every_character(fake: FakeTriton, encoding: str) -> None:
    """The fault: a traceback in place of the answer."""
    more = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [*YOUTU, "ask", "é 你好 😀"]
    how: dict[str, Any] = {"env": environment(fake, **more), "capture_output": True, "timeout": START_S}
    done = subprocess.run(command, **how)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == "You said: é 你好 😀\n".encode(encoding, "replace")
    done = subprocess.run([*command, "--json"], **how)
    assert json.loads(done.stdout)["answer"] == "You said: é 你好 😀"
