"""The command `youtu`: its options, and what its exit codes mean. The commands themselves are in `ask`,
`chat` and `batch`.

Exit codes: 0 done · 1 failed, one line on stderr says why · 2 wrong usage · 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from youtu_client import Client, Sampling, YoutuError, __version__
from youtu_client.servers import addresses
from youtu_contract.rows import SAMPLING_OPTIONS

from . import ask, batch, chat
from .files import FileError
from .tables import QUESTIONS
from .terminal import print_error
from .words import say

OPTIONS = {name: row for name, row in SAMPLING_OPTIONS.items() if not row.json}
"""Options of a request that are options of the command line."""

_TYPES = {"INT32": (int, "N"), "UINT64": (int, "N"), "FP32": (float, "X"), "BYTES": (str, "TEXT")}


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"should be a number of seconds above 0, not {text!r}")
    return value


class UsageError(Exception):
    """The command line makes no sense; ends with exit code 2."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--server",
        default=os.environ.get("YOUTU_SERVER", "localhost:8001"),
        metavar="HOST:PORT",
        help="Triton's gRPC address, or several, comma-separated (default: $YOUTU_SERVER or localhost:8001)",
    )
    sampling = argparse.ArgumentParser(add_help=False, parents=[server])
    group = sampling.add_argument_group("sampling (default: the server's own settings)")
    for name, row in OPTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        if row.datatype == "BOOL":
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=row.meaning)
            continue
        kind, metavar = _TYPES[row.datatype]
        action, more = ("append", " May be repeated.") if row.is_list else ("store", "")
        group.add_argument(flag, action=action, type=kind, metavar=metavar, help=row.meaning + more)
    group.add_argument(
        "--thinking",
        action=argparse.BooleanOptionalAction,
        help="let the model think before it answers",
    )
    sampling.add_argument("--system", metavar="TEXT", help="system prompt")
    sampling.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="limit for one answer (default: 300)"
    )

    top = argparse.ArgumentParser(prog="youtu", description="Talk to a Youtu language model behind Triton.")
    top.add_argument("--version", action="version", version=f"youtu {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    ask_parser = commands.add_parser(
        "ask", parents=[sampling], help="ask one question and print the answer as it arrives"
    )
    ask_parser.add_argument(
        "question",
        nargs="?",
        help="piped input is appended to it; '-' or none: the question is read from standard input",
    )
    ask_parser.add_argument(
        "--json", action="store_true", help="print one JSON object with usage and timings"
    )

    chat_parser = commands.add_parser("chat", parents=[sampling], help="chat in the terminal")
    chat_parser.add_argument(
        "--continue",
        dest="resume",
        action="store_true",
        help="continue the last conversation, also after a crash",
    )

    batch_parser = commands.add_parser(
        "batch",
        parents=[sampling],
        help="answer a file of questions",
        description="Answers the questions in INPUT and writes OUTPUT as answers complete (column row is the "
        "row of INPUT). Run it again to continue where it stopped: rows already in OUTPUT with the same "
        "id and the same question are not asked again. A row that the server refuses as invalid is written "
        "with its error and counts as done; one that failed otherwise is asked again in the next run. An "
        "option that is invalid for every row ends the run before anything is written.",
    )
    batch_parser.add_argument(
        "input", type=Path, metavar="INPUT", help="FILE.csv (with , ; or tabs), .tsv, .jsonl or .xlsx"
    )
    batch_parser.add_argument(
        "output",
        type=Path,
        metavar="OUTPUT",
        help="FILE.csv, .tsv or .jsonl; it keeps INPUT's other columns",
    )
    batch_parser.add_argument(
        "--column",
        metavar="NAME",
        help=f"column of the question (default: {', '.join(QUESTIONS)}, in any case)",
    )
    batch_parser.add_argument(
        "--id-column", default="id", metavar="NAME", help="column of the row's id, if there is one"
    )
    batch_parser.add_argument(
        "--encoding", metavar="NAME", help="encoding of INPUT (default: UTF-8, GBK or Big5)"
    )
    batch_parser.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="questions at once (default: 8)"
    )
    batch_parser.add_argument(
        "--retries",
        type=int,
        default=8,
        metavar="N",
        help="retries with backoff when the server is busy or unavailable (default: 8, about a minute)",
    )

    info_parser = commands.add_parser(
        "info", parents=[server], help="show what the server serves and whether it is ready"
    )
    info_parser.add_argument("--json", action="store_true", help="print one JSON object")
    return top


def sampling_of(args: argparse.Namespace) -> Sampling:
    """The options of a request out of the command line."""
    options = {name: getattr(args, name) for name in [*OPTIONS, "timeout"]} | {"return_parts": True}
    if args.thinking is not None:
        options["chat_template_kwargs"] = {"enable_thinking": args.thinking}
    return {name: value for name, value in options.items() if value is not None}  # type: ignore[return-value]


def question_of(args: argparse.Namespace) -> str:
    """What `ask` asks: its argument, standard input, or the one about the other."""
    try:
        if args.question not in (None, "-"):
            text = ask.read_stdin() if ask.stdin_is_pipe() else ""
            question = f"{args.question}\n\n{text}" if text.strip() else args.question
        elif args.question is None and sys.stdin.isatty():
            raise UsageError("no question; pass it as an argument, or '-' to type it here")
        else:
            question = ask.read_stdin()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 (byte {error.start}); convert it with iconv") from None
    if not question.strip():
        raise UsageError(say("the question is empty"))
    return str(question)


def run(args: argparse.Namespace) -> int:
    try:
        addresses(args.server)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if args.command == "info":
        return ask.info(args.server, as_json=args.json)
    options = sampling_of(args)
    if args.command == "batch":
        if args.concurrency < 1 or args.retries < 0:
            raise UsageError("--concurrency must be at least 1 and --retries at least 0")
        return batch.batch(
            args.server,
            args.input,
            args.output,
            column=args.column,
            id_column=args.id_column,
            encoding=args.encoding,
            system=args.system,
            concurrency=args.concurrency,
            retries=args.retries,
            options=options,
        )
    with Client(args.server) as client:
        if args.command == "chat":
            return chat.chat(client, system=args.system, resume=args.resume, options=options)
        question = question_of(args)
        return ask.ask(client, question, system=args.system, as_json=args.json, options=options)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    for file in (sys.stdout, sys.stderr):
        if isinstance(file, io.TextIOWrapper):  # what it cannot write becomes a question mark, not an end
            file.reconfigure(errors="replace")
    args = parser().parse_args(argv)
    try:
        return run(args)
    except UsageError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone. Python would complain about the same pipe once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (YoutuError, FileError, OSError) as error:
        print_error(str(error))
        return 1
