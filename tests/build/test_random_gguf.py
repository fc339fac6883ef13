"""Random weights in the engine's own format: shapes as published, and llama.cpp runs each architecture."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from build.errors import BuildError
from build.mapping import dimensions
from build.random_checkpoint import YOUTU_2B
from build.random_gguf import SHAPES, parameters, write_random_gguf
from tests.build.llama import Llama


@pytest.mark.parametrize(
    ("shape", "published"),
    # the counts that the models' own pages state, to the digits they give
    [("youtu-2b", 1.96e9), ("qwen1.5-1.8b", 1.84e9), ("chatglm3-6b", 6.24e9), ("baichuan-13b", 13.26e9)],
)
def test_the_shapes_have_as_many_weights_as_published(shape: str, published: float) -> None:
    assert parameters(SHAPES[shape]) == pytest.approx(published, rel=2e-3)


@pytest.mark.parametrize("weights", ["q8_0", "q4_0", "f16"])
@pytest.mark.parametrize("shape", [name for name in SHAPES if name.startswith("tiny-")])
def test_llama_cpp_runs_it(tmp_path: Path, shape: str, weights: str) -> None:
    """The distribution is neither flat nor a spike, so that a benchmark meets a usual sampling problem."""
    path = tmp_path / "model.gguf"
    write_random_gguf(path, SHAPES[shape], shape, weights=weights)
    kinds = {t.tensor_type.name for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1}
    assert kinds == {weights.upper()}
    llama = Llama(path)
    log_probs = llama.log_probs(np.random.default_rng(0).integers(0, 256, 32).tolist())
    llama.close()
    assert np.isfinite(log_probs).all()
    entropy = -(np.exp(log_probs) * log_probs).sum(axis=1).mean()
    assert 2 < entropy < math.log(SHAPES[shape].vocab_size) - 0.2


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        write_random_gguf(tmp_path / name, SHAPES["tiny-qwen"], "tiny", seed=seed)
    one, same, other = ((tmp_path / name).read_bytes() for name in ("one", "same", "other"))
    assert one == same != other


def test_the_weights_have_their_deviation(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_random_gguf(path, SHAPES["tiny-qwen"], "tiny")
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for name in ("blk.0.ffn_up.weight", "output.weight"):
        values = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
        assert values.std() == pytest.approx(2 / math.sqrt(5 * 64), rel=0.03)
        assert len(np.unique(values, axis=0)) == len(values)  # no two rows alike
    assert (tensors["output_norm.weight"].data == 1).all()


def test_the_dimensions_of_a_youtu_gguf_count_every_weight() -> None:
    assert sum(math.prod(dims) for dims in dimensions(YOUTU_2B).values()) == parameters(YOUTU_2B)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"weights must be one of q8_0, q4_0, f16, found 'q2_k'"):
        write_random_gguf(tmp_path / "a.gguf", SHAPES["tiny-qwen"], "tiny", weights="q2_k")
    (tmp_path / "file").write_text("")
    with pytest.raises((BuildError, OSError)):
        write_random_gguf(tmp_path / "file" / "a.gguf", SHAPES["tiny-qwen"], "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_seen_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30, 50_000_000))
    with pytest.raises(BuildError, match=r"has 0.05 GB free, a.gguf needs 0.07 GB"):
        write_random_gguf(tmp_path / "a.gguf", SHAPES["tiny-qwen"], "tiny")
    assert list(tmp_path.iterdir()) == []
