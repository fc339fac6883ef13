"""What MODEL= may be, and what is said of what it may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from build import catalogue as catalogue_module
from build.catalogue import REPOSITORY, Source, catalogue, resolve
from build.errors import BuildError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(here: Path) -> Path:
    (here / "org" / "shop-model").mkdir(parents=True)
    (here / "org" / "shop-model" / "config.json").write_text("{}")
    return here / "org" / "shop-model"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, here: Path) -> Path:
    folder = here / "repository" / "build" / "demo" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(catalogue_module, "REPOSITORY", here / "repository")
    return folder


def test_the_catalogue_says_what_it_must_of_the_demonstration() -> None:
    (demo,) = (entry for entry in catalogue() if entry.demo)
    assert (demo.name, demo.description) == (
        "youtu-demo",
        "Demonstration checkpoint: a tiny model that has memorised its answers. It is not Youtu-LLM-2B.",
    )


@pytest.mark.parametrize("model", ["Youtu-LLM-2B", "tencent/Youtu-LLM-2B"])
def test_a_name_and_an_alias_mean_the_same(model: str) -> None:
    source = resolve(model)
    assert (source.kind, source.model_id, source.repo) == ("hub", "Youtu-LLM-2B", "tencent/Youtu-LLM-2B")


@pytest.mark.parametrize("model", ["demo", "youtu-demo", "repository/build/demo/checkpoint"])
def test_the_demonstration_is_called_so_by_any_name(demo: Path, model: str) -> None:
    """By its path it was `checkpoint` and no demonstration."""
    source = resolve(model)
    assert (source.kind, source.model_id, source.path) == ("folder", "youtu-demo", demo)
    assert source.entry is not None
    assert source.entry.demo


def test_a_clone_without_the_demonstration_is_reported(demo: Path) -> None:
    (demo / "config.json").unlink()
    with pytest.raises(BuildError, match="this copy of the repository is incomplete"):
        resolve("demo")


@pytest.mark.parametrize(
    "model", ["org/shop-model", "./org/shop-model", "org/shop-model/", "{here}/org/shop-model"]
)
def test_a_folder_is_a_folder_however_written(here: Path, folder: Path, model: str) -> None:
    assert resolve(model.format(here=here)) == Source("folder", "shop-model", path=folder)


def test_a_gguf_file(here: Path) -> None:
    (here / "shop.Q8_0.gguf").write_bytes(b"GGUF")
    assert resolve("shop.Q8_0.gguf") == Source("gguf", "shop.Q8_0", path=here / "shop.Q8_0.gguf")


def test_any_id_on_the_hub() -> None:
    assert resolve("someone/Youtu-tuned_1.5") == Source(
        "hub", "Youtu-tuned_1.5", repo="someone/Youtu-tuned_1.5"
    )


def test_home_is_understood(folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert resolve("~/org/shop-model").path == folder


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("", "MODEL is empty"),
        (
            "dmeo",
            "unknown MODEL=dmeo: expected one of demo, youtu-demo, tencent/Youtu-LLM-2B, Youtu-LLM-2B",
        ),
        ("a/b c", "unknown MODEL=a/b c"),
        ("../x/y", r"MODEL=\.\./x/y: no such file or folder \(/"),
        ("/no/where", "MODEL=/no/where: no such file or folder"),
        ("a/b/c", "MODEL=a/b/c: no such file or folder"),
        ("model.gguf", "MODEL=model.gguf: no such file or folder"),
        ("~/nowhere", "MODEL=~/nowhere: no such file or folder"),
        ("empty", r"MODEL=empty is a folder without config\.json, so it is not a checkpoint$"),
        (
            "ggufs",
            r"MODEL=ggufs is a folder without config\.json.*; for its \.gguf file write MODEL=ggufs/a\.gguf",
        ),
        ("w.safetensors", r"is neither a folder nor a \.gguf file: give its folder instead"),
        ("notes.txt", r"MODEL=notes\.txt is neither a folder nor a \.gguf file$"),
    ],
)
def test_what_means_nothing_gets_one_sentence(here: Path, model: str, sentence: str) -> None:
    (here / "empty").mkdir()
    (here / "ggufs").mkdir()
    for name in ("ggufs/a.gguf", "w.safetensors", "notes.txt"):
        (here / name).touch()
    with pytest.raises(BuildError, match=sentence) as caught:
        resolve(model)
    assert "\n" not in str(caught.value)


def test_a_folder_with_the_name_of_a_published_model_is_ambiguous(here: Path) -> None:
    (here / "tencent" / "Youtu-LLM-2B").mkdir(parents=True)
    with pytest.raises(
        BuildError, match=r"MODEL=Youtu-LLM-2B for the hub, MODEL=\./tencent/Youtu-LLM-2B for the"
    ):
        resolve("tencent/Youtu-LLM-2B")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name = "a"', "model a needs exactly one of repo, checkpoint and package"),
        ('name = "a"\npackage = "b"', "model a: package and gguf require each other"),
        ('name = "a"\nrepo = "b/c"\ncolour = "red"', "model a: unknown key colour"),
        ('name = "a"\nrepo = "b/c"', "model a: .*missing"),
    ],
)
def test_a_wrong_entry_is_named(here: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: str) -> None:
    (here / "catalogue.toml").write_text(f"[[model]]\n{text}\n")
    monkeypatch.setattr(catalogue_module, "CATALOGUE", here / "catalogue.toml")
    with pytest.raises(ValueError, match=fault):
        catalogue.__wrapped__()


def test_two_entries_cannot_share_a_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "build" / "catalogue.toml").read_text()
    (here / "catalogue.toml").write_text(text.replace('aliases = ["demo"]', 'aliases = ["Youtu-LLM-2B"]'))
    monkeypatch.setattr(catalogue_module, "CATALOGUE", here / "catalogue.toml")
    with pytest.raises(ValueError, match="Youtu-LLM-2B is also the name of another model"):
        catalogue.__wrapped__()


def test_a_snapshot_in_the_hub_s_cache_is_called_after_its_model(tmp_path: Path) -> None:
    """And not after the commit, or, of a GGUF file there, after the checksum that its link leads to."""
    cache = tmp_path / "models--shop--shop-model"
    snapshot = cache / "snapshots" / "0123abcd"
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert resolve(str(snapshot)) == Source("folder", "shop-model", path=snapshot)
    (cache / "blobs" / "77aa").write_bytes(b"GGUF")
    (snapshot / "shop.Q8_0.gguf").symlink_to(cache / "blobs" / "77aa")
    found = resolve(str(snapshot / "shop.Q8_0.gguf"))
    assert found == Source("gguf", "shop.Q8_0", path=cache / "blobs" / "77aa")
