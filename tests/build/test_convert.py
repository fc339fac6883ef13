"""The conversion: what it writes, what it refuses, and that nothing half-written ever has the final name."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as GGML

from build.convert import convert
from build.errors import BuildError
from build.mapping import WeightType
from tests.build import checkpoints
from tests.build.checkpoints import SMALL, edit_json, edit_tensors
from tests.build.llama import Llama

ATTN = "model.layers.1.self_attn"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return checkpoints.write(tmp_path / "checkpoint")


def read(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def field(path: Path, key: str) -> Any:
    found = gguf.GGUFReader(path).get_field(key)
    return None if found is None else found.contents()


def expected(tensors: checkpoints.Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """Layer 1 of the GGUF as f32 arrays, derived here by hand from the checkpoint's layer 1."""
    nope, v = SMALL.qk_nope_head_dim, SMALL.v_head_dim
    hf = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    kv_b = hf[f"{ATTN}.kv_b_proj.weight"].reshape(SMALL.num_attention_heads, nope + v, SMALL.kv_lora_rank)
    return {
        "token_embd.weight": hf["model.embed_tokens.weight"],
        "output_norm.weight": hf["model.norm.weight"],
        "blk.1.attn_norm.weight": hf["model.layers.1.input_layernorm.weight"],
        "blk.1.ffn_norm.weight": hf["model.layers.1.post_attention_layernorm.weight"],
        "blk.1.attn_q_a.weight": hf[f"{ATTN}.q_a_proj.weight"],
        "blk.1.attn_q_a_norm.weight": hf[f"{ATTN}.q_a_layernorm.weight"],
        "blk.1.attn_q_b.weight": hf[f"{ATTN}.q_b_proj.weight"],
        "blk.1.attn_kv_a_mqa.weight": hf[f"{ATTN}.kv_a_proj_with_mqa.weight"],
        "blk.1.attn_kv_a_norm.weight": hf[f"{ATTN}.kv_a_layernorm.weight"],
        "blk.1.attn_k_b.weight": kv_b[:, :nope].transpose(0, 2, 1),
        "blk.1.attn_v_b.weight": kv_b[:, nope:],
        "blk.1.attn_output.weight": hf[f"{ATTN}.o_proj.weight"],
        "blk.1.ffn_gate.weight": hf["model.layers.1.mlp.gate_proj.weight"],
        "blk.1.ffn_up.weight": hf["model.layers.1.mlp.up_proj.weight"],
        "blk.1.ffn_down.weight": hf["model.layers.1.mlp.down_proj.weight"],
    }


@pytest.mark.parametrize("weights", ["q8_0", "f16", "bf16", "f32"])
def test_every_weight_arrives_exactly(checkpoint: Path, tmp_path: Path, weights: WeightType) -> None:
    """Equal to the bit in f32, bf16 and (weights this small) f16; in q8_0 equal to gguf's quantisation."""
    convert(checkpoint, tmp_path / "model.gguf", weights=weights)
    written = read(tmp_path / "model.gguf")
    wanted = expected(checkpoints.load(checkpoint))
    assert set(wanted) == {name for name in written if not name.startswith("blk.0.")}
    for name, values in wanted.items():
        kind = GGML.F32 if values.ndim == 1 else GGML[weights.upper()]
        assert written[name].tensor_type == kind, name
        values = np.ascontiguousarray(values)
        if kind in (GGML.Q8_0, GGML.F16):
            values = gguf.dequantize(gguf.quantize(values, kind), kind)
        np.testing.assert_array_equal(
            gguf.dequantize(written[name].data, kind).reshape(values.shape), values, name
        )


def test_q8_0_is_within_half_a_step_of_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "model.gguf")
    written = read(tmp_path / "model.gguf")
    for name, values in expected(checkpoints.load(checkpoint)).items():
        if values.ndim == 1:
            continue
        blocks = np.ascontiguousarray(values).reshape(-1, 32)
        found = gguf.dequantize(written[name].data, GGML.Q8_0).reshape(-1, 32)
        step = np.abs(blocks).max(axis=1, keepdims=True) / 127
        assert (np.abs(found - blocks) <= step * 0.57).all(), name  # the step itself is rounded to f16


