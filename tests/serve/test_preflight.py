"""Each thing a machine can lack is told in one line that says what to do."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from build import memory
from build.random_gguf import SHAPES, write_random_gguf
from serve import preflight, triton
from serve.addresses import free_ports
from serve.preflight import Machine
from serve.settings import Settings
from tests.serve.engines import YOUTU_2B, an_engine, write_gguf_header


@dataclass(frozen=True)
class Poor(Machine):
    """A machine with just so much."""

    disk: int = 1 << 40
    memory: int = 1 << 40
    files: int = 1 << 20

    def free_disk(self, folder: Path) -> int:
        return self.disk

    def free_memory(self) -> int:
        return self.memory

    def open_files(self) -> int:
        return self.files


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    port, http_port, grpc_port, metrics_port = free_ports(4)
    return Settings(
        data_dir=tmp_path / "var",
        port=port,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def test_nothing_is_wrong_with_this_machine(settings: Settings, tmp_path: Path) -> None:
    assert preflight.before_build(settings) == []
    assert preflight.before_start(settings, an_engine(tmp_path / "engine")) == []


@pytest.mark.parametrize("name", ["port", "http_port", "grpc_port", "metrics_port"])
def test_a_taken_port_is_named_with_setting_and_owner(settings: Settings, taken_port: int, name: str) -> None:
    (fault,) = preflight.ports_in_use(settings.model_copy(update={name: taken_port}))
    assert fault.startswith(f"port {taken_port} is in use by python")
    assert f"(process {os.getpid()})" in fault
    assert f"YOUTU_{name.upper()}=" in fault


def test_the_http_port_does_not_matter_when_http_is_off(settings: Settings, taken_port: int) -> None:
    off = settings.model_copy(update={"http_port": taken_port, "triton_http": "off"})
    assert preflight.ports_in_use(off) == []


def test_a_low_hard_limit_on_open_files_is_reported_with_the_sum(settings: Settings) -> None:
    """The frontend ended with a traceback, and the start with "frontend does not start"."""
    chosen = settings.model_copy(update={"slots": 4, "queue": 64})
    (fault,) = preflight.before_build(chosen, Poor(files=463))
    assert fault.startswith("too few open files: the frontend needs 464 (two for each of 4 slots, 64 places")
    assert "the hard limit is 463" in fault
    assert "ulimit -Hn" in fault
    assert "YOUTU_QUEUE" in fault
    assert preflight.before_build(chosen, Poor(files=464)) == []


def test_the_machine_tells_its_hard_limit() -> None:
    command = ["sh", "-c", 'ulimit -n 321; exec "$0" "$@"', sys.executable, "-c"]
    shown = subprocess.run(
        [*command, "from serve.preflight import Machine; print(Machine().open_files())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "321"


def test_a_port_that_was_used_a_moment_ago_is_free(settings: Settings) -> None:
    """Connections in TIME_WAIT keep nobody from listening, and must not be told as a fault."""
    listener = socket.create_server(("127.0.0.1", settings.port))
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        accepted.close()
    assert preflight.ports_in_use(settings) == []


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "nowhere.invalid"])
def test_an_address_that_is_not_ours_is_reported_once(settings: Settings, host: str) -> None:
    (fault,) = preflight.ports_in_use(settings.model_copy(update={"triton_host": host}))
    assert fault.startswith(f"YOUTU_TRITON_HOST={host}: ")
    (fault,) = preflight.ports_in_use(settings.model_copy(update={"host": host}))
    assert fault.startswith(f"YOUTU_HOST={host}: ")


@pytest.mark.parametrize(
    ("system", "machine", "libc"),
    [
        ("Darwin", "arm64", ("", "")),
        ("Windows", "AMD64", ("", "")),
        ("Linux", "riscv64", ("glibc", "2.36")),
        ("Linux", "x86_64", ("glibc", "2.31")),
        ("Linux", "x86_64", ("", "")),
    ],
)
def test_a_platform_without_triton_is_reported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, libc: tuple[str, str]
) -> None:
    for name, answer in (("system", system), ("machine", machine), ("libc_ver", libc)):
        monkeypatch.setattr(platform, name, lambda answer=answer: answer)
    (fault,) = preflight.before_build(settings)
    assert fault.startswith("Triton's binary needs Linux on x86-64 or arm64 with glibc 2.35")
    assert system in fault
    assert machine in fault


def test_a_missing_libpython_is_reported_with_its_package(tmp_path: Path) -> None:
    version = sysconfig.get_python_version()
    with pytest.raises(triton.TritonMissing, match=f"apt-get install libpython{version}") as caught:
        triton.find_libpython([str(tmp_path)])
    assert f"libpython{version}.so.1.0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_openmp_is_reported_with_its_package() -> None:
    with pytest.raises(triton.TritonMissing, match="apt-get install libgomp1") as caught:
        triton.check_library("libgomp-none.so.1")
    assert "libgomp-none.so.1" in str(caught.value)
    triton.check_library("libgomp.so.1")


def test_libpython_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    library = tmp_path / triton.find_libpython().name
    library.write_text("")
    assert triton.find_libpython([str(tmp_path / "none"), str(tmp_path)]) == library


@pytest.mark.parametrize("free", [0, preflight.SPARE_DISK - 1])
def test_too_little_disk_is_reported(settings: Settings, free: int) -> None:
    faults = preflight.before_build(settings, Poor(disk=free))
    assert any(fault.startswith("too little disk: ") and "YOUTU_DATA_DIR" in fault for fault in faults)


def test_a_checkpoints_engine_needs_disk_once(settings: Settings, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.truncate(4_000_000_000)  # sparse
    chosen = settings.model_copy(update={"model": str(checkpoint)})
    machine = Poor(disk=2_000_000_000)
    (fault,) = preflight.before_build(chosen, machine)
    assert fault.startswith("too little disk: ")
    assert "needs 2.5" in fault
    made = an_engine(settings.data_dir / "engines" / "it", source=str(checkpoint))
    made.save()
    assert preflight.before_build(chosen, machine) == []


def test_a_data_folder_that_cannot_be_made_is_reported(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    faults = preflight.before_build(settings.model_copy(update={"data_dir": tmp_path / "file" / "var"}))
    assert len(faults) == 1
    assert faults[0].startswith(f"YOUTU_DATA_DIR={tmp_path / 'file' / 'var'} cannot be created")


def test_a_folder_of_documents_that_is_not_there_is_reported(settings: Settings, tmp_path: Path) -> None:
    there = settings.model_copy(update={"documents_dir": tmp_path})
    missing = settings.model_copy(update={"documents_dir": tmp_path / "none"})
    fault = f"YOUTU_DOCUMENTS_DIR={tmp_path / 'none'} is not a readable folder"
    assert fault in preflight.before_build(missing)
    frontend_alone = missing.model_copy(update={"triton_servers": "127.0.0.1:8001"})
    assert preflight.before_build(frontend_alone) == [fault]
    assert not any("DOCUMENTS_DIR" in each for each in preflight.before_build(there))


def test_shared_memory_that_is_missing_or_small_is_reported(settings: Settings, tmp_path: Path) -> None:
    (fault,) = preflight.before_build(settings, Machine(shared_memory=tmp_path / "none"))
    assert "mount a tmpfs" in fault
    faults = preflight.before_build(settings, Poor(disk=(16 << 20) - 1, shared_memory=tmp_path))
    assert any("--shm-size" in fault for fault in faults)


def test_all_faults_are_found_at_once(settings: Settings, taken_port: int, tmp_path: Path) -> None:
    poor = Poor(disk=0, shared_memory=tmp_path / "none")
    assert len(preflight.before_build(settings.model_copy(update={"port": taken_port}), poor)) == 3


def test_too_little_memory_is_reported_with_the_sum(settings: Settings, tmp_path: Path) -> None:
    engine = an_engine(tmp_path / "engine")
    (fault,) = preflight.before_start(settings, engine, Poor(memory=800_000_000))
    assert fault.startswith("too little memory: a-model needs about 0.8 GB")
    assert "KV cache 0.3 for 4 slots of 2048 tokens" in fault
    assert "YOUTU_SLOTS" in fault
    assert preflight.before_start(settings, engine, Poor(memory=900_000_000)) == []


@pytest.mark.parametrize(("kv_type", "per_token"), [("f16", 36_864), ("f32", 73_728), ("q8_0", 19_584)])
def test_the_kv_cache_of_the_2b_shape(
    settings: Settings, tmp_path: Path, kv_type: str, per_token: int
) -> None:
    engine = an_engine(tmp_path / "engine")
    chosen = settings.model_copy(update={"kv_type": kv_type, "slots": 3, "context": 1000})
    assert preflight.kv_cache_bytes(chosen, engine.gguf) == 3 * 1000 * per_token


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ("tiny-chatglm", 3 * 2 * (2 * 16)),  # 3 layers, 2 of 4 heads cached, each 16 wide
        ("tiny-llama", 3 * 2 * (2 * 16)),
        ("tiny-qwen3", 3 * 2 * (2 * 32)),  # its heads are wider than 64 / 4
    ],
)
def test_plain_attention_caches_keys_and_values_of_each_cached_head(
    settings: Settings, tmp_path: Path, shape: str, numbers: int
) -> None:
    write_random_gguf(tmp_path / "model.gguf", SHAPES[shape], "tiny")
    chosen = settings.model_copy(update={"slots": 3, "context": 1000})
    assert preflight.kv_cache_bytes(chosen, tmp_path / "model.gguf") == 3 * 1000 * numbers * 2


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({}, 2 * 4 * (16 + 16)),  # as many KV heads as heads where the file says nothing
        ({"attention.head_count_kv": [1, 3]}, (1 + 3) * (16 + 16)),  # another count in each layer
        ({"attention.head_count_kv": 2, "attention.value_length": 8}, 2 * 2 * (16 + 8)),
        # DeepSeek's form without the compressed cache
        (
            {"attention.kv_lora_rank": 512, "attention.head_count_kv": 4, "attention.key_length": 24},
            2 * 4 * 40,
        ),
    ],
)
def test_what_a_header_may_say_of_the_cached_heads(
    settings: Settings, tmp_path: Path, changes: dict[str, int | list[int]], numbers: int
) -> None:
    header = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4} | changes
    write_gguf_header(tmp_path / "model.gguf", header, architecture="llama")
    chosen = settings.model_copy(update={"slots": 1, "context": 1000})
    assert preflight.kv_cache_bytes(chosen, tmp_path / "model.gguf") == 1000 * numbers * 2


def test_a_context_beyond_the_models_own_is_reported(settings: Settings, tmp_path: Path) -> None:
    engine = an_engine(tmp_path / "engine", context_length=1024)
    (fault,) = preflight.before_start(settings, engine)
    assert fault.startswith("YOUTU_CONTEXT is 2048, but a-model was trained for 1024 tokens")


@pytest.mark.parametrize("damage", ["empty", "other file", "cut off", "key missing"])
def test_a_damaged_engine_is_reported(settings: Settings, tmp_path: Path, damage: str) -> None:
    engine = an_engine(tmp_path / "engine")
    whole = engine.gguf.read_bytes()
    if damage == "key missing":
        write_gguf_header(engine.gguf, {name: YOUTU_2B[name] for name in list(YOUTU_2B)[:2]})
    else:
        contents = {"empty": b"", "other file": b"PK" + whole[2:], "cut off": whole[:100]}
        engine.gguf.write_bytes(contents[damage])
    (fault,) = preflight.before_start(settings, engine)
    assert fault.startswith("the engine is damaged")
    assert f"remove {engine.path}" in fault


def test_a_control_groups_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_control_group_room", lambda: [12345])
    assert Machine().free_memory() == 12345


def test_a_control_groups_cache_of_files_can_be_had_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container with a limit, a checkpoint just converted filled it, and the start was refused."""
    group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
    folder = tmp_path / group.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"max": "6000", "current": "5900", "stat": "anon 900\ninactive_file 4000\n"}.items():
        (folder / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    assert Machine().free_memory() == 6000 - 5900 + 4000
    (folder / "memory.max").write_text("max")
    assert Machine().free_memory() > 1 << 20
