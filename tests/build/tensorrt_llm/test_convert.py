"""The checkpoint that trtllm-build reads: its folder, its numbers, when it is made again, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from build.errors import BuildError
from build.random_checkpoint import TINY, YOUTU_2B
from build.tensorrt_llm.checkpoint_config import checkpoint_config
from build.tensorrt_llm.convert import complete, convert
from tests.build.checkpoints import SMALL, edit_json, edit_tensors, load, write
from tests.build.texts import texts

DEMO = Path(__file__).parents[3] / "build" / "demo" / "checkpoint"
BASE = replace(
    SMALL, qk_nope_head_dim=32, qk_rope_head_dim=16
)  # heads of 48, as the attention plugin has them


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "hf", BASE)


def test_the_folder_is_what_trtllm_build_wants(source: Path, tmp_path: Path) -> None:
    info = convert(source, tmp_path / "ckpt", max_positions=512)
    names = {str(path.relative_to(info.path)) for path in info.path.rglob("*") if path.is_file()}
    assert names == {
        "checkpoint.json",
        "config.json",
        "rank0.safetensors",
        "tokenizer/chat_template.jinja",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }
    assert [path.name for path in tmp_path.iterdir() if "building" in path.name or "old" in path.name] == []
    weights = (info.path / "rank0.safetensors").read_bytes()
    assert info.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert info.weights_bytes == len(weights)
    assert info.parameters == sum(tensor.numel() for tensor in load(source).values())
    assert complete(info.path) == info


def test_every_value_of_the_original_is_there_once(source: Path, tmp_path: Path) -> None:
    """bf16 stays bf16 to the bit, only in another order: compared as sorted rows of each layer."""
    convert(source, tmp_path / "ckpt", max_positions=512)
    ours, theirs = load_file(tmp_path / "ckpt" / "rank0.safetensors"), load(source)
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert sum(t.numel() for t in ours.values()) == sum(t.numel() for t in theirs.values())
    for n in range(BASE.num_hidden_layers):
        to, layer = f"transformer.layers.{n}.attention", f"model.layers.{n}.self_attn"
        for name in ("q_b_proj", "kv_b_proj"):
            rows = [
                sorted(map(tuple, t.tolist()))
                for t in (ours[f"{to}.{name}.weight"], theirs[f"{layer}.{name}.weight"])
            ]
            assert rows[0] == rows[1]
        stacked = torch.cat(
            [theirs[f"{layer}.q_a_proj.weight"], theirs[f"{layer}.kv_a_proj_with_mqa.weight"]]
        )
        assert torch.equal(ours[f"{to}.fused_a_proj.weight"], stacked)


def test_f16_and_f32_originals_are_rounded_as_torch_does(source: Path, tmp_path: Path) -> None:
    def to_f32(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].float() * 1.0001

    edit_tensors(source, to_f32)
    expected = load(source)["model.embed_tokens.weight"]
    for dtype, kind in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        convert(source, tmp_path / dtype, dtype=dtype, max_positions=512)  # type: ignore[arg-type]
        found = load_file(tmp_path / dtype / "rank0.safetensors")["transformer.vocab_embedding.weight"]
        assert torch.equal(found, expected.to(kind))


def test_what_does_not_fit_f16_is_refused(source: Path, tmp_path: Path) -> None:
    edit_tensors(source, lambda tensors: tensors["model.norm.weight"].fill_(1e5))
    with pytest.raises(
        BuildError, match=r"transformer.ln_f.weight holds .* does not fit float16: use bfloat16"
    ):
        convert(source, tmp_path / "ckpt", dtype="float16", max_positions=512)
    assert not (tmp_path / "ckpt").exists()
    assert not list(tmp_path.glob(".ckpt.building"))


def test_a_whole_checkpoint_is_not_made_again(source: Path, tmp_path: Path) -> None:
    first = convert(source, tmp_path / "ckpt", max_positions=512)
    written = (first.path / "rank0.safetensors").stat().st_mtime_ns
    assert convert(source, tmp_path / "ckpt", max_positions=512) == first
    assert (first.path / "rank0.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "change", ["options", "source", "weights cut short", "no config", "scales", "format"]
)
def test_anything_else_is_made_again(source: Path, tmp_path: Path, change: str) -> None:
    first = convert(source, tmp_path / "ckpt", max_positions=512)
    weights = first.path / "rank0.safetensors"
    written, positions, scales = weights.stat().st_mtime_ns, 512, None
    if change == "options":
        positions = 256
    elif change == "source":
        os.utime(source / "config.json")
    elif change == "weights cut short":
        os.truncate(weights, first.weights_bytes - 1)
    elif change == "no config":
        (first.path / "config.json").unlink()
    elif change == "format":
        edit_json(first.path / "checkpoint.json", lambda record: record.update(format=0))
    else:
        scales = [0.5] * BASE.num_hidden_layers
    again = convert(source, tmp_path / "ckpt", max_positions=positions, kv_scales=scales)
    assert weights.stat().st_mtime_ns != written
    assert complete(again.path) == again
    assert again.max_positions == positions


def test_an_interrupted_run_leaves_nothing_that_looks_whole(source: Path, tmp_path: Path) -> None:
    """Guards against a folder under its final name before its last byte is written."""

    def stop(step: str, done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "ckpt", max_positions=512, progress=stop)
    assert not (tmp_path / "ckpt").exists()
    assert complete(tmp_path / "ckpt") is None
    (tmp_path / ".ckpt.building").mkdir()  # as after kill -9
    (tmp_path / ".ckpt.building" / "rank0.safetensors").write_bytes(b"half")
    assert complete(convert(source, tmp_path / "ckpt", max_positions=512).path) is not None


def test_a_folder_that_is_something_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    """Guards against a slip of the hand that would cost a home directory."""
    target = tmp_path / "mine"
    target.mkdir()
    (target / "letter.txt").write_text("dear")
    with pytest.raises(BuildError, match="mine exists and was not created by this command"):
        convert(source, target, max_positions=512)
    assert [path.name for path in target.iterdir()] == ["letter.txt"]


def test_by_default_it_is_made_for_4096_tokens_or_what_the_model_knows(source: Path, tmp_path: Path) -> None:
    assert convert(source, tmp_path / "short").max_positions == TINY.max_position_embeddings == 2048
    edit_json(source / "config.json", lambda config: config.update(max_position_embeddings=131072))
    assert convert(source, tmp_path / "long").max_positions == 4096


def test_the_published_shape_has_the_published_config() -> None:
    """Section 5.3 of the specification, number by number."""
    config = checkpoint_config(
        YOUTU_2B, dtype="bfloat16", max_positions=4096, int8_weights=True, int8_kv=False
    )
    assert config == {
        "architecture": "YoutuForCausalLM", "dtype": "bfloat16", "logits_dtype": "float32",
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 32, "num_attention_heads": 16, "num_key_value_heads": 16, "head_size": 192,
        "hidden_act": "silu", "norm_epsilon": 1e-6, "position_embedding_type": "rope_gptj",
        "max_position_embeddings": 4096, "rotary_base": 1600000.0, "rotary_dim": 64, "qk_layernorm": False,
        "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "use_parallel_embedding": False,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        "quantization": {"quant_algo": "W8A16", "kv_cache_quant_algo": None},
    }  # fmt: skip


def test_what_int8_cannot_take_stays_in_16_bits(checkpoint: Path, tmp_path: Path) -> None:
    """The tiny checkpoint's fused_a_proj has 144 rows, no multiple of 64."""
    convert(checkpoint, tmp_path / "ckpt", max_positions=2048)
    config = json.loads((tmp_path / "ckpt" / "config.json").read_text())
    excluded = config["quantization"]["exclude_modules"]
    assert [name for name in excluded if "proj" in name] == [
        "*attention.fused_a_proj",
        "*attention.fused_a_proj.weight",
    ]
    assert "*lm_head" in excluded


