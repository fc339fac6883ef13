"""Engine folders: whole or not there, made once, made again when their source has changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from build import catalogue as catalogue_module
from build.catalogue import REPOSITORY
from build.engine import EngineInfo, make_engine
from build.engine_info import FORMAT
from build.errors import BuildError
from build.random_checkpoint import TINY, write_random_checkpoint
from tests.build.hub import FakeHub
from tests.limits import START_S, WAIT_S

REPO = "tencent/Youtu-LLM-2B"
SHAPE = replace(TINY, vocab_size=640, num_hidden_layers=2)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "shop-model"
    write_random_checkpoint(folder, SHAPE, seed=0)
    return folder


@pytest.fixture
def checkpoint(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "shop-model")


@pytest.fixture
def hub(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with FakeHub(published, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def command(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "build", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def change(path: Path, **fields: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**content, **fields}.items() if v is not ...}))


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "engines").iterdir() if path.suffix != ".lock")


def test_a_folder_becomes_an_engine(checkpoint: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    engine = make_engine(
        str(checkpoint), tmp_path / "var", progress=lambda step, done, total: steps.append(step)
    )
    assert engine.path.parent == tmp_path / "var" / "engines"
    assert {path.name for path in engine.path.iterdir()} == {
        *("model.gguf", "tokenizer.json", "chat_template.jinja", "engine.json")
    }
    assert (engine.path / "tokenizer.json").read_bytes() == (checkpoint / "tokenizer.json").read_bytes()
    assert (engine.path / "chat_template.jinja").read_bytes() == (
        checkpoint / "chat_template.jinja"
    ).read_bytes()
    content = json.loads((engine.path / "engine.json").read_text())
    assert content["format"] == FORMAT
    assert content | {"format": FORMAT} == content
    expected = {
        "model_id": "shop-model",
        "source": str(checkpoint),
        "demo": False,
        "description": "shop-model, int8 (Q8_0)",
        "architecture": "YoutuForCausalLM",
        "vocab_size": 640,
        "context_length": SHAPE.max_position_embeddings,
        "special_tokens": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        "add_bos": False,
        "weights": "Q8_0",
        "chat_template": True,
        "gguf_sha256": hashlib.sha256(engine.gguf.read_bytes()).hexdigest(),
    }
    assert {key: content[key] for key in expected} == expected
    assert EngineInfo.load(engine.path) == engine
    assert set(steps) == {"Converting shop-model to q8_0", "Checking model.gguf"}


def test_the_second_call_changes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    first = make_engine(str(checkpoint), tmp_path)
    before = first.gguf.stat()
    assert make_engine(str(checkpoint), tmp_path) == first
    assert first.gguf.stat() == before


def test_a_finished_engine_is_found_without_heavy_imports(checkpoint: Path, tmp_path: Path) -> None:
    """The import of gguf, numpy and huggingface_hub alone takes longer than `make serve` may spend here
    (half a second; `make promises` measures it)."""
    make_engine(str(checkpoint), tmp_path)
    code = (
        "import sys; from pathlib import Path; from build.engine import make_engine; "
        f"make_engine({str(checkpoint)!r}, Path({str(tmp_path)!r})); "
        "print([m for m in ('numpy', 'gguf', 'huggingface_hub', 'torch', 'transformers', 'tokenizers') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "tokenizer.json", "chat_template.jinja", "weights"),
        "additional_chat_templates/tool_use.jinja",
    ],
)
def test_a_changed_source_is_built_again(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (checkpoint / "additional_chat_templates").mkdir()
    (checkpoint / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    old = make_engine(str(checkpoint), tmp_path)
    (path,) = checkpoint.glob("*.safetensors" if name == "weights" else name)
    content = path.read_bytes()
    path.write_bytes(content)  # same length, another time: as a retrained model has
    os.utime(path, ns=(0, 12345))
    new = make_engine(str(checkpoint), tmp_path)
    assert new.path == old.path
    assert new.fingerprint != old.fingerprint
    assert entries(tmp_path) == [new.path.name]


def test_sources_of_one_name_do_not_mix(published: Path, tmp_path: Path) -> None:
    """Two folders called shop-model, and one of them in two formats, are three engines."""
    engines = []
    for where in ("monday", "tuesday"):
        folder = shutil.copytree(published, tmp_path / where / "shop-model")
        engines.append(make_engine(str(folder), tmp_path))
    engines.append(make_engine(str(folder), tmp_path, weights="f16"))
    assert len({engine.path for engine in engines}) == 3
    assert {engine.model_id for engine in engines} == {"shop-model"}
    assert [engine.description for engine in engines[1:]] == ["shop-model, int8 (Q8_0)", "shop-model, F16"]


def test_a_name_that_is_no_file_name(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "店铺 模型 v1")
    engine = make_engine(str(folder), tmp_path)
    assert engine.model_id == "店铺 模型 v1"
    assert engine.path.name.startswith("v1-")


def test_the_demonstration_says_so(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "repository" / "build" / "demo" / "checkpoint"
    shutil.copytree(checkpoint, place)
    monkeypatch.setattr(catalogue_module, "REPOSITORY", tmp_path / "repository")
    engine = make_engine("demo", tmp_path)
    assert (engine.model_id, engine.demo) == ("youtu-demo", True)
    assert engine.description == (
        "Demonstration checkpoint: a tiny model that has memorised its answers. It is not Youtu-LLM-2B."
    )
    assert make_engine("demo", tmp_path, weights="f32").description == engine.description


def test_from_the_hub_and_then_without_it(hub: FakeHub, tmp_path: Path) -> None:
    engine = make_engine(REPO, tmp_path)
    assert (engine.model_id, engine.source, engine.demo) == ("Youtu-LLM-2B", f"hub:{REPO}", False)
    assert engine.description == "Youtu-LLM-2B, int8 (Q8_0)"
    assert engine.fingerprint == hub.commit
    asked = len(hub.asked)
    assert make_engine("Youtu-LLM-2B", tmp_path) == engine
    shutil.rmtree(tmp_path / "downloads")  # to make room: the engine needs it no more
    assert make_engine(REPO, tmp_path) == engine
    assert len(hub.asked) == asked


def test_another_model_of_the_hub_is_served_under_its_name(hub: FakeHub, tmp_path: Path) -> None:
    hub.repo = "someone/Tuned"
    engine = make_engine("someone/Tuned", tmp_path)
    assert (engine.model_id, engine.description) == ("Tuned", "Tuned, int8 (Q8_0)")


def test_another_architecture_on_the_hub_costs_no_weights(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(checkpoint / "config.json", architectures=["LlamaForCausalLM"])
    with FakeHub(checkpoint, "someone/Llama") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(BuildError, match=r"architectures must be \['YoutuForCausalLM'\]"):
            make_engine("someone/Llama", tmp_path)
        (weights,) = checkpoint.glob("*.safetensors")
        assert hub.bodies(weights.name) == []


BROKEN = "{{ bos_token }}\n{% for m in messages %}\n{% endif %}"


def test_a_template_that_cannot_be_parsed_is_refused_before_the_weights(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint / "chat_template.jinja").write_text(BROKEN)
    with pytest.raises(BuildError, match=r"chat_template\.jinja, line 3: .*cannot be parsed") as refused:
        make_engine(str(checkpoint), tmp_path / "var")
    assert "\n" not in str(refused.value)
    assert entries(tmp_path / "var") == []
    with FakeHub(checkpoint, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(BuildError, match=r"chat_template\.jinja, line 3: "):
            make_engine(REPO, tmp_path / "var")
        (weights,) = checkpoint.glob("*.safetensors")
        assert hub.bodies(weights.name) == []


def test_a_template_for_tools_comes_along(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = checkpoint / "additional_chat_templates" / "tool_use.jinja"
    more.parent.mkdir()
    more.write_text("{{ tools }}")
    (checkpoint / "chat_template.jinja").write_text("plain")
    engine = make_engine(str(checkpoint), tmp_path / "var")
    assert (engine.path / "chat_template.jinja").read_text() == "plain"
    assert (engine.path / "chat_template.tool_use.jinja").read_text() == "{{ tools }}"
    assert engine.takes_tools()
    with FakeHub(checkpoint, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        fetched = make_engine(REPO, tmp_path / "var")
    assert (fetched.path / "chat_template.tool_use.jinja").read_text() == "{{ tools }}"
    of_gguf = make_engine(str(engine.gguf), tmp_path / "other")
    assert (of_gguf.path / "chat_template.tool_use.jinja").read_text() == "{{ tools }}"
    assert of_gguf.takes_tools()


def test_a_checkpoint_without_a_chat_template_is_served_without(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    engine = make_engine(str(checkpoint), tmp_path)
    assert engine.chat_template is False
    assert not (engine.path / "chat_template.jinja").exists()


def test_a_checkpoint_without_a_tokenizer_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    with pytest.raises(BuildError, match=r"has no tokenizer\.json"):
        make_engine(str(checkpoint), tmp_path)
    assert entries(tmp_path) == []


def test_a_failed_build_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    (weights,) = checkpoint.glob("*.safetensors")
    os.truncate(weights, weights.stat().st_size - 1000)
    with pytest.raises(BuildError):
        make_engine(str(checkpoint), tmp_path)
    assert entries(tmp_path) == []


def test_a_place_that_cannot_be_written_is_reported(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file, not a folder")
    with pytest.raises(
        BuildError, match=rf"making the engine of .* in {tmp_path}/var failed: .*Not a directory"
    ):
        make_engine(str(checkpoint), tmp_path / "var")


def test_a_failed_rebuild_keeps_the_old_engine(checkpoint: Path, tmp_path: Path) -> None:
    old = make_engine(str(checkpoint), tmp_path)
    change(checkpoint / "config.json", vocab_size=7)
    with pytest.raises(BuildError):
        make_engine(str(checkpoint), tmp_path)
    assert EngineInfo.load(old.path) == old


def test_a_killed_build_is_swept_by_the_next(checkpoint: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the conversion: no clean-up runs, and the lock must not stay."""
    code = (
        "import os, signal; from pathlib import Path; from build.engine import make_engine\n"
        "def die(step, done, total):\n"
        "    if step.startswith('Converting') and 2 * done > total: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"make_engine({str(checkpoint)!r}, Path({str(tmp_path)!r}), progress=die)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(entries(tmp_path)) == 1
    assert entries(tmp_path)[0].endswith(".building")
    engine = make_engine(str(checkpoint), tmp_path)
    assert entries(tmp_path) == [engine.path.name]


def test_two_builds_at_once_convert_once(checkpoint: Path, tmp_path: Path) -> None:
    both = [command(checkpoint, "--data-dir", tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=START_S) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len({out for out, _ in outputs}) == 1
    assert sum("Converting" in err for _, err in outputs) == 1


@pytest.mark.parametrize("field", ["gguf_sha256", "demo", "eos_token_ids"])
def test_a_missing_field_is_named_and_the_engine_built_again(
    checkpoint: Path, tmp_path: Path, field: str
) -> None:
    engine = make_engine(str(checkpoint), tmp_path)
    change(engine.path / "engine.json", **{field: ...})
    with pytest.raises(BuildError, match=f"field {field} is missing"):
        EngineInfo.load(engine.path)
    assert replace(make_engine(str(checkpoint), tmp_path), created="") == replace(engine, created="")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"format": FORMAT + 1}, f"format must be {FORMAT}"),
        ({"colour": "red"}, "field colour is unknown"),
        ({"vocab_size": "640"}, "field vocab_size cannot be '640'"),
        ({"vocab_size": True}, "field vocab_size cannot be True"),
        ({"demo": 0}, "field demo cannot be 0"),
        ({"eos_token_ids": [1, None]}, r"field eos_token_ids cannot be \[1, None\]"),
        ({"bos_token_id": "1"}, "field bos_token_id cannot be '1'"),
        ({"versions": {"gguf": 1}}, "field versions cannot be"),
        ({"gguf_bytes": 5}, r"model\.gguf has \d+ bytes, not 5"),
    ],
)
def test_a_wrong_field_is_named(
    checkpoint: Path, tmp_path: Path, fields: dict[str, object], fault: str
) -> None:
    engine = make_engine(str(checkpoint), tmp_path)
    change(engine.path / "engine.json", **fields)
    with pytest.raises(BuildError, match=fault):
        EngineInfo.load(engine.path)


