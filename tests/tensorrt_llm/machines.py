"""A machine with a GPU and NVIDIA's container around us, as far as programs on the PATH make it one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

import pytest

from build.catalogue import Profile, profiles
from build.config import read_shape
from build.engine import fingerprint
from build.source_state import source_state
from build.tensorrt_llm.engine import Plan, make_engine, plan
from build.tensorrt_llm.info import TensorRTEngineInfo
from build.tensorrt_llm.xgrammar_info import write_xgrammar_info
from build.tokenizer import load_tokenizer_facts
from serve import triton

RTX_3070 = "NVIDIA GeForce RTX 3070, 8.6, 8192, 7900, 590.44.01"
RTX_4090 = "NVIDIA GeForce RTX 4090, 8.9, 24564, 24000, 580.65.06"
VERSIONS = {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48", "torch": "2.9.0"}
KNOWN_SCALE = 0.125
FLAGS = [
    "checkpoint_dir",
    "output_dir",
    "model_cls_file",
    "model_cls_name",
    "gpt_attention_plugin",
    "gemm_plugin",
    "workers",
    "remove_input_padding",
    "kv_cache_type",
    "tokens_per_block",
    "context_fmha",
    "use_paged_context_fmha",
    "max_batch_size",
    "max_input_len",
    "max_seq_len",
    "max_num_tokens",
    "max_beam_width",
    "gather_context_logits",
    "dry_run",
    "fast_build",
]
BACKEND = Path(__file__).with_name("backend.py")

# What trtllm-build does as far as anybody looks: reads its flags, and writes the two files of an engine. That
# has the size that the weights have in 8 bits where TensorRT-LLM would quantise, beside one scale per row.
TRTLLM_BUILD = """
import json, math, pathlib, sys
KNOWN = {known!r}
if "--help" in sys.argv:
    sys.exit(print("usage: trtllm-build", *(f"[--{{name}} X]" for name in KNOWN)))
flags, given = {{}}, sys.argv[1:]
while given:
    name = given.pop(0)
    flags[name] = given.pop(0) if given and not given[0].startswith("--") else True
print(json.dumps(flags), flush=True)
if {fail!r}:
    sys.exit({fail!r})
if "--dry_run" in flags:
    sys.exit()
checkpoint = pathlib.Path(flags["--checkpoint_dir"]).absolute()
config = json.loads((checkpoint / "config.json").read_text())
size = {more}
with (checkpoint / "rank0.safetensors").open("rb") as file:
    header = file.read(int.from_bytes(file.read(8), "little")) if "quantization" in config else b"{{}}"
int8 = config.get("quantization", {{}}).get("quant_algo") == "W8A16"
for name, tensor in json.loads(header).items():
    if name != "__metadata__":
        items = math.prod(tensor["shape"])
        linear = int8 and any(f"{{part}}.weight" in name for part in ("qkv", "dense", "fc", "proj", "gate"))
        size += items + 2 * tensor["shape"][0] if linear else 2 * items
build = {{name[2:]: int(v) if isinstance(v, str) and v.isdigit() else v for name, v in flags.items()}}
build["plugin_config"] = {{"tokens_per_block": int(flags["--tokens_per_block"])}}
output = pathlib.Path(flags["--output_dir"])
output.mkdir(parents=True)
document = {{"version": "1.2.1", "pretrained_config": config, "build_config": build}}
(output / "config.json").write_text(json.dumps(document))
with (output / "rank0.engine").open("wb") as file:
    file.truncate(size)