def test_int8_kv_cache(source: Path, tmp_path: Path) -> None:
    scales = [0.25, 3.5]
    info = convert(source, tmp_path / "ckpt", max_positions=512, kv_scales=scales)
    assert info.kv_scales == scales
    config = json.loads((info.path / "config.json").read_text())
    assert config["quantization"]["kv_cache_quant_algo"] == "INT8"
    tensors = load_file(info.path / "rank0.safetensors")
    for n, scale in enumerate(scales):
        found = tensors[f"transformer.layers.{n}.attention.kv_cache_scaling_factor"]
        assert found.dtype == torch.float32
        assert found.tolist() == [scale]


@pytest.mark.parametrize("scales", [[0.5], [0.5, 0.0], [0.5, float("nan")], [0.5, float("inf")], [-1.0, 1.0]])
def test_scales_that_cannot_be(source: Path, tmp_path: Path, scales: list[float]) -> None:
    with pytest.raises(BuildError, match="kv_scales must be"):
        convert(source, tmp_path / "ckpt", max_positions=512, kv_scales=scales)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("q_lora_rank", None, "q_lora_rank must be a number"),
        ("qk_nope_head_dim", 30, r"qk_nope_head_dim \+ qk_rope_head_dim is 46"),
        ("v_head_dim", 64, "v_head_dim 64 must be at most 48"),
        ("rope_parameters", {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}, "rope type 'yarn'"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope type 'linear'"),
        ("max_position_embeddings", 256, "max_positions must be between 1 and 256, found 512"),
        ("attention_bias", True, "attention_bias must be false"),
    ],
)  # fmt: skip
def test_what_would_be_computed_wrongly_is_refused_by_name(
    source: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    edit_json(source / "config.json", lambda config: config.update({key: value}))
    with pytest.raises(BuildError, match=message):
        convert(source, tmp_path / "ckpt", max_positions=512)
    assert not (tmp_path / "ckpt").exists()


def test_a_neutral_yarn_is_taken(source: Path, tmp_path: Path) -> None:
    """One re-upload of the model carries it."""
    yarn = {"type": "yarn", "factor": 1.0, "mscale_all_dim": 0}
    edit_json(source / "config.json", lambda config: config.update(rope_scaling=yarn))
    convert(source, tmp_path / "ckpt", max_positions=512)
    config = json.loads((tmp_path / "ckpt" / "config.json").read_text())
    assert config["rotary_base"] == TINY.rope_theta
    assert "rotary_scaling" not in config


def test_without_a_tokenizer_no_checkpoint(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()
    with pytest.raises(BuildError, match=r"has no tokenizer\.json"):
        convert(source, tmp_path / "ckpt", max_positions=512)


def test_the_tokenizer_folder_is_clean_and_the_same(tmp_path: Path) -> None:
    """The demonstration's was saved by transformers 5, whose class name 4.57 does not know."""
    convert(DEMO, tmp_path / "ckpt", max_positions=2048)
    folder = tmp_path / "ckpt" / "tokenizer"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not set(config) & {"auto_map", "backend", "chat_template"}
    ours, theirs = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(DEMO)
    for text in texts(200):
        assert ours(text).input_ids == theirs(text).input_ids
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (0, 1, 1)
    messages = [{"role": "user", "content": "怎么退货？"}]
    assert ours.apply_chat_template(messages, tokenize=False) == theirs.apply_chat_template(
        messages, tokenize=False
    )


def test_weights_pass_through_in_pieces(tmp_path: Path) -> None:
    """Guards against reading a whole tensor at once: 160 MB, most of them in one, pass through 100 MB."""
    source = write(tmp_path / "hf", replace(BASE, vocab_size=18_000, hidden_size=4096, num_hidden_layers=1))
    code = (
        "import sys; from pathlib import Path; from build.tensorrt_llm.convert import convert;"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), max_positions=512);"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "ckpt")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (tmp_path / "ckpt" / "rank0.safetensors").stat().st_size > 150e6
    assert int(done.stdout) * 1024 < 100e6  # seen: 78 MB


def test_the_command_line(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build.tensorrt_llm.convert", str(source), str(tmp_path / "ckpt")]
    done = subprocess.run([*command, "--max-positions", "512"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout
    refused = subprocess.run([*command, "--max-positions", "0"], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: max_positions must be between 1 and 2048, found 0")
