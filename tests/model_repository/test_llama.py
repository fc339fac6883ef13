"""llama.cpp behind ctypes: libraries that cannot be used, and what it reports of where a model lies."""

from __future__ import annotations

import json
from pathlib import Path

import llama as llama_module
import pytest
from llama import PINNED, Device, Llama, LlamaError, LlamaLibrary, Placement

# As llama.cpp of the pinned version writes them (src/llama-model.cpp, llama-kv-cache.cpp, llama-context.cpp).
ON_A_CARD = """
load_tensors: offloading output layer to GPU
load_tensors: offloading 31 repeating layers to GPU
load_tensors: offloaded 33/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   266.16 MiB
load_tensors:        CUDA0 model buffer size =  1994.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =  1152.00 MiB
llama_context: Flash Attention enabled
sched_reserve:      CUDA0 compute buffer size =   258.50 MiB
sched_reserve:  CUDA_Host compute buffer size =     8.01 MiB
sched_reserve: graph (pp bs=512, tg bs=1): nodes = 2100, splits = 2 / 2, input objects = 5, input tensors = 7
""".strip().splitlines()


def test_where_a_model_lies_is_read_from_the_reports() -> None:
    placed = llama_module._placement(ON_A_CARD)
    assert (placed.layers, placed.layers_on_device, placed.splits) == (33, 33, 2)
    assert placed.cache == {"CUDA0": 1152 << 20}
    assert placed.weights["CUDA0"] == 1994 << 20
    assert placed.flash_attention


@pytest.mark.parametrize(
    ("change", "to", "reason"),
    [
        ("offloaded 33/33", "offloaded 20/33", r"the card computes 20 of 33 layers"),
        ("splits = 2 / 2", "splits = 66 / 66", r"its graph has 66 parts \(at most 2\)"),
        ("CUDA0 KV buffer", "CPU KV buffer", r"the KV cache is in CPU"),
    ],
)
def test_a_part_left_on_the_cpu_is_an_error(
    change: str, to: str, reason: str, llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Device("CUDA0", "a card", 8 << 30, 8 << 30)
    monkeypatch.setattr(llama.library, "devices", lambda: [card])
    llama.placement = llama_module._placement(ON_A_CARD)
    llama._check_placement(Path("x.gguf"))
    llama.placement = llama_module._placement([line.replace(change, to) for line in ON_A_CARD])
    with pytest.raises(LlamaError, match=reason):
        llama._check_placement(Path("x.gguf"))


def test_on_a_cpu_all_of_it_is_there(llama: Llama) -> None:
    assert llama.library.devices() == []
    assert isinstance(llama.placement, Placement)
    assert set(llama.placement.cache) == {"CPU"}
    assert llama.placement.flash_attention


def test_a_library_that_sees_no_card(llama: Llama) -> None:
    with pytest.raises(LlamaError, match="sees no card, although it was compiled for one"):
        llama.library.require_card()


def test_a_folder_without_a_library(tmp_path: Path) -> None:
    with pytest.raises(LlamaError, match=r"contains no compiled llama\.cpp"):
        LlamaLibrary(tmp_path)


def test_a_library_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "library.json").write_text(json.dumps({"xllamacpp": "1", "cuda": "x"}))
    with pytest.raises(LlamaError, match=f"was compiled from xllamacpp 1; this engine is for {PINNED}"):
        LlamaLibrary(tmp_path)


def test_a_library_whose_cuda_has_gone(tmp_path: Path) -> None:
    (tmp_path / "library.json").write_text(json.dumps({"xllamacpp": PINNED, "cuda": str(tmp_path)}))
    with pytest.raises(LlamaError, match=r"cannot be loaded: .*libcudart\.so\.13"):
        LlamaLibrary(tmp_path)
