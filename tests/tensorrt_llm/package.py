"""Writes a package `tensorrt_llm` for the probes of `make verify-gpu`: its names, its library, its executor.

The layers are those of tests/build/tensorrt_llm/stand_in.py; the executor computes with the torch reference,
on the checkpoint that the stand-in for trtllm-build has noted in the engine.
"""

from __future__ import annotations

from pathlib import Path

FILES = {
    "__init__.py": '__version__ = "1.2.1"\n',
    "functional.py": (
        "from tests.build.tensorrt_llm.stand_in import (\n"
        "    Tensor, concat, constant, expand, gpt_attention, shape, slice, split)\n"
    ),
    "layers.py": (
        "from tests.build.tensorrt_llm.stand_in import (\n"
        "    Attention, AttentionMaskType, AttentionParams, ColumnLinear,\n"
        "    Embedding, GatedMLP, KeyValueCacheParams, RmsNorm, RowLinear)\n"
    ),
    "module.py": "from tests.build.tensorrt_llm.stand_in import Module\n",
    "models/__init__.py": "MODEL_MAP = {}\n",
    "models/modeling_utils.py": (
        "from tensorrt_llm.models import MODEL_MAP\n"
        "from tests.build.tensorrt_llm.stand_in import (\n"
        "    DecoderLayerList, DecoderModelForCausalLM, PretrainedConfig as Base)\n"
        "class PretrainedConfig(Base):\n"
        "    @classmethod\n"
        "    def from_dict(cls, config):\n"
        "        return MODEL_MAP[config['architecture']]\n"
    ),
    "models/convert_utils.py": (
        "def weight_only_quantize_dict(weights):\n"
        "    names = ['qkv.weight', 'dense.weight', 'fc.weight', 'proj.weight', 'gate.weight']\n"
        "    return names\n"
    ),
    "bindings/__init__.py": "",
    "libs/libnvinfer_plugin_tensorrt_llm.so": "\x7fELF GPTAttentionPlugin no longer supports MLA. Please",
    "bindings/executor.py": """
import json
from pathlib import Path
from types import SimpleNamespace

import torch
from build.tensorrt_llm.convert import complete
from build.tensorrt_llm.reference import Reference

FAULT, KIND = "", ""
KvCacheConfig = SamplingConfig = OutputConfig = Request = SimpleNamespace
ModelType = SimpleNamespace(DECODER_ONLY=0)

def ExecutorConfig(max_beam_width, kv_cache_config):
    return None

class Executor:
    def __init__(self, engine, kind, config):
        build = json.loads((Path(engine) / "config.json").read_text())["build_config"]
        assert build["gather_context_logits"]
        checkpoint = Path(build["checkpoint_dir"])
        info = complete(checkpoint)
        self.kind = checkpoint.name.removeprefix("checkpoint-")
        self.reference = Reference(checkpoint, int8_weights=info.int8_weights, kv_scales=info.kv_scales)

    def enqueue_request(self, request):
        self.request = request
        return 1

    def await_responses(self, number):
        request, fault = self.request, FAULT if self.kind == KIND else ""
        tokens = self.reference.greedy(request.input_token_ids, request.max_tokens)
        logits, _ = self.reference.logits(request.input_token_ids)
        if fault == "logits":
            logits = logits.roll(1, dims=1)
        if fault == "decode":
            tokens = [1] * len(tokens)
        if fault == "short":
            tokens = tokens[:9]
        result = SimpleNamespace(output_token_ids=[tokens], context_logits=logits.bfloat16())
        error = "out of memory" if fault == "error" else ""
        return [SimpleNamespace(result=result, has_error=lambda: bool(error), error_msg=error)]

    def shutdown(self):
        pass
""",
}


def write_package(folder: Path) -> Path:
    """Write it into `folder`, which is to be on the PYTHONPATH; returns the package's own folder."""
    for name, text in FILES.items():
        path = folder / "tensorrt_llm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "tensorrt_llm"