def test_metadata(checkpoint: Path, tmp_path: Path) -> None:
    result = convert(checkpoint, tmp_path / "model.gguf")
    wanted = {
        "general.architecture": "deepseek2",
        "general.name": "checkpoint",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "deepseek2.block_count": 2,
        "deepseek2.leading_dense_block_count": 2,
        "deepseek2.context_length": 2048,
        "deepseek2.vocab_size": 640,
        "deepseek2.attention.head_count": 4,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.q_lora_rank": 64,
        "deepseek2.attention.kv_lora_rank": 64,
        "deepseek2.attention.key_length": 80,
        "deepseek2.attention.value_length": 64,
        "deepseek2.attention.key_length_mla": 48,
        "deepseek2.attention.value_length_mla": 32,
        "deepseek2.rope.dimension_count": 16,
        "deepseek2.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "youtu",
        "tokenizer.ggml.bos_token_id": 384,
        "tokenizer.ggml.eos_token_id": 385,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {key: field(tmp_path / "model.gguf", key) for key in wanted} == wanted
    assert (
        field(tmp_path / "model.gguf", "tokenizer.chat_template")
        == (checkpoint / "chat_template.jinja").read_text()
    )
    assert result.parameters == sum(tensor.numel() for tensor in checkpoints.load(checkpoint).values())
    assert result.file_bytes == (tmp_path / "model.gguf").stat().st_size
    assert result.notes == ()


def test_one_file_and_shards_give_the_same_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("build.random_checkpoint.SHARD_BYTES", 200_000)
    folder = checkpoints.write(tmp_path / "checkpoint")
    assert len(list(folder.glob("*.safetensors"))) > 3
    convert(folder, tmp_path / "sharded.gguf")
    edit_tensors(folder, lambda tensors: None)
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    convert(folder, tmp_path / "single.gguf")
    assert (tmp_path / "single.gguf").read_bytes() == (tmp_path / "sharded.gguf").read_bytes()


def test_the_three_types_may_be_mixed(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "bf16.gguf", weights="f32")

    def mix(tensors: checkpoints.Tensors) -> None:
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].float()
        tensors["model.norm.weight"] = tensors["model.norm.weight"].half()

    edit_tensors(checkpoint, mix)
    convert(checkpoint, tmp_path / "mixed.gguf", weights="f32")
    assert (tmp_path / "bf16.gguf").read_bytes() == (tmp_path / "mixed.gguf").read_bytes()


