"""fetch → TensorRT-LLM checkpoint → trtllm-build → an engine folder that can be served.

Each step is skipped when its output is there and whole: what a step makes lies under another name until its
mark (checkpoint.json, engine.json) is written. The checkpoint does not depend on the GPU, the engine does.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from build import memory
from build.catalogue import Converter, Profile, Source, profiles, resolve
from build.engine import engine_folder, fingerprint
from build.engine_info import CHAT_TEMPLATE, TOKENIZER
from build.errors import BuildError
from build.locked import locked
from build.progress import Report, silent
from build.tensorrt_llm import machine, sizes
from build.tensorrt_llm.checkpoint import Checkpoint, describe, make_checkpoint
from build.tensorrt_llm.commands import run, say
from build.tensorrt_llm.convert import RECORD
from build.tensorrt_llm.flags import build_flags, on_command_line
from build.tensorrt_llm.info import ENGINE_FILE, ENGINE_FOLDER, TensorRTEngineInfo
from build.tokenizer import check_templates

MODEL_CLASS_FILE = Path(__file__).with_name("youtu_trtllm.py")
MODEL_CLASS = "YoutuForCausalLM"
YOUTU_DTYPE = "bfloat16"
# Estimates: trtllm-build holds the 16-bit weights, the int8 ones and the engine while it writes it.
HOST_MEMORY_FACTOR = 2.5  # times the 16-bit weights
SPARE_DISK = 1 << 30


@dataclass(frozen=True)
class Plan:
    """What is to be built of what, on which GPU, by which container."""

    source: Source
    profile: Profile
    root: Path
    gpu: machine.Gpu
    container: machine.Container
    hub: str = "auto"

    @property
    def converter(self) -> Converter | None:
        return self.source.entry.tensorrt_llm if self.source.entry else None

    @property
    def flags(self) -> dict[str, str]:
        return build_flags(self.profile, dtype=self.converter.dtype if self.converter else YOUTU_DTYPE)

    @property
    def engine(self) -> Path:
        return engine_folder(self.source, f"tensorrt_llm {self.profile.name}", self.root)

    @property
    def checkpoint(self) -> Path:
        kind = f"tensorrt_llm {self.profile.kv_cache}"
        return self.root / "checkpoints" / engine_folder(self.source, kind, self.root).name


def plan(model: str, root: Path, profile: str) -> Plan:
    """What `make_engine` would do here. BuildError says what this machine, model or profile lacks."""
    source = resolve(model)
    if source.kind in ("gguf", "package"):
        raise BuildError(f"{source} is a .gguf file: the GPU engine is built from a checkpoint folder")
    if profile not in profiles():
        raise BuildError(f"unknown PROFILE={profile}: expected one of {', '.join(profiles())}")
    return Plan(source, profiles()[profile], root, container=machine.container(), gpu=machine.gpu())


def built(made: Plan) -> TensorRTEngineInfo | None:
    """The engine folder of `made`, whatever GPU it is for; None when there is none that is whole."""
    if not made.engine.exists():
        return None
    try:
        return TensorRTEngineInfo.load(made.engine)
    except BuildError as error:
        say(f"{error}; rebuilding it")
        return None


def unfit(engine: TensorRTEngineInfo, gpu: machine.Gpu, versions: dict[str, str]) -> str | None:
    """A sentence when `engine` was made for another GPU, or by another release than runs here."""
    if (engine.gpu, engine.compute_capability) != (gpu.name, gpu.compute_capability):
        return (
            f"{engine.path} was built on {engine.gpu} (compute capability {engine.compute_capability}); this "
            f"is {gpu.name} ({gpu.compute_capability}), and a TensorRT engine runs on one kind of GPU only"
        )
    for name in ("tensorrt_llm", "tensorrt"):
        if engine.versions.get(name) != versions.get(name):
            return (
                f"{engine.path} was built by {name} {engine.versions.get(name)}; here runs "
                f"{versions.get(name)}, and an engine belongs to one version only"
            )
    return None


def make_engine(
    model: str, root: Path, profile: str, *, hub: str = "auto", progress: Report = silent
) -> TensorRTEngineInfo:
    """The TensorRT-LLM engine of `model` in `root`/engines, made if it is not there or not of this state.

    Minutes on a GPU. BuildError says what to fix: GPU, driver, container, disk, memory, size of the card, or
    the end of the output of NVIDIA's program. Two calls at once: the second waits for the first.
    """
    return _make_alone(replace(plan(model, root, profile), hub=hub), progress)


def engine_to_serve(
    model: str, root: Path, profile: str, *, hub: str = "auto", progress: Report = silent
) -> TensorRTEngineInfo:
    """As make_engine, but an engine that is there and was made for another GPU or version is refused."""
    made = replace(plan(model, root, profile), hub=hub)
    old = built(made)
    if old is not None and (fault := unfit(old, made.gpu, made.container.versions)):
        raise BuildError(
            f"{fault}: make engine ENGINE=tensorrt_llm MODEL={model} PROFILE={profile} builds it for this one"
        )
    return _make_alone(made, progress)


def _make_alone(made: Plan, progress: Report) -> TensorRTEngineInfo:
    try:
        with locked(made.engine.with_name(f".{made.engine.name}.lock"), f"building {made.engine.name}"):
            return _make(made, progress)
    except OSError as error:
        raise BuildError(
            f"making the engine of {made.source.model_id} in {made.root.absolute()} failed: {error}"
        ) from error


def _make(made: Plan, progress: Report) -> TensorRTEngineInfo:
    old = built(made)
    reason = None if old is None else _outdated(old, made)
    if old is not None and reason is None:
        return old
    if reason is not None:
        say(f"{reason}; rebuilding it")
    source = _fetched(made, progress)
    check_templates(source)
    estimate = sizes_of(made, source)
    say(f"{made.source.model_id} with the profile {made.profile.name} on {made.gpu.name}: {estimate}")
    if fault := sizes.does_not_fit(made.profile, estimate):
        raise BuildError(fault)
    _refuse_a_small_machine(made, source, estimate)
    checkpoint = make_checkpoint(made, source, progress)
    building = made.engine.with_name(f".{made.engine.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        _run_trtllm_build(made, checkpoint.path, building / ENGINE_FOLDER)
        _describe(made, source, checkpoint, building)
        shutil.rmtree(made.engine, ignore_errors=True)
        building.rename(made.engine)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return TensorRTEngineInfo.load(made.engine)


def _outdated(engine: TensorRTEngineInfo, made: Plan) -> str | None:
    now = fingerprint(made.source, made.root)
    if now is not None and now != engine.fingerprint:
        return f"{engine.path} was built from a different state of {made.source}"
    if engine.flags != made.flags:
        changed = sorted(name for name, value in made.flags.items() if engine.flags.get(name) != value)
        return f"{engine.path} was built with a different {', '.join(changed)}"
    return unfit(engine, made.gpu, made.container.versions)


def _fetched(made: Plan, progress: Report) -> Path:
    if made.source.path is not None:
        return made.source.path
    from build.config import read_shape
    from build.fetch import fetch

    converter, repo = made.converter, str(made.source.repo)

    def check(folder: Path) -> None:
        if converter is None:
            read_shape(folder)
        check_templates(folder)

    return fetch(
        repo,
        made.root,
        progress,
        check=check,
        headroom=2.0,  # the checkpoint and the engine beside it
        more=converter.files if converter else (),
        pickled=converter.pickled if converter else False,
        hub=made.hub,
        modelscope=made.source.entry.modelscope if made.source.entry else None,
    ).path


def sizes_of(made: Plan, source: Path) -> sizes.Sizes:
    """The arithmetic for what is built, on the card that is here."""
    if made.converter:
        weights, per_token = made.converter.engine_bytes, made.converter.kv_bytes_per_token
        if made.profile.kv_cache == "int8":
            raise BuildError(
                f"the profile {made.profile.name} is for Youtu only: no other model is calibrated"
            )
    else:
        from build.config import read_shape

        shape = read_shape(source)
        weights, per_token = sizes.weight_bytes(shape), sizes.kv_bytes_per_token(shape, made.profile.kv_cache)
    return sizes.sizes(made.profile, made.gpu.memory, weights=weights, kv_per_token=per_token)


def _refuse_a_small_machine(made: Plan, source: Path, estimate: sizes.Sizes) -> None:
    stored = sum(file.stat().st_size for glob in ("*.safetensors", "*.bin") for file in source.glob(glob))
    needed = int(1.1 * estimate.weights) + SPARE_DISK
    if not (made.checkpoint / RECORD).exists():
        needed += stored
    made.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(made.root).free
    if free < needed:
        raise BuildError(
            f"too little disk: {made.root.absolute()} has {free / 1e9:.1f} GB free, and checkpoint and "
            f"engine need {needed / 1e9:.1f}: free some space, or set YOUTU_DATA_DIR to another disk"
        )
    free, needed = memory.free_memory(), int(HOST_MEMORY_FACTOR * stored)
    if free < needed:
        raise BuildError(
            f"too little memory: {free / 1e9:.1f} GB are free, and trtllm-build takes about "
            f"{needed / 1e9:.1f} for this model: end other programs, or add swap"
        )


def _run_trtllm_build(made: Plan, checkpoint: Path, output: Path) -> None:
    command: list[str | Path] = [made.container.trtllm_build, "--checkpoint_dir", checkpoint]
    if made.converter is None:
        command += ["--model_cls_file", MODEL_CLASS_FILE, "--model_cls_name", MODEL_CLASS]
    command += ["--output_dir", output, *on_command_line(made.flags)]
    step = f"Building the engine of {made.source.model_id}"
    run(step, command, made.root.absolute() / "log" / "trtllm-build.log")
    for name in ("config.json", ENGINE_FILE):
        if not (output / name).is_file():
            raise BuildError(f"{step}: trtllm-build succeeded, but {output / name} is missing")


def _describe(made: Plan, source: Path, checkpoint: Checkpoint, building: Path) -> None:
    entry = made.source.entry
    facts = describe(made, source, building)
    described = f"{entry.display_name if entry else made.source.model_id}, {facts.weights} (TensorRT-LLM)"
    if entry is not None and (entry.demo or made.converter):
        described = entry.description
    TensorRTEngineInfo(
        **asdict(facts),
        model_id=made.source.model_id,
        source=str(made.source),
        fingerprint=str(fingerprint(made.source, made.root)),
        demo=entry is not None and entry.demo,
        description=described,
        chat_template=(building / CHAT_TEMPLATE).is_file(),
        versions=made.container.versions,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        path=building,
        profile=made.profile.name,
        flags=made.flags,
        gpu=made.gpu.name,
        compute_capability=made.gpu.compute_capability,
        weights_sha256=checkpoint.weights_sha256,
        engine_bytes=(building / ENGINE_FOLDER / ENGINE_FILE).stat().st_size,
        tokenizer_json=(building / TOKENIZER).is_file(),
    ).save()
