"""What can be proven of the GPU engine without a GPU: the checkpoint and the model class compute Youtu.

1. The torch reference, on the converted checkpoint's tensors, gives the logits of transformers.
2. So does youtu_trtllm.py itself, executed on a stand-in of TensorRT-LLM, which loads the checkpoint by name.
Differences are relative to the largest logit of a row; 1e-4 is the bar, what was seen stands at each test.
"""

from __future__ import annotations

import ast
import fnmatch
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from build.checkpoint import StoredTensor, Weights
from build.random_checkpoint import YOUTU_2B
from build.tensorrt_llm.checkpoint_config import checkpoint_config
from build.tensorrt_llm.reference import INT8_NAMES, Reference, int8
from build.tensorrt_llm.tensors import plan
from tests.build.tensorrt_llm import stand_in
from tests.build.tensorrt_llm.models import (
    CASES,
    Case,
    checkpoint_of,
    distance,
    random_tokens,
    wanted_logits,
)
from tests.build.tensorrt_llm.stand_in.functional import gpt_attention
from tests.build.tensorrt_llm.stand_in.layers import ColumnLinear
from tests.build.tensorrt_llm.stand_in.modeling import PretrainedConfig

CLASS_FILE = Path(__file__).parents[3] / "build" / "tensorrt_llm" / "youtu_trtllm.py"
BAR = 1e-4
EVEN = Case(nope=64, rope=64, v=64, hidden=128, heads=2, q_lora_rank=64, kv_lora_rank=64)  # all fits int8


def model_of(config: dict[str, Any]) -> Any:
    """As trtllm-build does it: the class file first, then config.json, whose architecture finds the class."""
    stand_in.load_class_file(CLASS_FILE)
    return stand_in.MODEL_MAP[config["architecture"]](PretrainedConfig(**config))


def loaded(checkpoint: Path, *, int8_weights: bool = False) -> stand_in.Engine:
    """The model class with the checkpoint's tensors in it, ready to run."""
    model = model_of(json.loads((checkpoint / "config.json").read_text()))
    weights = load_file(checkpoint / "rank0.safetensors")
    model.load(weights)
    for name, parameter in model.named_parameters():
        if int8_weights and any(part in name for part in INT8_NAMES):
            parameter.replace(int8(weights[name]))
    return stand_in.Engine(model)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_both_compute_what_transformers_computes(tmp_path: Path, case: Case) -> None:
    """Prefill of 100 tokens, and 24 more one at a time. Seen: at most 1e-6."""
    model = case.model()
    checkpoint = checkpoint_of(model, tmp_path)
    tokens = random_tokens(124)
    wanted = wanted_logits(model, tokens)
    assert len(set(wanted.argmax(-1).tolist())) > 12, "always the same token would prove little"

    reference, engine = Reference(checkpoint), loaded(checkpoint)
    rows, past = reference.logits(tokens[:100])
    (engine_rows,) = engine.step([(0, tokens[:100])])
    by_reference, by_engine = [rows], [engine_rows]
    for token in tokens[100:]:
        rows, past = reference.logits([token], past)
        by_reference.append(rows)
        by_engine += engine.step([(0, [token])])
    assert distance(torch.cat(by_reference), wanted) < BAR
    assert distance(torch.cat(by_engine), wanted) < BAR


def test_requests_in_one_batch_do_not_see_each_other(tmp_path: Path) -> None:
    """Inflight batching: one request's prompt beside the single tokens of two others, in one packed step."""
    model = Case().model()
    engine = loaded(checkpoint_of(model, tmp_path))
    texts = {request: random_tokens(30 + 7 * request, seed=request) for request in range(3)}
    found: dict[int, list[torch.Tensor]] = {request: [] for request in texts}
    for request in (0, 1):
        found[request] += engine.step([(request, texts[request][:20])])
    for step in range(10):
        batch = [(request, [texts[request][20 + step]]) for request in (1, 0)]
        if step == 4:
            batch = [(2, texts[2]), *batch]
        for (request, _), rows in zip(batch, engine.step(batch), strict=True):
            found[request].append(rows)
    for request, count in ((0, 30), (1, 30), (2, 44)):
        assert distance(torch.cat(found[request]), wanted_logits(model, texts[request][:count])) < BAR


