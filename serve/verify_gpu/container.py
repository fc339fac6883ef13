"""What NVIDIA's container must have: versions, plugin, flags, signatures, the backend's configuration."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from build.errors import BuildError
from build.tensorrt_llm import engine, machine
from build.tensorrt_llm.machine import IMAGE
from serve.repository import COMMITTED, CONFIG
from serve.verify_gpu.steps import NotAsAssumed, Step, Verification

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
PLUGIN = "libs/libnvinfer_plugin_tensorrt_llm.so"
REFUSES_MLA = b"no longer supports MLA"
TEMPLATE = "all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt"
SOURCES = Path(engine.__file__).with_name("program_sources.toml")
# What stands for a placeholder that is no string; any number is a number.
PLACEHOLDERS = {
    "decoupled_mode": "true",
    "logits_datatype": "TYPE_FP32",
    "encoder_input_features_data_type": "TYPE_FP16",
    "prompt_embedding_table_data_type": "TYPE_FP16",
}


def probe(
    verification: Verification, script: str, *arguments: object, timeout: float = 1800
) -> dict[str, Any]:
    """The JSON that a script of this folder prints, run by the container's Python."""
    _, container = verification.machine()
    command = [container.python, Path(__file__).with_name(script), *arguments]
    # Safe: the modules beside the script are not to be taken for others of their names.
    environment = {**os.environ, **machine.with_our_modules(ROOT), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{script} did not end in {timeout:.0f} s") from None
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        lines = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise BuildError(f"{script} ended with {done.returncode}: {lines[-1]}") from None
    return found


def machine_and_container(verification: Verification) -> str:
    settings = verification.settings
    # It looks at the model's name too, which would else be found wrong after hours of other steps.
    made = engine.plan(settings.model, settings.data_dir, settings.profile)
    verification.container, verification.gpu = made.container, made.gpu
    gpu, versions = made.gpu, made.container.versions
    return (
        f"TensorRT-LLM {versions['tensorrt_llm']}, TensorRT {versions['tensorrt']}, "
        f"torch {versions['torch']}; {gpu.name}, capability {gpu.compute_capability}, driver {gpu.driver}"
    )


def imports(verification: Verification) -> str:
    found = probe(verification, "probe_names.py", engine.MODEL_CLASS_FILE, engine.MODEL_CLASS)
    if found["version"] != machine.TENSORRT_LLM:
        raise NotAsAssumed(f"tensorrt_llm.__version__ is {found['version']}", f"take {IMAGE}")
    if not found["registered"]:
        raise NotAsAssumed(
            f"{engine.MODEL_CLASS} is not in MODEL_MAP after its file ran",
            f"MODEL_MAP of this release is another: see the last line of {_shown(engine.MODEL_CLASS_FILE)}",
        )
    verification.facts["names"] = found
    return f"tensorrt_llm {found['version']} imports, and knows {engine.MODEL_CLASS}"


def plugin_refuses_mla(verification: Verification) -> str:
    plugin = Path(verification.facts["names"]["package"]) / PLUGIN
    if not plugin.is_file():
        raise NotAsAssumed(f"{plugin} is not there", "look for the plugin's library, and correct PLUGIN here")
    if REFUSES_MLA not in plugin.read_bytes():
        raise NotAsAssumed(
            f"{plugin.name} does not say {REFUSES_MLA.decode()!r}",
            "this release may compute latent attention itself, with a tenth of the KV cache: "
            "reconsider build/tensorrt_llm/youtu_trtllm.py (docs/forward_path.md)",
        )
    return f"the attention plugin {REFUSES_MLA.decode()}, hence plain attention"


def flags(verification: Verification) -> str:
    _, container = verification.machine()
    helped = subprocess.run([container.trtllm_build, "--help"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"--([a-z_]+)", helped.stdout + helped.stderr))
    expected = list(tomllib.loads(SOURCES.read_text(encoding="utf-8"))["trtllm-build"])
    if missing := [name for name in expected if name not in known]:
        raise NotAsAssumed(
            f"trtllm-build --help has no --{', --'.join(missing)}",
            f"correct build_flags in build/tensorrt_llm/flags.py and {_shown(SOURCES)}",
        )
    return f"trtllm-build knows all {len(expected)} flags"


def signatures(verification: Verification) -> str:
    names = verification.facts["names"]
    for called in ("gpt_attention", "Attention"):
        given = keywords(engine.MODEL_CLASS_FILE, "super().__init__" if called == "Attention" else called)
        if missing := sorted(given - set(names[called])):
            raise NotAsAssumed(
                f"{called} takes no {', '.join(missing)}",
                f"{_shown(engine.MODEL_CLASS_FILE)} passes it: correct the call",
            )
    quantiser = names["weight_only_quantize_dict"]
    if missing := [name for name in names["int8_names"] if name not in quantiser]:
        raise NotAsAssumed(
            f"weight_only_quantize_dict does not look for {', '.join(missing)}",
            "these layers would stay in 16 bits: rename them in build/tensorrt_llm/tensors.py and the class",
        )
    if "MODEL_MAP" not in names["PretrainedConfig.from_dict"]:
        raise NotAsAssumed(
            "PretrainedConfig.from_dict does not use MODEL_MAP",
            f"see how this release finds a class, and register it so in {_shown(engine.MODEL_CLASS_FILE)}",
        )
    return "gpt_attention, Attention, the quantiser's names and MODEL_MAP are as the class needs them"


def keywords(file: Path, function: str) -> set[str]:
    """The keywords of the first call of `function` in a Python file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function and len(node.keywords) > 1:
            return {keyword.arg for keyword in node.keywords if keyword.arg}
    raise AssertionError(f"{file} does not call {function}")


def configuration(verification: Verification) -> str:
    """Our config.pbtxt against the container's own: types and sizes of tensors, names of parameters."""
    path = machine.APP / TEMPLATE
    if not path.is_file():
        raise NotAsAssumed(
            f"{path} is not there", "find the container's configuration, and correct TEMPLATE here"
        )
    theirs = parsed_template(path.read_text(encoding="utf-8"))
    ours = text_format.Parse(
        (COMMITTED / "tensorrt_llm" / CONFIG).read_text(encoding="utf-8"), model_config_pb2.ModelConfig()
    )
    change = f"correct model_repository/tensorrt_llm/{CONFIG}, and {_shown(SOURCES)}"
    for kind in ("input", "output"):
        known = {tensor.name: tensor for tensor in getattr(theirs, kind)}
        for tensor in getattr(ours, kind):
            if tensor.name not in known:
                raise NotAsAssumed(f"the container's configuration has no {kind} {tensor.name}", change)
            here, there = _form(tensor), _form(known[tensor.name])
            if here != there:
                raise NotAsAssumed(f"{kind} {tensor.name} is {there} there, and {here} here", change)
    if missing := sorted(set(ours.parameters) - set(theirs.parameters)):
        raise NotAsAssumed(f"the container's configuration has no parameter {', '.join(missing)}", change)
    required = {tensor.name for tensor in theirs.input if not tensor.optional}
    sent = {tensor.name for tensor in ours.input}
    if missing := sorted(required - sent):
        raise NotAsAssumed(f"the backend requires {', '.join(missing)}", change)
    more = sorted({tensor.name for tensor in theirs.input} - sent)
    counts = f"{len(ours.input)} inputs, {len(ours.output)} outputs, {len(ours.parameters)} parameters"
    return f"{counts} agree; {len(more)} more inputs there"


def _form(tensor: Any) -> str:
    """All that the two files say of a tensor; of an output a part of it."""
    words = [model_config_pb2.DataType.Name(tensor.data_type), str(list(tensor.dims))]
    if tensor.HasField("reshape"):
        words.append(f"reshaped to {list(tensor.reshape.shape)}")
    words += [word for word in ("allow_ragged_batch", "optional") if getattr(tensor, word, False)]
    return " ".join(words)


def parsed_template(text: str) -> Any:
    """NVIDIA's template as a configuration: placeholders that are no strings get a value of their kind."""
    strings: list[str] = []

    def kept(match: re.Match[str]) -> str:
        strings.append(match[0])
        return f"\0{len(strings) - 1}\0"

    bare = re.sub(r'"[^"\n]*"', kept, text)
    bare = re.sub(r"\$\{(\w+)\}", lambda match: PLACEHOLDERS.get(match[1], "1"), bare)
    try:
        return text_format.Parse(
            re.sub("\0(\\d+)\0", lambda match: strings[int(match[1])], bare), model_config_pb2.ModelConfig()
        )
    except text_format.ParseError as error:
        raise NotAsAssumed(
            f"the container's configuration cannot be read ({error})", "correct PLACEHOLDERS in this step"
        ) from None


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


STEPS = [
    Step("GPU, driver, container", machine_and_container),
    Step("TensorRT-LLM imports the model class", imports),
    Step("attention plugin", plugin_refuses_mla),
    Step("flags of trtllm-build", flags),
    Step("signatures and names", signatures),
    Step("configuration of the C++ backend", configuration),
]