def test_a_tied_checkpoint_may_repeat_its_head(checkpoint: Path, tmp_path: Path) -> None:
    def repeat(tensors: checkpoints.Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    edit_tensors(checkpoint, repeat)
    convert(checkpoint, tmp_path / "model.gguf")
    assert "output.weight" not in read(tmp_path / "model.gguf")


def test_rows_that_are_no_whole_blocks_stay_f16_and_load(tmp_path: Path) -> None:
    shape = replace(SMALL, qk_nope_head_dim=24, kv_lora_rank=40)
    folder = checkpoints.write(tmp_path / "checkpoint", shape)
    result = convert(folder, tmp_path / "model.gguf")
    kinds = {name: tensor.tensor_type for name, tensor in read(tmp_path / "model.gguf").items()}
    assert kinds["blk.0.attn_k_b.weight"] == GGML.F16
    assert kinds["blk.0.attn_v_b.weight"] == GGML.F16
    assert kinds["blk.0.attn_q_b.weight"] == GGML.Q8_0
    assert [note for note in result.notes if "4 tensors are f16" in note and "blk.0.attn_k_b" in note]
    model = Llama(tmp_path / "model.gguf")
    assert np.isfinite(model.log_probs([1, 2, 3])).all()
    model.close()


def test_without_a_tokenizer_llama_cpp_still_runs_it(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    result = convert(checkpoint, tmp_path / "model.gguf")
    assert result.tokenizer is None
    assert any("no tokenizer" in note for note in result.notes)
    model = Llama(tmp_path / "model.gguf")
    assert model.vocab_size == 640
    assert np.isfinite(model.log_probs([1, 2, 3])).all()
    model.close()


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(architectures=["LlamaForCausalLM"]),
            "architectures must be .*YoutuForCausalLM.*Llama",
        ),
        (lambda c: c.pop("architectures"), "architectures must be .* found None"),
        (lambda c: c.pop("kv_lora_rank"), "key kv_lora_rank is missing"),
        (lambda c: c.pop("q_lora_rank"), "key q_lora_rank is missing"),
        (lambda c: c.update(vocab_size="640"), "vocab_size must be a whole number.*'640'"),
        (lambda c: c.update(num_hidden_layers=True), "num_hidden_layers must be a whole number.*True"),
        (lambda c: c.update(attention_bias=True), "attention_bias must be false, found true"),
        (lambda c: c.update(hidden_act="gelu"), 'hidden_act must be "silu", found "gelu"'),
        (lambda c: c.update(num_key_value_heads=2), "num_key_value_heads must be 4, found 2"),
        (lambda c: c.update(quantization_config={"quant_method": "fp8"}), "quantization_config must be null"),
        (lambda c: c.update(rms_norm_eps=0), "rms_norm_eps must be .* found 0"),
        (lambda c: c.update(qk_rope_head_dim=15), "qk_rope_head_dim must be even, found 15"),
        (lambda c: c.update(rope_interleave="no"), "rope_interleave must be true or false, found 'no'"),
        (lambda c: c.update(rope_parameters=None), "rope_theta is missing"),
        (
            lambda c: c.update(rope_parameters={"rope_theta": "big"}),
            "rope_theta must be a number above 0, found 'big'",
        ),
        (lambda c: c.update(rope_parameters=[1]), "rope_parameters must be an object"),
        (
            lambda c: c.update(rope_scaling={"type": "yarn", "factor": 40}),
            "rope_scaling .*'yarn' with factor 40",
        ),
        (lambda c: c.update(rope_scaling={"type": "linear", "factor": 1.0}), "rope_scaling .*'linear'"),
        (lambda c: c["rope_parameters"].update(rope_type="llama3", factor=8), "rope_parameters .*'llama3'"),
        (lambda c: c["rope_parameters"].update(partial_rotary_factor=0.5), "partial_rotary_factor must be 1"),
        (lambda c: c.update(num_hidden_layers=26), "num_hidden_layers 26 with q_lora_rank 64"),
        (
            lambda c: c.update(num_hidden_layers=48, vocab_size=128256),
            "num_hidden_layers 48 with q_lora_rank 64",
        ),
        (
            lambda c: c.update(hidden_size=256),
            r"embed_tokens.weight must have shape \[640, 256\], found \[640, 128\]",
        ),
        (lambda c: c.update(num_hidden_layers=3), "model.layers.2.input_layernorm.weight .* is missing"),
        (lambda c: c.update(num_hidden_layers=1), "model.layers.1.* belongs to no YoutuForCausalLM"),
        (lambda c: c.update(tie_word_embeddings=False), r"lm_head.weight of shape \[640, 128\] is missing"),
        (lambda c: c.update(eos_token_id=9999), "eos_token_id 9999 is not an id below 640"),
    ],
)
def test_a_wrong_config_is_refused_by_key(
    checkpoint: Path, tmp_path: Path, change: Change, message: str
) -> None:
    edit_json(checkpoint / "config.json", change)
    with pytest.raises(BuildError, match=message):
        convert(checkpoint, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(rope_scaling={"type": "yarn", "factor": 1.0, "mscale_all_dim": 0}),
        lambda c: c["rope_parameters"].update(rope_type="yarn", factor=1),
        lambda c: c.update(rope_parameters=None, rope_theta=10000, rope_scaling=None),
    ],
)
def test_spellings_of_a_plain_rope_are_the_same(checkpoint: Path, tmp_path: Path, change: Change) -> None:
    convert(checkpoint, tmp_path / "plain.gguf")
    edit_json(checkpoint / "config.json", change)
    convert(checkpoint, tmp_path / "respelled.gguf")
    assert (tmp_path / "plain.gguf").read_bytes() == (tmp_path / "respelled.gguf").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "is missing"), ("{", "cannot be read as JSON"), ("[]", "JSON object, found a list")],
)
def test_an_unreadable_config_is_refused(
    checkpoint: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    (checkpoint / "config.json").unlink()
    if text is not None:
        (checkpoint / "config.json").write_text(text)
    with pytest.raises(BuildError, match=f"config.json .*{message}"):
        convert(checkpoint, tmp_path / "model.gguf")


def spoil(name: str, value: float) -> Callable[[checkpoints.Tensors], object]:
    return lambda tensors: tensors[name].view(-1).__setitem__(130, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{ATTN}.o_proj.weight"), rf"{ATTN}.o_proj.weight of shape \[128, 128\] is missing"),
        (
            lambda t: t.update(bias=torch.zeros(3)),
            r"tensor bias of shape \[3\] belongs to no YoutuForCausalLM",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(64)}),
            r"norm.weight must have shape \[128\], found \[64\]",
        ),
        (
            lambda t: t.update({f"{ATTN}.o_proj.weight": torch.zeros(128, 128, dtype=torch.int8)}),
            f"{ATTN}.o_proj.weight must be one of F32, F16, BF16, found I8",
        ),
        (
            spoil(f"{ATTN}.kv_b_proj.weight", float("nan")),
            f"{ATTN}.kv_b_proj.weight contains nan at row 2, column 2",
        ),
        (
            spoil("model.layers.0.mlp.up_proj.weight", float("-inf")),
            "mlp.up_proj.weight contains -inf at row 1, column 2",
        ),
        (
            spoil(f"{ATTN}.kv_a_proj_with_mqa.weight", float("inf")),
            "kv_a_proj_with_mqa.weight contains inf at row 1",
        ),
    ],
)
def test_a_wrong_tensor_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, change: Callable[[checkpoints.Tensors], object], message: str
) -> None:
    edit_tensors(checkpoint, change)
    with pytest.raises(BuildError, match=message):
        convert(checkpoint, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_weight_too_large_for_f16_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    edit_tensors(checkpoint, spoil(f"{ATTN}.o_proj.weight", 70000.0))
    with pytest.raises(BuildError, match=r"blk.1.attn_output.weight contains 70144, which exceeds f16"):
        convert(checkpoint, tmp_path / "model.gguf", weights="f16")


def test_files_that_are_not_whole_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    edit_tensors(checkpoint, lambda tensors: None)
    path = checkpoint / "model.safetensors"
    whole = path.read_bytes()
    for content, message in [
        (whole[:-1], "is truncated: tensor .* ends at byte"),
        (whole[:1000], "is incomplete: its safetensors header"),
        (b"", "is incomplete"),
        (b"\x04" + bytes(7) + b"oops" + bytes(100), "has no readable safetensors header"),
        (b"\x02" + bytes(7) + b"[]" + bytes(100), "has no readable safetensors header"),
    ]:
        path.write_bytes(content)
        with pytest.raises(BuildError, match=message):
            convert(checkpoint, tmp_path / "model.gguf")
    path.unlink()
    with pytest.raises(BuildError, match=r"has neither model.safetensors nor model.safetensors.index.json"):
        convert(checkpoint, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update({"model.norm.weight": "other.safetensors"}), "other.safetensors is missing"),
        (
            lambda m: m.update({"model.norm.weight": "../a.safetensors"}),
            "must be a file name in the same folder",
        ),
        (lambda m: m.update(ghost=m["model.norm.weight"]), "tensor ghost should be in .* but is not"),
        (lambda m: m.clear(), "weight_map must be a non-empty object"),
    ],
)
def test_a_wrong_shard_index_is_refused(
    checkpoint: Path, tmp_path: Path, change: Change, message: str
) -> None:
    edit_json(checkpoint / "model.safetensors.index.json", lambda value: change(value["weight_map"]))
    with pytest.raises(BuildError, match=message):
        convert(checkpoint, tmp_path / "model.gguf")