def test_int8_weights_are_the_same_in_both(tmp_path: Path) -> None:
    """W8A16 as the reference simulates it, in the model class: wiring and rounding are two things."""
    model = EVEN.model()
    checkpoint = checkpoint_of(model, tmp_path)
    tokens = random_tokens(60)
    (found,) = loaded(checkpoint, int8_weights=True).step([(0, tokens)])
    wanted, _ = Reference(checkpoint, int8_weights=True).logits(tokens)
    assert distance(found, wanted) < BAR
    assert distance(wanted, wanted_logits(model, tokens)) > 100 * BAR, "int8 must show"


def test_int8_rounds_as_tensorrt_llm_does() -> None:
    """By hand: a row has its own scale, its largest magnitude / 128; +128 is cut to 127; zeros stay zeros."""
    weight = torch.tensor([[1.0, -1.0, 0.5, 0.0041], [0.25, 0.125, -0.03, 0.0], [0.0, 0.0, 0.0, 0.0]])
    wanted = [[127, -128, 64, 1], [127, 64, -15, 0], [0, 0, 0, 0]]
    scales = torch.tensor([[1 / 128], [1 / 512], [0]])
    assert torch.equal(int8(weight.bfloat16()), torch.tensor(wanted) * scales)


def test_int8_kv_cache_is_the_same_in_both(tmp_path: Path) -> None:
    """Scales reach the plugin, per layer, as value and reciprocal; prompt and single tokens."""
    model = Case().model()
    scales = [0.05, 0.1, 0.2]
    checkpoint = checkpoint_of(model, tmp_path, scales)
    tokens = random_tokens(40)
    reference, engine = Reference(checkpoint, kv_scales=scales), loaded(checkpoint)
    _, past = reference.logits(tokens[:30])
    engine.step([(0, tokens[:30])])
    exact = wanted_logits(model, tokens)
    for position in range(30, 40):
        rows, past = reference.logits([tokens[position]], past)
        (found,) = engine.step([(0, [tokens[position]])])
        assert distance(found, rows) < BAR
        assert distance(rows, exact[position : position + 1]) > BAR, "the cache must be rounded"


def test_every_name_and_shape_of_the_published_model() -> None:
    """Section 5.4 of the specification, from the model class itself."""
    config = checkpoint_config(
        YOUTU_2B, dtype="bfloat16", max_positions=4096, int8_weights=True, int8_kv=True
    )
    parameters = dict(model_of(config).named_parameters())
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    assert shapes.pop("transformer.vocab_embedding.weight") == (128256, 2048)
    assert shapes.pop("lm_head.weight") == (128256, 2048)
    assert shapes.pop("transformer.ln_f.weight") == (2048,)
    layer = {
        "input_layernorm.weight": (2048,),
        "attention.fused_a_proj.weight": (2112, 2048),
        "attention.q_a_layernorm.weight": (1536,),
        "attention.kv_a_layernorm.weight": (512,),
        "attention.q_b_proj.weight": (3072, 1536),
        "attention.kv_b_proj.weight": (4096, 512),
        "attention.dense.weight": (2048, 2048),
        "post_layernorm.weight": (2048,),
        "mlp.fc.weight": (6144, 2048),
        "mlp.gate.weight": (6144, 2048),
        "mlp.proj.weight": (2048, 6144),
        "attention.kv_cache_scaling_factor": (1,),
        "attention.kv_cache_rcp_scaling_factor": (1,),
    }
    assert shapes == {f"transformer.layers.{n}.{k}": v for n in range(32) for k, v in layer.items()}


