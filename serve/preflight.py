"""Checks of this machine before anything starts; each fault is one line that says what to do.

`before_build` checks what does not depend on the engine, `before_start` what does. Both return all
the faults they find. They access the machine through `Machine`, so that a test can simulate one that lacks
something. Sizes are in bytes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from build import memory
from build.catalogue import resolve
from build.engine_info import ENGINE_JSON
from build.errors import BuildError
from build.openvino_model.info import OpenVinoEngineInfo
from build.runtimes import CpuEngine
from build.tensorrt_llm import machine as gpu_machine
from build.tensorrt_llm import sizes
from build.tensorrt_llm.info import TensorRTEngineInfo
from serve import gguf_header, triton
from serve.run_folder import HOME
from serve.setting_sources import PREFIX
from serve.settings import Settings

SPARE_DISK = 50 << 20  # beside a new engine: its tokenizer, logs
ENGINE_SHARE = 0.6  # of a bf16 checkpoint's size; int8 is a little more than half
SHARED_MEMORY_NEEDED = 16 << 20  # two models: 1 MiB each to begin with, more while many answers run
# All processes together hold 0.23 GB (PSS) with the demonstration; a 2B model's buffers need about as much.
PROGRAMS = 500 << 20
# Open files of the frontend: a thread and a connection for each request, and what the program itself holds.
SPARE_REQUESTS = 64  # probes and refusals while all slots and places of the queue are taken
PROGRAM_FILES = 200
KV_BYTES = {"f16": 2.0, "f32": 4.0, "q8_0": 34 / 32}  # per number
KV_KEYS = (
    "block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "attention.kv_lora_rank", "rope.dimension_count",
)  # fmt: skip
GB = 1e9
REPACKED = 1.06  # OpenVINO's copy of the weights, in its own order, to their size in the file


@dataclass(frozen=True)
class Machine:
    """What is asked of the machine."""

    shared_memory: Path = HOME

    def free_disk(self, folder: Path) -> int:
        return shutil.disk_usage(folder).free

    def free_memory(self) -> int:
        return memory.free_memory()

    def open_files(self) -> int:
        """How many files one process may open when it raises its own limit as far as it may."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 1 << 30 if hard == resource.RLIM_INFINITY else hard


def before_build(
    settings: Settings, machine: Machine | None = None, *, ports: Iterable[str] | None = None
) -> list[str]:
    """Platform, libpython, ports, open files, shared memory, and the disk's room for what MODEL needs.

    `ports`: the names of those that must be free, instead of all.
    """
    machine = machine or Machine()
    if settings.triton_servers:
        return [*ports_in_use(settings, ports), *_open_files(settings, machine), *_documents(settings)]
    faults = []
    try:
        triton.find(settings)
    except triton.TritonMissing as error:
        faults.append(str(error))
    faults += ports_in_use(settings, ports)
    faults += _open_files(settings, machine)
    faults += _shared_memory(machine)
    faults += _disk(settings, machine)
    faults += _documents(settings)
    return faults


def before_start(settings: Settings, engine: CpuEngine, machine: Machine | None = None) -> list[str]:
    """Context against the model's own, and memory for weights, KV cache and programs."""
    faults = context_faults(settings, engine)
    try:
        if isinstance(engine, OpenVinoEngineInfo):
            weights = int(REPACKED * engine.model_bytes)
            cache = openvino_cache_bytes(settings, engine.cache_sizes())
        else:
            weights, cache = engine.gguf.stat().st_size, kv_cache_bytes(settings, engine.gguf)
    except (OSError, ValueError, KeyError, struct.error) as error:
        return [*faults, f"the engine is damaged ({error}): remove {engine.path} to rebuild it"]
    needed, free = weights + cache + PROGRAMS, (machine or Machine()).free_memory()
    if needed > free:
        faults.append(
            f"too little memory: {engine.model_id} needs about {needed / GB:.1f} GB (weights "
            f"{weights / GB:.1f}, KV cache {cache / GB:.1f} for {settings.slots} slots of {settings.context} "
            f"tokens, programs {PROGRAMS / GB:.1f}), and {free / GB:.1f} GB are free: "
            f"stop other programs, or lower {PREFIX}SLOTS or {PREFIX}CONTEXT"
        )
    return faults