(output.parent / "flags.json").write_text(json.dumps(flags))
"""


class StandIn:
    """Programs in `folder`/bin, put first on the PATH by `use`. Each can be replaced or removed."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.packages, self.app = folder / "bin", folder / "packages", folder / "app"
        for place in (self.bin, self.packages, self.app):
            place.mkdir(parents=True)
        self.nvidia_smi(RTX_3070)
        self.trtllm_build()
        self.versions(**VERSIONS)

    def nvidia_smi(self, answer: str, *, status: int = 0, used_mib: Sequence[int] = (0,)) -> None:
        """`used_mib`: memory in use the first time it is asked for, and from then on."""
        used = f'if mkdir "$0.asked" 2>/dev/null; then echo {used_mib[0]}; else echo {used_mib[-1]}; fi'
        asked = f"case \"$1\" in *memory.used*) {used};; *) echo '{answer}';; esac"
        self.program("nvidia-smi", f"#!/bin/sh\n{asked}\nexit {status}\n")

    def trtllm_build(self, fail: int | str = 0, more: int = 0, without: str = "") -> None:
        """`fail`: its exit status or last words; `more`: bytes in each engine; `without`: a flag it lacks."""
        known = [name for name in FLAGS if name != without]
        script = TRTLLM_BUILD.format(fail=fail, more=more, known=known)
        self.program("trtllm-build", f"#!{sys.executable}\n{script}")

    def versions(self, **versions: str) -> None:
        for name, version in versions.items():
            info = self.packages / f"{name}-0.dist-info"
            info.mkdir(exist_ok=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def tritonserver(self) -> None:
        """The real Triton, with the stand-in for NVIDIA's backend beside its Python backend."""
        wheel = triton.find_in_wheel()
        spec = find_spec("pytriton")
        assert spec is not None
        (self.bin / "tritonserver").symlink_to(wheel.server)
        python = self.bin.parent / "backends" / "python"
        python.mkdir(parents=True)
        for part in (*wheel.backend.glob("*.so"), *wheel.backend.glob("*.py"), wheel.stub):
            shutil.copy(part, python)  # Triton follows no link out of a backend's folder
        ours = self.bin.parent / "backends" / "tensorrtllm"
        ours.mkdir()
        shutil.copy(BACKEND, ours / "model.py")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def environment(self) -> dict[str, str]:
        """What a process needs to stand on this machine."""
        wheels = Path(sysconfig.get_path("purelib")) / "nvidia_pytriton.libs"
        return {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.packages),
            # NVIDIA's library has it built in; the stand-in runs where it is not installed.
            "STAND_IN_XGRAMMAR": str(Path(sysconfig.get_path("purelib")) / "xgrammar"),
            "LD_LIBRARY_PATH": f"{triton.find_libpython().parent}{os.pathsep}{wheels}",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> StandIn:
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("build.tensorrt_llm.machine.APP", self.app)
        return self


def an_engine(made: Plan, checkpoint: Path, **changes: object) -> TensorRTEngineInfo:
    """The engine folder of `made` without a build: the tokenizer of `checkpoint`, and files of an engine."""
    folder = made.engine
    (folder / "tensorrt_llm").mkdir(parents=True)
    limits = {
        **{name: int(value) for name, value in made.flags.items() if value.isdigit()},
        "plugin_config": {"tokens_per_block": int(made.flags["tokens_per_block"])},
    }
    (folder / "tensorrt_llm" / "config.json").write_text(json.dumps({"build_config": limits}))
    (folder / "tensorrt_llm" / "rank0.engine").write_bytes(b"engine")
    for name in ("tokenizer.json", "chat_template.jinja"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    facts = load_tokenizer_facts(checkpoint)
    write_xgrammar_info(folder, facts)
    values: dict[str, object] = {
        "architecture": "YoutuForCausalLM",
        "vocab_size": len(facts.tokens),
        "context_length": 4096,
        "special_tokens": facts.special_tokens,
        "bos_token_id": facts.bos_token_id,
        "eos_token_ids": facts.eos_token_ids,
        "add_bos": facts.add_bos,
        "weights": "W8A16",
        "parameters": 7,
        "model_id": made.source.model_id,
        "source": str(made.source),
        "fingerprint": str(fingerprint(made.source, made.root)),
        "demo": True,
        "description": "A stand-in",
        "chat_template": True,
        "versions": VERSIONS,
        "created": datetime.now(timezone.utc).isoformat(),
        "path": folder,
        "profile": made.profile.name,
        "flags": made.flags,
        "gpu": made.gpu.name,
        "compute_capability": made.gpu.compute_capability,
        "weights_sha256": "0",
        "engine_bytes": 6,
        "tokenizer_json": True,
    }
    engine = TensorRTEngineInfo(**(values | changes))  # type: ignore[arg-type]
    engine.save()
    return engine


def make(model: Path | str, root: Path, profile: str = "8gb") -> TensorRTEngineInfo:
    """`make engine ENGINE=tensorrt_llm` on this machine."""
    return make_engine(str(model), root, profile)


def flags_given(engine: TensorRTEngineInfo) -> dict[str, str]:
    """What the stand-in for trtllm-build was given for this engine."""
    flags: dict[str, str] = json.loads((engine.path / "flags.json").read_text(encoding="utf-8"))
    return flags


def calibrated(model: Path, root: Path) -> None:
    """Leave scales of an int8 KV cache where the calibration finds its own again."""
    made = plan(str(model), root, "int8-kv")
    file = made.checkpoint.with_name(f"{made.checkpoint.name}.kv-scales.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    scales = [KNOWN_SCALE] * read_shape(model).num_hidden_layers
    facts = {"source": source_state(model), "own_samples": False, "conversations": 1, "tokens": 1}
    file.write_text(json.dumps(facts | {"scales": scales}))


def profiles_of(name: str) -> Profile:
    return profiles()[name]
