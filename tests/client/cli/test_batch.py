"""`youtu batch`: what it reads, what it writes, and that it goes on where it stopped."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from youtu_cli.answer_file import COLUMNS, Answers
from youtu_cli.files import FileError, decode
from youtu_cli.tables import read_rows

from serve.addresses import free_ports
from tests.client.cli.test_main import YOUTU, environment, youtu
from tests.client.fake_triton import FakeTriton
from tests.limits import WAIT_S


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: list[list[str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows(rows)
    return path


AWKWARD = ['say "hi", please', "two\nlines", "crlf\r\nline", "😀 你好，世界", "=1+1", " spaces "]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("source", ["csv", "jsonl"])
def test_awkward_text_goes_in_and_comes_out(
    fake: FakeTriton, tmp_path: Path, source: str, suffix: str
) -> None:
    given, out = tmp_path / f"in.{source}", tmp_path / f"out.{suffix}"
    if source == "csv":
        write_csv(given, [["id", "question"], *([f"q{at}", text] for at, text in enumerate(AWKWARD))])
    else:
        rows = [{"id": f"q{at}", "question": text} for at, text in enumerate(AWKWARD)]
        given.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    done = youtu(fake, "batch", str(given), str(out))
    assert done.returncode == 0, done.stderr
    assert "6 written" in done.stderr
    answers = table(out) if suffix == "csv" else jsonl(out)
    assert {a["id"]: a["answer"] for a in answers} == {
        f"q{n}": f"You said: {t}" for n, t in enumerate(AWKWARD)
    }
    asked = [a["question"] for a in answers]
    if suffix == "csv":
        assert "'=1+1" in asked  # text to a spreadsheet, not a formula
        asked = [row.question for row in read_rows(out, decode(out, None)[0], column=None, id_column="id")]
    assert set(asked) == set(AWKWARD)
    assert sorted(int(a["row"]) for a in answers) == [1, 2, 3, 4, 5, 6]
    assert all(a["finish_reason"] == "stop" and not a["error"] for a in answers)
    assert set(answers[0]) == set(COLUMNS)
    if suffix == "csv":
        # Without the mark Excel takes the file for the local code page.
        assert out.read_bytes().startswith(b"\xef\xbb\xbf")


def test_conversations_and_a_system_prompt(fake: FakeTriton, tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    talk = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "d"}]
    given.write_text("\n".join(json.dumps({"messages": messages}) for messages in (talk, own)))
    assert youtu(fake, "batch", str(given), str(out), "--system", "all").returncode == 0
    asked = sorted((call.inputs["messages"] for call in fake.calls), key=len)
    assert asked == [own, [{"role": "system", "content": "all"}, *talk]]
    assert sorted(answer["question"] for answer in jsonl(out)) == ["c", "d"]


def test_a_second_run_asks_only_what_is_new(fake: FakeTriton, tmp_path: Path) -> None:
    given, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_csv(given, [["id", "question"], ["1", "a"], ["2", "b"], ["", "same"], ["", "same"]])
    assert youtu(fake, "batch", str(given), str(out)).returncode == 0
    assert len(fake.calls) == 4
    # New: a row, a question under an old id, an old question under a new id, and a third of the same.
    rows = [["new", "z"], ["1", "a"], ["2", "B"], ["x", "same"], ["", "same"], ["", "same"], ["", "same"]]
    write_csv(given, [["id", "question"], *rows])
    done = youtu(fake, "batch", str(given), str(out))
    assert done.returncode == 0
    assert sorted(call.inputs["messages"][0]["content"] for call in fake.calls[4:]) == [
        "B",
        "same",
        "same",
        "z",
    ]
    assert "4 written" in done.stderr
    assert "3 were already there" in done.stderr
    assert len(table(out)) == 8


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_resume_after_kill_9(fake: FakeTriton, tmp_path: Path, suffix: str) -> None:
    given, out = tmp_path / "in.csv", tmp_path / f"out.{suffix}"
    script = 'fake:{{"pieces": ["ok {0}"]}}'
    write_csv(given, [["question"], *([script.format(number)] for number in range(30))])
    command = [*YOUTU, "batch", str(given), str(out), "--concurrency", "3"]
    fake.silent_from = 10
    process = subprocess.Popen(command, env=environment(fake), stderr=subprocess.DEVNULL)
    fake.wait_calls(13)
    process.kill()
    process.wait()
    fake.silent_from = None
    before = out.read_bytes()
    assert before.endswith(b"\n")
    kept = len(table(out) if suffix == "csv" else jsonl(out))
    assert 1 <= kept < 30
    # What a power cut may leave behind: half a line, here with an open quote and a line end inside.
    half = b'31,,"half\r\na line' if suffix == "csv" else b'{"row": 31, "answer": "ha'
    out.write_bytes(before + half)
    asked = len(fake.calls)
    done = youtu(fake, "batch", str(given), str(out))
    assert done.returncode == 0, done.stderr
    assert "an incomplete line, which was removed" in done.stderr
    assert out.read_bytes().startswith(before)
    answers = table(out) if suffix == "csv" else jsonl(out)
    assert sorted(a["answer"] for a in answers) == sorted(f"ok {number}" for number in range(30))
    assert len(fake.calls) - asked == 30 - kept


def test_ctrl_c_keeps_what_was_done(fake: FakeTriton, tmp_path: Path) -> None:
    given, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    write_csv(given, [["question"], *([f"q{number}"] for number in range(40))])
    command = [*YOUTU, "batch", str(given), str(out), "--concurrency", "4"]
    fake.silent_from = 12
    process = subprocess.Popen(command, env=environment(fake), stderr=subprocess.PIPE, text=True)
    fake.wait_calls(16)
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_S) == 130
    assert process.stderr is not None
    said = process.stderr.read()
    answers = jsonl(out)
    assert f"youtu: {len(answers)} written" in said
    assert f"{40 - len(answers)} have no answer yet: run the same command again" in said
    assert "Traceback" not in said
    for call in fake.calls[12:]:
        call.wait_cancelled()
    assert len(fake.calls) == 16
    assert 4 <= len(answers) <= 12


def test_answers_are_written_as_they_arrive_and_asked_concurrently(fake: FakeTriton, tmp_path: Path) -> None:
    given, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    late = 'fake:{"stepped": true, "pieces": ["late"]}'
    write_csv(given, [["question"], [late], *([f"q{n}"] for n in range(5))])
    process = subprocess.Popen([*YOUTU, "batch", str(given), str(out)], env=environment(fake))
    until = time.monotonic() + WAIT_S
    while not out.exists() or len(jsonl(out)) < 5:
        assert time.monotonic() < until
        time.sleep(0.02)
    for call in fake.wait_calls(6):
        call.step()
    assert process.wait(WAIT_S) == 0
    assert jsonl(out)[-1]["answer"] == "late"
    assert jsonl(out)[-1]["row"] == 1


def test_busy_is_tried_again(fake: FakeTriton, tmp_path: Path) -> None:
    given, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    full = 'fake:{"fail_at": 0, "fail_times": 1, "fail_code": "queue_full", "fail_message": "no place"}'
    write_csv(given, [["question"], [full], ["b"]])
    done = youtu(fake, "batch", str(given), str(out))
    assert done.returncode == 0, done.stderr
    assert len(fake.calls) == 3
    assert len(jsonl(out)) == 2


def test_a_server_that_stays_away_ends_the_run_and_the_next_goes_on(fake: FakeTriton, tmp_path: Path) -> None:
    given, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_csv(given, [["question"], *([f"q{number}"] for number in range(20))])
    away = f"127.0.0.1:{free_ports(1)[0]}"
    done = youtu(fake, "batch", str(given), str(out), "--server", away, "--retries", "1")
    assert done.returncode == 1
    assert "20 have no answer yet: run the same command again" in done.stderr
    assert f"gave up because no connection to {away}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert youtu(fake, "batch", str(given), str(out)).returncode == 0
    assert len(table(out)) == 20


def test_refused_rows_are_written_once_and_failed_rows_asked_again(fake: FakeTriton, tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bad = {"id": "bad", "messages": [{"role": "robot", "content": "x"}]}
    broken = {"id": "broken", "question": 'fake:{"fail_at": 1, "fail_times": 1, "tokens": 2}'}
    surrogate = '{"id": "half", "question": "\\ud83d"}'
    given.write_text(json.dumps(bad) + "\n\n" + json.dumps(broken) + "\n" + surrogate + "\n")
    done = youtu(fake, "batch", str(given), str(out))
    assert done.returncode == 1
    assert "youtu: row 3: " in done.stderr
    assert "failed: the fake fails" in done.stderr
    assert "2 refused as invalid" in done.stderr
    assert "1 failed" in done.stderr
    errors = {answer["id"]: answer["error"] for answer in jsonl(out)}
    assert errors["bad"] == "messages[0].role: 'robot' was sent"
    assert "not valid text" in errors["half"]
    assert set(errors) == {"bad", "half"}
    asked = len(fake.calls)
    done = youtu(fake, "batch", str(given), str(out))
    assert len(fake.calls) == asked + 1
    assert [answer["id"] for answer in jsonl(out)][2:] == ["broken"]
    assert "2 refused as invalid" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_files_as_excel_writes_them(fake: FakeTriton, tmp_path: Path, encoding: str) -> None:
    given = write_csv(tmp_path / "in.csv", [["question", "备注"], ["如何退货？", "x"], ["", ""]], encoding)
    done = youtu(fake, "batch", str(given), str(tmp_path / "out.csv"))
    assert done.returncode == 0, done.stderr
    assert [a["answer"] for a in table(tmp_path / "out.csv")] == ["You said: 如何退货？"]
    assert ("reading it as GBK" in done.stderr) == encoding.startswith("gb")


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [
        ("big5", "問題,備註\n如何退貨？,請在三十天內\n", "Big5"),
        ("cp950", "question\n今天的天氣怎麼樣，可以出門嗎\n", "Big5"),
        ("gbk", "问题,备注\n如何退货？,请在三十天内\n", "GBK"),
        ("gbk", "question\n今天的天气怎么样，可以出门吗\n", "GBK"),
        (
            "gbk",
            "question\n今天的天氣怎麼樣，可以出門嗎\n",
            "GBK",
        ),
    ],
)
def test_big5_and_gbk_are_told_apart(tmp_path: Path, encoding: str, text: str, name: str) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(text.encode(encoding))
    found, notice = decode(path, None)
    assert found == text
    assert notice is not None
    assert f"reading it as {name}." in notice


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.csv", "Question;Answer;note\na, b;x;1\n"),
        ("in.csv", "sep=|\nid|问题\n7|a, b\n"),
        ("in.csv", "id\t問題\tnote\n7\ta, b\t\n"),
        ("in.tsv", "QUESTION\na, b\n"),
        ("in.csv", 'question,note\n"a, b",x;y;z\n'),
    ],
)
def test_separators_and_names_of_the_question(tmp_path: Path, name: str, text: str) -> None:
    (row,) = read_rows(tmp_path / name, text, column=None, id_column="id")
    assert row.question == "a, b"
    assert row.id == ("7" if "7" in text else "")


def test_the_other_columns_are_carried_into_the_output(fake: FakeTriton, tmp_path: Path) -> None:
    given = write_csv(
        tmp_path / "in.csv",
        [["ID", "问题", "price", "answer", "price", ""], ["x", "a", "1", "old", "2", "-"], ["y", "b"]],
    )
    out = tmp_path / "out.csv"
    done = youtu(fake, "batch", str(given), str(out), "--concurrency", "1")
    assert done.returncode == 0, done.stderr
    first, second = table(out)
    assert list(first) == [*COLUMNS, "price", "answer (2)", "price (2)"]
    assert list(first.values())[len(COLUMNS) :] == ["1", "old", "2"]
    assert (first["id"], first["answer"], second["price"]) == ("x", "You said: a", "")
    lines = tmp_path / "out.jsonl"
    assert youtu(fake, "batch", str(given), str(lines), "--concurrency", "1").returncode == 0
    assert jsonl(lines)[0]["input"] == {"price": "1", "answer (2)": "old", "price (2)": "2"}
    asked = len(fake.calls)
    write_csv(given, [["ID", "问题", "new"], ["x", "a", "1"], ["z", "c", "3"]])
    assert youtu(fake, "batch", str(given), str(out)).returncode == 0
    assert len(fake.calls) == asked + 1
    assert [row["price"] for row in table(out)] == ["1", "", ""]  # a file that is there keeps its columns


def test_json_lines_carry_their_other_keys(fake: FakeTriton, tmp_path: Path) -> None:
    given, out, lines = tmp_path / "in.jsonl", tmp_path / "out.tsv", tmp_path / "out.jsonl"
    given.write_text('{"question": "a", "tags": ["x"], "n": 1}\n{"question": "b", "ok": true, "id": 5}\n')
    for target in (out, lines):
        assert youtu(fake, "batch", str(given), str(target), "--concurrency", "1").returncode == 0
    header, first, second = out.read_text(encoding="utf-8-sig").splitlines()
    assert header.split("\t")[len(COLUMNS) :] == ["tags", "n", "ok"]
    assert first.split("\t")[len(COLUMNS) :] == ['"[""x""]"', "1", ""]
    assert second.split("\t")[len(COLUMNS) :] == ["", "", "true"]
    assert [line["input"] for line in jsonl(lines)] == [{"tags": ["x"], "n": 1}, {"ok": True}]


def test_workbooks(fake: FakeTriton, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in (["id", "问题", "price"], [1, "如何退货？", 2.5], [None, None, None], [3, 42, None]):
        book.active.append(line)
    book.create_sheet("other").append(["question"])
    book.save(tmp_path / "in.xlsx")
    done = youtu(fake, "batch", str(tmp_path / "in.xlsx"), str(tmp_path / "out.csv"), "--concurrency", "1")
    assert done.returncode == 0, done.stderr
    found = [(row["row"], row["id"], row["question"], row["price"]) for row in table(tmp_path / "out.csv")]
    assert found == [("1", "1", "如何退货？", "2.5"), ("3", "3", "42", "")]


def test_without_the_library_a_workbook_says_what_to_install(fake: FakeTriton, tmp_path: Path) -> None:
    (tmp_path / "openpyxl.py").write_text("raise ImportError")
    (tmp_path / "in.xlsx").write_bytes(b"PK")
    path = f"{tmp_path}:{environment(fake)['PYTHONPATH']}"
    done = youtu(fake, "batch", str(tmp_path / "in.xlsx"), str(tmp_path / "o.csv"), PYTHONPATH=path)
    assert done.returncode == 1
    assert "pip install 'youtu-client[excel]'" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--temperature", "-1"], "--temperature is invalid for every row: "),
        (["--min-tokens", "-2"], "--min-tokens is invalid for every row: "),
    ],
)
def test_an_option_that_no_row_can_have_ends_the_run(
    fake: FakeTriton, tmp_path: Path, args: list[str], says: str
) -> None:
    """The fault: it stood in each row as its error, and a second run took all of them for done."""
    given, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_csv(given, [["question"], *([f"q{number}"] for number in range(20))])
    done = youtu(fake, "batch", str(given), str(out), *args)
    assert done.returncode == 2
    assert f"20 have no answer yet; gave up because {says}" in done.stderr
    assert table(out) == []
    assert len(fake.calls) <= 8
    assert youtu(fake, "batch", str(given), str(out)).returncode == 0
    assert [row["error"] for row in table(out)] == [""] * 20


@pytest.mark.parametrize(
    ("name", "content", "args", "code", "says"),
    [
        (
            "in.csv",
            b"frage,id\na,1\n",
            [],
            1,
            "has no column 'question'; its columns are 'frage', 'id'. Choose one",
        ),
        ("in.csv", b"", [], 1, "has no column 'question'; its columns are none"),
        ("in.csv", b'question\n"a" b\n', [], 1, "after line 1: not CSV"),
        ("in.csv", b"question\n\xff\xff\n", [], 1, "neither UTF-8 (byte 9) nor GBK nor Big5; set its"),
        ("in.csv", b"question\n\xe9\n", ["--encoding", "ascii"], 1, "is not ascii: byte 9 is invalid"),
        ("in.csv", b"question\na\n", ["--encoding", "klingon"], 1, "unknown encoding klingon"),
        ("in.jsonl", b'{"question": "a"}\n{"question"\n', [], 1, "line 2: not JSON"),
        ("in.jsonl", b'["a"]\n', [], 1, "line 1: not a JSON object"),
        (
            "in.jsonl",
            b'{"frage": "a"}\n',
            [],
            1,
            "line 1: neither 'question' nor 'messages'; its keys are 'frage'",
        ),
        ("in.jsonl", b'{"question": 5}\n', [], 1, "line 1: 'question' is not a string"),
        ("in.jsonl", b'{"messages": ["a"]}\n', [], 1, "line 1: 'messages' is not a list of objects"),
        ("in.ods", b"", [], 1, "the name must end in .csv, .tsv, .jsonl, .ndjson, .xlsx"),
        ("in.xlsx", b"PK", [], 1, "cannot be read as a workbook: "),
        ("in.csv", b"question;id;question\na;1;b\n", [], 1, "has 2 columns named 'question'; column names"),
        (
            "in.csv",
            b"question\na\n",
            ["--timeout", "0"],
            2,
            "--timeout: should be a number of seconds above 0, not '0'",
        ),
        ("in.csv", b"question\na\n", ["--concurrency", "0"], 2, "--concurrency must be at least 1"),
    ],
)
def test_files_that_cannot_be_read(
    fake: FakeTriton, tmp_path: Path, name: str, content: bytes, args: list[str], code: int, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out.csv"
    done = youtu(fake, "batch", str(tmp_path / name), str(out), *args)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert not fake.calls


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
@pytest.mark.parametrize("content", [b"name,price\nx,1\n", b'{"a": 1}\n', b"\x89PNG\r\n\x1a\n", b"one line"])
def test_a_file_that_is_not_ours_is_left_alone(
    fake: FakeTriton, tmp_path: Path, name: str, content: bytes
) -> None:
    given = write_csv(tmp_path / "in.csv", [["question"], ["a"]])
    out = tmp_path / name
    out.write_bytes(content)
    done = youtu(fake, "batch", str(given), str(out))
    assert done.returncode == 1
    assert "is not an answer file" in done.stderr
    assert out.read_bytes() == content


def test_input_and_output_are_two_files(fake: FakeTriton, tmp_path: Path) -> None:
    given = write_csv(tmp_path / "in.csv", [["question"], ["a"]])
    before = given.read_bytes()
    assert "is also the input" in youtu(fake, "batch", str(given), str(given)).stderr
    assert given.read_bytes() == before
    assert "No such file" in youtu(fake, "batch", str(tmp_path / "gone.csv"), str(tmp_path / "o.csv")).stderr


def test_progress_on_a_terminal(fake: FakeTriton, tmp_path: Path) -> None:
    slow = 'fake:{"prefill": 0.2, "pieces": ["ok"]}'
    given = write_csv(tmp_path / "in.csv", [["question"], *([slow + str(number)] for number in range(6))])
    here, there = os.openpty()
    command = [*YOUTU, "batch", str(given), str(tmp_path / "o.csv"), "--concurrency", "2"]
    process = subprocess.Popen(command, env=environment(fake), stderr=there)
    os.close(there)
    said = b""
    while True:
        try:
            part = os.read(here, 4096)
        except OSError:
            break
        if not part:
            break
        said += part
    assert process.wait(WAIT_S) == 0
    shown = re.findall(rb"\r\x1b\[K(\d)/6  \d+\.\d/s  ETA \d:\d\d", said)
    assert shown == sorted(shown)
    assert len(shown) > 1
    assert shown[-1] == b"6"


# The file layer by itself.


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_any_cut_of_an_answer_file_is_mended(tmp_path: Path, suffix: str) -> None:
    """Whatever byte a file ends at, opening it keeps the whole rows before the cut and nothing else."""
    path = tmp_path / f"out.{suffix}"
    answers = Answers(path)
    blank = dict.fromkeys(COLUMNS)
    ends = [path.stat().st_size]
    for at, text in enumerate(AWKWARD):
        answers.write(blank | {"row": at, "question": text, "answer": text, "key": f"k{at}"}, {})
        ends.append(path.stat().st_size)
    answers.close()
    data = path.read_bytes()
    first = ends[0] if suffix == "jsonl" else 1  # Not even the header's first byte is there: an empty file.
    for cut in range(max(first, ends[0]), len(data)):
        path.write_bytes(data[:cut])
        mended = Answers(path)
        mended.close()
        whole = sum(cut >= end for end in ends[1:])
        assert list(mended.done) == [f"k{at}" for at in range(whole)], cut
        assert path.read_bytes() == data[: ends[whole]]


def test_a_header_that_was_cut_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    Answers(path).close()
    data = path.read_bytes()
    for cut in range(3, len(data)):
        path.write_bytes(data[:cut])
        Answers(path).close()
        assert path.read_bytes() == data


def test_a_notice_says_which_byte_was_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("question\n你好\n".encode("gbk"))
    text, notice = decode(path, None)
    assert notice is not None
    assert "byte 9" in notice
    assert [row.question for row in read_rows(path, text, column="question", id_column="id")] == ["你好"]
    with pytest.raises(FileError):
        decode(path, "utf-8")


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@x", "\tx", "\rx", "\nx", " =1", "＝1", "'=1", "''-1", "'x", "x=1", ""]
)
def test_no_cell_is_a_formula(text: str) -> None:
    """The fault: a question or an answer that begins with = was run by the spreadsheet that opened it."""
    from youtu_cli.spreadsheet import guarded, unguarded

    made = guarded(text)
    assert made.lstrip(" ")[:1] not in {"=", "+", "-", "@", "\t", "\r", "\n", "＝"}
    assert unguarded(made) == text
    assert (made == text) == (text in {"'x", "x=1", ""})