def test_the_converter_writes_what_the_class_declares() -> None:
    """At the published sizes, without weights: every name and shape, and 2 bytes for each parameter."""
    stored = {
        name: StoredTensor(name, Path(), "BF16", shape, 0) for name, shape in YOUTU_2B.tensors().items()
    }
    planned = plan(YOUTU_2B, cast("Weights", SimpleNamespace(tensors=stored)), "bfloat16", [1.0] * 32)
    config = checkpoint_config(
        YOUTU_2B, dtype="bfloat16", max_positions=4096, int8_weights=True, int8_kv=True
    )
    declared = {name: parameter.shape for name, parameter in model_of(config).named_parameters()}
    # TensorRT-LLM derives the one and shares the other
    derived = {name for name in declared if name.endswith("kv_cache_rcp_scaling_factor")} | {"lm_head.weight"}
    assert {tensor.name: tensor.shape for tensor in planned} == {
        name: shape for name, shape in declared.items() if name not in derived
    }
    assert sum(tensor.nbytes for tensor in planned) == 2 * 1_961_560_064 + 32 * 4


@pytest.mark.parametrize("sides", [(), ("attention.fused_a_proj",)], ids=["all linears", "one left out"])
def test_the_quantiser_takes_the_modules_it_has_weights_for(sides: tuple[str, ...]) -> None:
    """Guards against a linear whose module becomes int8 while its tensor does not, or the other way round.

    TensorRT-LLM matches exclude_modules against module names when it makes int8 modules (quantize.py), and
    against tensor names when it makes int8 weights (convert_utils.py), of those with one of five endings.
    """
    config = checkpoint_config(
        YOUTU_2B, dtype="bfloat16", max_positions=4096, int8_weights=True, int8_kv=False, in_16_bits=sides
    )
    model = model_of(config)
    given = config["quantization"].get("exclude_modules")
    for_modules = given or ["*lm_head", "*router", "*vocab_embedding", "*position_embedding"]
    for_tensors = given or ["*shared_expert_gate.weight"]
    modules = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, ColumnLinear)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in for_modules)
    }
    tensors = {
        name
        for name, _ in model.named_parameters()
        if any(part in name for part in INT8_NAMES)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in for_tensors)
    }
    assert modules == tensors
    assert len(tensors) == 32 * (7 - len(sides))


def test_nothing_but_the_stand_in_is_used() -> None:
    """So that nothing of TensorRT-LLM is used which the other tests have not run."""
    imported = [
        (node.module, [alias.name for alias in node.names])
        for node in ast.walk(ast.parse(CLASS_FILE.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorrt_llm")
    ]
    assert imported
    for module, names in imported:
        parts = {part.__name__ for part in stand_in.PARTS[str(module).removeprefix("tensorrt_llm.")]}
        assert set(names) <= parts | {"MODEL_MAP"}
    used = {name for _, names in imported for name in names} - {"MODEL_MAP"}
    offered = {part.__name__ for parts in stand_in.PARTS.values() for part in parts}
    assert offered == used, "the stand-in holds exactly what is used"


# tensorrt_llm/functional.py, gpt_attention, as of 2025 (1.1 and 1.2): keyword-only, these without a default.
REQUIRED = {
    *("qkv", "past_key_value", "sequence_length", "host_past_key_value_lengths"),
    *("host_max_attention_window_sizes", "host_sink_token_length", "context_lengths", "cache_indirection"),
    *("host_request_types", "layer_idx", "num_heads", "num_kv_heads", "hidden_size_per_head", "q_scaling"),
}


def test_the_attention_plugin_is_given_what_it_requires() -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(CLASS_FILE.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "gpt_attention"
    ]
    assert len(calls) == 1
    given = {keyword.arg for keyword in calls[0].keywords}
    signature = inspect.signature(gpt_attention).parameters.values()
    assert {p.name for p in signature if p.default is inspect.Parameter.empty} == REQUIRED
    assert given == {p.name for p in signature}
    assert not calls[0].args


def test_more_than_one_gpu_is_refused() -> None:
    config = checkpoint_config(YOUTU_2B, dtype="bfloat16", max_positions=64, int8_weights=True, int8_kv=False)
    config["mapping"]["world_size"] = 2
    with pytest.raises(ValueError, match="one GPU, found world_size 2"):
        model_of(config)
