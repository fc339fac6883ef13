"""The random checkpoint of the true shape: its size, its repeatability, and that it behaves like a model."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, YoutuConfig, YoutuForCausalLM

from build.config import read_shape
from build.convert import convert
from build.errors import BuildError
from build.random_checkpoint import TINY, YOUTU_2B, write_random_checkpoint
from tests.build import checkpoints
from tests.build.llama import Llama


def test_the_2b_shape_is_the_published_one() -> None:
    """transformers.YoutuConfig() is Youtu-LLM-2B, except for the rope base, which is 1,600,000."""
    config = YoutuConfig()
    for name in YOUTU_2B.__dataclass_fields__:
        if name != "rope_theta":
            assert getattr(YOUTU_2B, name) == getattr(config, name), name
    assert YOUTU_2B.rope_theta == 1_600_000
    assert sum(math.prod(dims) for dims in YOUTU_2B.tensors().values()) == 1_961_560_064


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    one, same, other = (checkpoints.write(tmp_path / str(n), seed=seed) for n, seed in enumerate((1, 1, 2)))
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in same.iterdir())
    assert all((one / name).read_bytes() == (same / name).read_bytes() for name in names)
    shard = "model-00001-of-00001.safetensors"
    assert (one / shard).read_bytes() != (other / shard).read_bytes()


def test_transformers_reads_it_and_llama_cpp_runs_it(tmp_path: Path) -> None:
    """The distribution is neither flat nor a spike, so that a benchmark meets a usual sampling problem."""
    folder = checkpoints.write(tmp_path / "checkpoint", TINY)
    assert read_shape(folder) == TINY
    loaded: Any = YoutuForCausalLM.from_pretrained(folder, output_loading_info=True)
    info = loaded[1]
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    convert(folder, tmp_path / "model.gguf")
    llama = Llama(tmp_path / "model.gguf")
    tokens = np.random.default_rng(0).integers(0, 1024, 64).tolist()
    log_probs = llama.log_probs(tokens)
    llama.close()
    entropy = -(np.exp(log_probs) * log_probs).sum(axis=1).mean()
    assert 2 < entropy < math.log(1024) - 0.3


def test_weights_have_the_deviation_of_transformers(tmp_path: Path) -> None:
    tensors = checkpoints.load(checkpoints.write(tmp_path / "checkpoint", TINY))
    deviation = 2 / math.sqrt(5 * 128)
    assert tensors["model.layers.0.mlp.up_proj.weight"].float().std() == pytest.approx(deviation, rel=0.03)
    assert tensors["model.embed_tokens.weight"].float().std() == pytest.approx(2 * deviation, rel=0.03)
    assert (tensors["model.norm.weight"] == 1).all()


def test_every_id_decodes_to_something(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", TINY)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 1024
    for token in range(1024):
        assert tokenizer.decode([token], skip_special_tokens=False), token
    assert tokenizer.decode([256, 700, 768], skip_special_tokens=False) == "<256><700><|begin_of_text|>"


def test_the_chat_template_uses_special_tokens_only_once(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", TINY)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|begin_of_text|><|user|>hi<|end_of_turn|><|assistant|>"
    assert tokenizer.encode(text, add_special_tokens=False) == [768, 771, ord("h"), ord("i"), 773, 772]


def test_a_folder_in_use_and_a_full_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint")
    with pytest.raises(BuildError, match="already contains a checkpoint"):
        write_random_checkpoint(folder, TINY)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12, 10**9))
    with pytest.raises(BuildError, match=r"has 1.00 GB free, the checkpoint needs 3.92 GB"):
        write_random_checkpoint(tmp_path / "large", YOUTU_2B)


def test_the_command_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build.random_checkpoint",
        str(tmp_path / "out"),
        "--shape",
        "tiny",
        "--seed",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'out'}\n", "")
    assert read_shape(tmp_path / "out") == TINY
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith(f"error: {tmp_path / 'out'} already contains a checkpoint")