def context_faults(settings: Settings, engine: CpuEngine) -> list[str]:
    """Context against the model's own."""
    if settings.context <= engine.context_length:
        return []
    return [
        f"{PREFIX}CONTEXT is {settings.context}, but {engine.model_id} was trained for "
        f"{engine.context_length} tokens: set it to that or less"
    ]


def before_start_on_gpu(settings: Settings, engine: TensorRTEngineInfo) -> list[str]:
    """Context against what the engine was built for, its tokenizer, and the GPU's free memory."""
    faults = []
    if settings.context > engine.max_seq_len:
        faults.append(
            f"{PREFIX}CONTEXT is {settings.context}, but the engine was built for {engine.max_seq_len} "
            f"tokens (profile {engine.profile}): set it to that or less, or {PREFIX}PROFILE to another"
        )
    if not engine.tokenizer_json:
        faults.append(
            f"{engine.model_id} has no tokenizer.json, which youtu_llm needs: its engine in "
            f"{engine.engine_dir} can be served with NVIDIA's own models only (docs/tensorrt_llm.md)"
        )
    profile = engine.run_profile()
    needed = sizes.sizes(profile, 0, weights=engine.engine_bytes, kv_per_token=1)
    needed_bytes = sizes.DRIVER_BYTES + needed.weights + needed.buffers
    if (free := gpu_machine.gpu().free) < needed_bytes:
        faults.append(
            f"too little GPU memory: {engine.model_id} needs {needed_bytes / GB:.1f} GB and its KV cache, "
            f"and {free / GB:.1f} GB are free: stop what else uses it (nvidia-smi lists it)"
        )
    return faults


def kv_cache_bytes(settings: Settings, gguf: Path) -> int:
    """Size of the KV cache: slots x context x layers x numbers per token and layer.

    Plain attention caches a key and a value for each KV head, which are fewer than heads where several share
    them. The MLA form caches one compressed vector and one rotated key per token and layer, 512 + 64 numbers
    in Youtu-LLM-2B: 36.9 kB a token in f16.
    """
    numbers = gguf_header.read_numbers(gguf, KV_KEYS)

    def number(name: str, otherwise: int = 0) -> int:
        value = numbers.get(name, otherwise)
        if not isinstance(value, int) or value < 1:
            raise KeyError(f"{gguf} has no number {name}")
        return value

    layers = number("block_count")
    if "attention.kv_lora_rank" in numbers and numbers.get("attention.head_count_kv", 1) == 1:
        per_token = layers * (number("attention.kv_lora_rank") + number("rope.dimension_count"))
    else:
        queries = numbers.get("attention.head_count", 0)
        cached = numbers.get("attention.head_count_kv", queries)
        heads = sum(cached) if isinstance(cached, list) else layers * cached
        widest = max(queries) if isinstance(queries, list) else number("attention.head_count")
        size = number("embedding_length") // widest
        per_token = heads * sum(number(f"attention.{name}_length", size) for name in ("key", "value"))
    return int(settings.slots * settings.context * per_token * KV_BYTES[settings.kv_type])


def openvino_cache_bytes(settings: Settings, sizes: Iterable[tuple[int, int]]) -> int:
    """Size of the KV cache when all slots are full; it grows with what is in it.

    sizes: heads, and numbers per token and head, of each tensor. With 8 bits each has a scale and a zero.
    """
    scales = 8 if settings.kv_type == "q8_0" else 0
    width = {"f16": 2, "f32": 4, "q8_0": 1}[settings.kv_type]
    per_token = sum(heads * (size * width + scales) for heads, size in sizes)
    return settings.slots * settings.context * per_token


def ports_in_use(settings: Settings, names: Iterable[str] | None = None) -> list[str]:
    """A line for every port that cannot be bound, with who holds it if that can be seen; `names`: not all."""
    faults = []
    unusable = set()  # hosts whose fault has been reported with an earlier port
    for name in settings.ports() if names is None else names:
        setting = "host" if name == "port" else "triton_host"
        host, port, variable = getattr(settings, setting), getattr(settings, name), f"{PREFIX}{name.upper()}"
        if setting in unusable:
            continue
        reason = _cannot_bind(host, port)
        if reason == errno.EADDRINUSE:
            owner = _listener(port)
            by = f" by {owner}" if owner else ""
            faults.append(
                f"port {port} is in use{by}: stop that program, or choose another port with {variable}=..."
            )
        elif reason == errno.EACCES:
            faults.append(f"this user may not open port {port}: choose one from 1024 up with {variable}=...")
        elif reason is not None:
            unusable.add(setting)
            why = os.strerror(reason) if reason > 0 else "not an address"
            faults.append(f"{PREFIX}{setting.upper()}={host}: {why}; it must be an address of this machine")
    return faults


