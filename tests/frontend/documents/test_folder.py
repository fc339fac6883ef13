"""The knowledge base: what is in the folder and nothing else, read once, and again when it changes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from frontend.documents import folder as folders
from frontend.documents.folder import Folder
from frontend.documents.reader import Reader
from tests.frontend.conftest import Frontend
from tests.limits import WAIT_S


class Counting(Reader):
    """Writes down what it reads."""

    def __init__(self) -> None:
        super().__init__(30, 512 * 2**20)
        self.names: list[str] = []

    def read(self, data: bytes, name: str, wait_s: float = 10.0) -> bytes:
        self.names.append(name)
        return super().read(data, name, wait_s)


@pytest.fixture
def reader() -> Counting:
    return Counting()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    (root / "rules").mkdir(parents=True)
    (root / "returns.md").write_text("# Returns\nParcels are returned within 30 days.")
    (root / "rules" / "年假.txt").write_text("年假须提前三天申请。", encoding="gb18030")
    return root


def names(folder: Folder) -> list[str]:
    return [each.name for each in folder.state.documents]


def test_it_is_read_once_and_again_where_it_changes(root: Path, reader: Counting) -> None:
    folder = Folder(root, reader, 2**20)
    assert not folder.state.complete
    folder.look()
    assert folder.state.complete
    assert names(folder) == ["returns.md", "rules/年假.txt"]
    first = folder.state
    folder.look()
    assert (folder.state is first, len(reader.names)) == (True, 2)
    (root / "returns.md").write_text("Parcels are returned within 14 days.")
    (root / "rules" / "年假.txt").unlink()
    (root / "new.csv").write_text("a,b\n1,2\n")
    folder.look()
    assert reader.names[2:] == ["new.csv", "returns.md"]
    assert names(folder) == ["new.csv", "returns.md"]
    assert folder.state.documents[1].contents.passages[0].text == "Parcels are returned within 14 days."
    assert folder.state.documents[1].id == first.documents[0].id


def test_the_same_size_and_a_new_time_is_a_change(root: Path, reader: Counting) -> None:
    folder = Folder(root, reader, 2**20)
    folder.look()
    (root / "returns.md").write_text("# Returns\nParcels are returned within 60 days.")
    folder.look()
    assert "60 days" in folder.state.documents[0].contents.passages[0].text


def test_nothing_outside_the_folder_is_read(root: Path, reader: Counting, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(outside / "secret.txt")
    (root / "up.txt").symlink_to("../outside/secret.txt")
    (root / "inside.txt").symlink_to("returns.md")
    (root / "folder").symlink_to(outside, target_is_directory=True)
    (root / "round").symlink_to(root, target_is_directory=True)
    (root / ".hidden").write_text("secret")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("secret")
    os.mkfifo(root / "pipe.txt")
    folder = Folder(root, reader, 2**20)
    folder.look()
    assert names(folder) == ["returns.md", "rules/年假.txt"]
    assert sorted(reader.names) == names(folder)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_that_takes_a_place_after_the_look_is_not_followed(
    root: Path, reader: Counting, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.txt").write_text("secret")
    (root / "a").mkdir()
    (root / "a" / "b.txt").write_text("harmless")
    bytes_of = Folder._bytes

    def exchanged(self: Folder, name: str, folder: int) -> bytes:
        if name == "a/b.txt":
            if what == "file":
                (root / "a" / "b.txt").unlink()
                (root / "a" / "b.txt").symlink_to(outside / "b.txt")
            else:
                (root / "a").rename(root / "c")
                (root / "a").symlink_to(outside, target_is_directory=True)
        return bytes_of(self, name, folder)

    monkeypatch.setattr(Folder, "_bytes", exchanged)
    folder = Folder(root, reader, 2**20)
    folder.look()
    found = [passage.text for each in folder.state.documents for passage in each.contents.passages]
    assert "secret" not in found
    assert ("harmless" in found) == (what == "folder")  # what the descriptor leads to


def test_a_root_that_is_a_link_leads_to_its_folder(root: Path, reader: Counting, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    folder = Folder(tmp_path / "link", reader, 2**20)
    folder.look()
    assert len(names(folder)) == 2


def test_what_cannot_be_read_is_named_and_not_tried_again(root: Path, reader: Counting) -> None:
    (root / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    (root / "large.txt").write_text("x" * 3000)
    folder = Folder(root, reader, 2000)
    folder.look()
    folder.look()
    assert {name: error.code for name, error in folder.state.unreadable.items()} == {
        "cat.png": "document_image",
        "large.txt": "document_too_long",
    }
    assert len(reader.names) == 3
    (root / "cat.png").write_text("now a text")
    folder.look()
    assert "cat.png" in names(folder)


def test_a_folder_that_is_not_there_is_empty_until_it_is(
    root: Path, reader: Counting, tmp_path: Path
) -> None:
    folder = Folder(tmp_path / "later", reader, 2**20)
    folder.look()
    assert (folder.state.complete, names(folder)) == (True, [])
    root.rename(tmp_path / "later")
    folder.look()
    assert len(names(folder)) == 2


def test_the_next_frontend_of_a_run_reads_nothing_again(root: Path, reader: Counting, tmp_path: Path) -> None:
    cache = tmp_path / "run" / "documents"
    cache.parent.mkdir()
    Folder(root, reader, 2**20, cache).look()
    (root / "returns.md").write_text("Changed meanwhile.")
    folder = Folder(root, reader, 2**20, cache)
    folder.look()
    assert reader.names == ["returns.md", "rules/年假.txt", "returns.md"]
    assert folder.state.documents[0].contents.passages[0].text == "Changed meanwhile."
    assert len(list(cache.iterdir())) == 2  # what belonged to the earlier version is gone
    assert cache.stat().st_mode & 0o077 == 0


def test_it_takes_no_more_memory_than_it_may(
    root: Path, reader: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "BYTES", 10)
    folder = Folder(root, reader, 2**20)
    folder.look()
    assert names(folder) == []
    assert {error.code for error in folder.state.unreadable.values()} == {"document_too_long"}


def waited(frontend: Frontend, documents: int) -> dict[str, Any]:
    pause = threading.Event()
    for _ in range(int(10 * WAIT_S)):
        told: dict[str, Any] = frontend.get("/documents").json["knowledge"]
        if told["complete"] and told["documents"] == documents:
            return told
        pause.wait(0.1)
    raise AssertionError(told)


def test_a_request_asks_it_by_a_field(another: Any, root: Path) -> None:
    frontend: Frontend = another(documents_dir=root)
    (root / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    told = waited(frontend, 2)
    assert told["passages"] == 2
    for path, body in (
        ("/chat", {"prompt": "年假提前几天申请？"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "年假提前几天申请？"}]}),
    ):
        data = json.dumps(body | {"documents": ["knowledge"]}).encode()
        reply = frontend.send("POST", path, data, **{"Content-Type": "application/json"})
        assert reply.status == 200, reply.json
        assert [(each["number"], each["name"], each["text"]) for each in reply.json["sources"]] == [
            (1, "rules/年假.txt", "年假须提前三天申请。")
        ]
    (root / "new.txt").write_text("The warehouse opens at seven.")
    waited(frontend, 3)
    reply = frontend.post({"prompt": "When does the warehouse open?", "documents": ["knowledge"]})
    assert reply.json["sources"][0]["name"] == "new.txt"


def test_without_a_folder_there_is_none_to_ask(frontend: Frontend) -> None:
    assert frontend.get("/documents").json == {"largest": 20 * 2**20, "knowledge": None}
    reply = frontend.post({"prompt": "q", "documents": ["knowledge"]})
    assert (reply.status, reply.error["code"]) == (404, "document_not_found")
    assert "YOUTU_DOCUMENTS_DIR" in reply.error["message"]
