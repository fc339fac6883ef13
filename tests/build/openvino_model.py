"""An OpenVINO model in its exact mode (f32, f32 cache, activations not quantised), for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino._offline_transformations import paged_attention_transformation

from tests.build.exact import Exact, Rows, log_softmax

BLOCK = 32  # tokens of the CPU plugin's cache blocks
EXACT: dict[str, Any] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "INFERENCE_NUM_THREADS": 1,
}


class OpenVino(Exact):
    """One model, one sequence of at most 512 tokens, one thread."""

    def __init__(self, folder: Path) -> None:
        core = ov.Core()
        model = core.read_model(folder / "model.xml")
        paged_attention_transformation(model)
        compiled = core.compile_model(model, "CPU", EXACT)
        self._request = compiled.create_infer_request()
        for place in compiled.inputs:
            if "cache" in place.get_any_name():
                sizes = [size.get_length() for size in list(place.get_partial_shape())[1:]]
                cache = ov.Tensor(place.get_element_type(), ov.Shape([512 // BLOCK, *sizes]))
                self._request.set_tensor(place.get_any_name(), cache)
        self._length = 0

    def log_probs(self, tokens: list[int]) -> Rows:
        start, stop = self._length, self._length + len(tokens)
        blocks = -(-stop // BLOCK)
        inputs = {
            "input_ids": np.array(tokens, np.int64),
            "position_ids": np.arange(start, stop, dtype=np.int64),
            "rows": np.arange(len(tokens), dtype=np.int64),
            "max_context_len": np.array(stop, np.int32),
            "past_lens": np.array([start], np.int32),
            "subsequence_begins": np.array([0, len(tokens)], np.int32),
            "block_indices_begins": np.array([0, blocks], np.int32),
            "block_indices": np.arange(blocks, dtype=np.int32),
        }
        for name, values in inputs.items():
            self._request.set_tensor(name, ov.Tensor(values))
        self._request.infer()
        self._length = stop
        logits = self._request.get_tensor("logits").data
        return log_softmax(logits.reshape(len(tokens), -1))