def _cannot_bind(host: str, port: int) -> int | None:
    """None, or the errno of what is wrong; -1 when `host` means nothing."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        return -1
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the servers do: TIME_WAIT is no fault
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            return error.errno
    return None


def _listener(port: int) -> str | None:
    """Program and pid of who listens on `port`, as far as /proc shows them to this user."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: listening
                inodes.add(f"socket:[{fields[9]}]")
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # not ours to see, or ended
            for descriptor in list(descriptors.iterdir()):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    if str(descriptor.readlink()) in inodes:
                        program = (descriptors.parent / "comm").read_text().strip()
                        return f"{program} (process {descriptors.parent.name})"
    return None


def _open_files(settings: Settings, machine: Machine) -> list[str]:
    requests = settings.slots + settings.queue + SPARE_REQUESTS
    needed, allowed = 2 * requests + PROGRAM_FILES, machine.open_files()
    if allowed >= needed:
        return []
    return [
        f"too few open files: the frontend needs {needed} (two for each of {settings.slots} slots, "
        f"{settings.queue} places in the queue and {SPARE_REQUESTS} more requests, and {PROGRAM_FILES}), and "
        f"the hard limit is {allowed}: raise it (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of "
        f"docker), or lower {PREFIX}SLOTS or {PREFIX}QUEUE"
    ]


def _shared_memory(machine: Machine) -> list[str]:
    folder = machine.shared_memory
    if not os.access(folder, os.W_OK | os.X_OK):
        return [f"{folder} is missing or not writable, and Triton's Python backend needs it: mount a tmpfs"]
    if machine.free_disk(folder) < SHARED_MEMORY_NEEDED:
        return [
            f"{folder} has {machine.free_disk(folder) >> 20} MiB free and Triton's Python backend needs "
            f"{SHARED_MEMORY_NEEDED >> 20}: make it larger (docker run --shm-size=64m)"
        ]
    return []


def _documents(settings: Settings) -> list[str]:
    folder = settings.documents_dir
    if folder is None or (folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)):
        return []
    return [f"{PREFIX}DOCUMENTS_DIR={folder} is not a readable folder"]


def _disk(settings: Settings, machine: Machine) -> list[str]:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return [f"{PREFIX}DATA_DIR={settings.data_dir} cannot be created: {error.strerror}"]
    if not os.access(settings.data_dir, os.W_OK | os.X_OK):
        return [f"{PREFIX}DATA_DIR={settings.data_dir} is not writable: choose another folder"]
    free, needed = machine.free_disk(settings.data_dir), _disk_needed(settings)
    if free >= needed:
        return []
    return [
        f"too little disk: {settings.data_dir.resolve()} has {free / GB:.1f} GB free, and the engine of "
        f"{settings.model} needs {needed / GB:.1f}: free some space, or set {PREFIX}DATA_DIR to another disk"
    ]


def _disk_needed(settings: Settings) -> int:
    """Bytes that the engine will take, 0 once it is there. What is fetched is counted where it is fetched."""
    try:
        source = resolve(settings.model)
    except BuildError:
        return 0  # the build reports it itself
    for made in settings.data_dir.glob(f"engines/*/{ENGINE_JSON}"):
        described = made.read_text(encoding="utf-8")
        for_cpu = '"gguf_bytes"' in described
        if (
            for_cpu == (settings.engine != "tensorrt_llm")
            and json.dumps(str(source), ensure_ascii=False) in described
        ):
            return 0
    if source.kind != "folder" or source.path is None or settings.engine == "tensorrt_llm":
        return SPARE_DISK  # the GPU engine's build asks for itself
    weights = sum(shard.stat().st_size for shard in source.path.glob("*.safetensors"))
    return SPARE_DISK + int(ENGINE_SHARE * weights)