def test_a_full_disk_is_seen_before_the_start(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30, 50_000_000))
    with pytest.raises(BuildError, match=r"has 0.05 GB free, model.gguf needs 0.07 GB"):
        convert(checkpoint, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_two_conversions_of_one_file_do_not_meet(checkpoint: Path, tmp_path: Path) -> None:
    with (tmp_path / ".model.gguf.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BuildError, match="another process is writing"):
            convert(checkpoint, tmp_path / "model.gguf")
    convert(checkpoint, tmp_path / "model.gguf")


def test_a_killed_conversion_leaves_no_file_under_the_final_name(checkpoint: Path, tmp_path: Path) -> None:
    """kill -9 in the middle: the final name does not exist, and the next run cleans up and is whole."""
    output, part = tmp_path / "out" / "model.gguf", tmp_path / "out" / ".model.gguf.part"
    code = (
        "import os, signal; from pathlib import Path; from build.convert import convert\n"
        "def die(done, total):\n"
        "    if 2 * done > total: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"convert(Path({str(checkpoint)!r}), Path({str(output)!r}), weights='f32', progress=die)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert [path.name for path in output.parent.iterdir()] == [part.name]
    convert(checkpoint, output)
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert read(output)["token_embd.weight"].tensor_type == GGML.Q8_0


PEAK = """
import json, sys
from pathlib import Path
from build.convert import convert

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]), weights=sys.argv[3])
print(json.dumps([before, peak()]))
"""


@pytest.mark.parametrize("weights", ["q8_0", "f32"])
def test_memory_does_not_grow_with_the_model(tmp_path: Path, weights: str) -> None:
    """A 265 MB checkpoint adds less than 120 MB to the process: the whole is never in memory."""
    shape = replace(SMALL, vocab_size=128_256, hidden_size=1024, num_hidden_layers=1)
    folder = checkpoints.write(tmp_path / "checkpoint", shape)
    command = [sys.executable, "-c", PEAK, str(folder), str(tmp_path / "model.gguf"), weights]
    answer = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}
    )
    before, after = json.loads(answer.stdout)
    assert after - before < 120


def test_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build.convert", str(checkpoint), str(tmp_path / "model.gguf")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "model.gguf: Q8_0, 406,400 parameters" in done.stdout
    (checkpoint / "config.json").unlink()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: {checkpoint / 'config.json'} is missing\n"


def test_neither_torch_nor_transformers_is_imported() -> None:
    """The building path must run where only the serving dependencies are installed."""
    code = (
        "import sys, build.convert, build.random_checkpoint\n"
        "assert not {'torch', 'transformers', 'xllamacpp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