@pytest.mark.parametrize("name", ["engine.json", "model.gguf", "tokenizer.json", "chat_template.jinja"])
def test_a_missing_file_is_named_and_the_engine_built_again(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    engine = make_engine(str(checkpoint), tmp_path)
    (engine.path / name).unlink()
    with pytest.raises(BuildError, match=name):
        EngineInfo.load(engine.path)
    assert (make_engine(str(checkpoint), tmp_path).path / name).is_file()


def test_the_command_says_where_the_engine_is(checkpoint: Path, tmp_path: Path) -> None:
    process = command(checkpoint, "--data-dir", tmp_path, "--weights", "f16")
    out, err = process.communicate(timeout=START_S)
    assert process.returncode == 0, err
    assert EngineInfo.load(Path(out.splitlines()[-1])).weights == "F16"
    assert "Converting shop-model to f16: 100% of" in err


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    process = command("/no/such/model", "--data-dir", tmp_path)
    out, err = process.communicate(timeout=START_S)
    assert (process.returncode, out) == (1, "")
    assert err == "error: MODEL=/no/such/model: no such file or folder (/no/such/model)\n"


def test_an_interrupted_download_says_that_it_is_kept(hub: FakeHub, tmp_path: Path) -> None:
    (weights,) = hub.root.glob("*.safetensors")
    hub.faults.break_at[weights.name] = [1000]
    hub.faults.statuses = [200] * 9 + [503] * 9
    process = command(REPO, "--data-dir", tmp_path, HF_ENDPOINT=hub.url)
    deadline = time.monotonic() + WAIT_S
    while not hub.bodies(weights.name) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert err.endswith("interrupted; the next start continues with what was fetched\n")
    assert "Traceback" not in err
    hub.faults.statuses = []
    assert make_engine(REPO, tmp_path).model_id == "Youtu-LLM-2B"
    assert hub.bodies(weights.name)[-1].range == "bytes=1000-"
