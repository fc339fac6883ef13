"""Following log files: whole lines, once, over a rotation, without Triton's routine."""

from __future__ import annotations

from pathlib import Path

from serve.logs import Followed

ROUTINE = """\
2026-11-24T02:22:53Z I 20854 server.cc:604] "
+-----------+---------+--------+
| Model     | Version | Status |
2026-11-24T02:22:53Z E 20854 server.cc:241] "CudaDriverHelper has not been initialized."

"""


def test_only_what_is_new_and_whole_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("before\n")
    log = Followed(path)
    with path.open("a") as file:
        assert log.new_lines() == []
        file.write("one\ntwo, ha")
        file.flush()
        assert log.new_lines() == ["one"]
        file.write("lf 字\n")
        file.flush()
        assert log.new_lines() == ["two, half 字"]


def test_a_file_that_comes_later_is_shown_from_its_begin(tmp_path: Path) -> None:
    log = Followed(tmp_path / "a.log")
    assert log.new_lines() == []
    (tmp_path / "a.log").write_text("one\n")
    assert log.new_lines() == ["one"]


def test_a_rotation_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("")
    log = Followed(path)
    with path.open("a") as file:
        file.write("old\n")
    path.rename(tmp_path / "a.log.1")
    path.write_text("new\n")
    assert log.new_lines() == ["old", "new"]
    assert log.new_lines() == []


def test_routine_is_not_shown_and_trouble_is(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    log = Followed(path)
    trouble = '2026-11-24T02:22:53Z E 20854 model.cc:1] "failed to load"'
    path.write_text(ROUTINE + trouble + "\nprinted by a model\n")
    assert log.new_lines() == [trouble, "printed by a model"]
    assert log.last_lines(1) == ["printed by a model"]
    assert Followed(tmp_path / "none.log").last_lines(3) == []
