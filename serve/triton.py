"""Where Triton is and how it is started: the binary of the nvidia-pytriton wheel, or of NVIDIA's container.

The wheel brings the binary, its Python backend and one stub program per Python version; the stub needs
the libpython of the running version, which the wheel does not contain. The container, where the GPU engine is
served, has all of it and the tensorrtllm backend. This module finds these parts, lays a backend folder
together, and writes the command line and the environment. It starts nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from build.tensorrt_llm.machine import IMAGE, docker_run
from serve.run_folder import RunFolder
from serve.settings import Settings

CONTAINER = Path("/opt/tritonserver/bin")  # where NVIDIA's container has tritonserver; on its PATH too
MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 35)
STUB = "triton_python_backend_stub"
# Without these it looks for a GPU at every start, and complains.
WITHOUT_GPU = {
    "allow-gpu-metrics": "false",
    "pinned-memory-pool-byte-size": 0,
    "cuda-memory-pool-byte-size": "0:0",
}

# What manages the server rather than uses a model, in Triton's words. A setting opens the last one.
MANAGEMENT = ("model-repository", "logging", "trace")
SHARED_MEMORY = "shared-memory"
# The header that would open these. It cannot be sent: in HTTP a name ends at the first colon, and gRPC resets
# a call whose metadata has a colon, a space or a capital letter in a name. Triton's refusal quotes the name.
CLOSED = "None: closed by this deployment"
# Triton 2.51 puts 16 bytes on the stack for every chunk of an HTTP request (CVE-2025-23310, CVE-2025-23311)
# and about 73 for every nesting level of its JSON. In KiB; only what is used takes memory.
STACK = 256 << 10
WITH_STACK = ("sh", "-c", f'ulimit -Ss {STACK} 2>/dev/null; exec "$0" "$@"')


class TritonMissing(Exception):
    """A part without which Triton cannot run here; the message says how to get it."""


@dataclass(frozen=True)
class Triton:
    """The parts of Triton for this Python. `libpython` is a file; None where the stub finds it by itself."""

    server: Path
    backend: Path
    stub: Path
    libpython: Path | None


def find(settings: Settings) -> Triton:
    """The parts that the engine of `settings` needs. Raises TritonMissing for the first that is not there."""
    return find_in_container(settings) if settings.engine == "tensorrt_llm" else find_in_wheel()


def find_in_container(settings: Settings) -> Triton:
    """The container's Triton and the backends beside it. TritonMissing, outside of it, says how to get in."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(CONTAINER)))
    found = shutil.which("tritonserver", path=path)
    backends = Path(found).parent.parent / "backends" if found else None
    if found is None or backends is None or not (backends / "tensorrtllm").is_dir():
        variables = {"ENGINE": settings.engine, "MODEL": settings.model, "PROFILE": settings.profile}
        raise TritonMissing(
            "the engine tensorrt_llm is served inside NVIDIA's container, and there is no tritonserver with "
            f"a tensorrtllm backend here; start it there: {docker_run(['make', 'serve'], variables)}"
        )
    stub = backends / "python" / STUB
    if not stub.is_file():
        raise TritonMissing(f"{stub} is missing: use {IMAGE}")
    linked = re.search(rb"libpython(3\.\d+)\.so", stub.read_bytes())
    version = linked.group(1).decode() if linked else sysconfig.get_python_version()
    if version != sysconfig.get_python_version():
        raise TritonMissing(
            f"Triton runs its models in Python {version}, but this is {sysconfig.get_python_version()}: make "
            f"clean, then start with PYTHON=python{version}"
        )
    return Triton(Path(found), backends / "python", stub, libpython=None)


def find_in_wheel() -> Triton:
    """The wheel's Triton. Raises TritonMissing for the first part that is not there."""
    unsupported = _unsupported(platform.system(), platform.machine(), platform.libc_ver())
    if unsupported:
        raise TritonMissing(unsupported)
    package = find_spec("pytriton")
    if package is None or package.origin is None:
        raise TritonMissing("nvidia-pytriton is not installed: run `make install`")
    root = Path(package.origin).parent / "tritonserver"
    triton = Triton(
        server=root / "bin" / "tritonserver",
        backend=root / "backends" / "python",
        stub=root / "python_backend_stubs" / sysconfig.get_python_version() / STUB,
        libpython=find_libpython(),
    )
    check_library("libgomp.so.1")
    for part in (triton.server, triton.backend, triton.stub):
        if not part.exists():
            raise TritonMissing(
                f"nvidia-pytriton lacks {part}: remove the environment and run `make install`"
            )
    return triton


def _unsupported(system: str, machine: str, libc: tuple[str, str]) -> str | None:
    here = f"{system} on {machine} with {' '.join(libc).strip() or 'an unknown C library'}"
    version = tuple(int(part) for part in libc[1].split(".")[:2] if part.isdigit())
    if system == "Linux" and machine in MACHINES and libc[0] == "glibc" and version >= GLIBC:
        return None
    return f"Triton's binary needs Linux on x86-64 or arm64 with glibc 2.35 or newer; this is {here}"


def check_library(name: str) -> None:
    """Raises TritonMissing unless the system has GCC's OpenMP library, which llama.cpp is linked against."""
    try:
        ctypes.CDLL(name)
    except OSError:
        raise TritonMissing(
            f"llama.cpp needs {name}, which is not installed. Debian, Ubuntu: apt-get install libgomp1. "
            "Fedora: dnf install libgomp."
        ) from None


def find_libpython(folders: Sequence[str] | None = None) -> Path:
    """The shared library of the running Python, in its own library folder or else in the system's.

    `folders` replaces these. Raises TritonMissing, naming the package to install.
    """
    version, machine = sysconfig.get_python_version(), platform.machine()
    name = f"libpython{version}.so.1.0"
    own = (str(sysconfig.get_config_var("LIBDIR")), f"{sys.base_prefix}/lib")
    system = (f"/usr/lib/{machine}-linux-gnu", "/usr/local/lib", "/usr/lib64", "/usr/lib")
    for folder in (*own, *system) if folders is None else folders:
        if (file := Path(folder) / name).is_file():
            return file
    raise TritonMissing(
        f"Triton's Python backend needs {name}, and Python {version} at {sys.base_prefix} came without it. "
        f"Debian, Ubuntu: apt-get install libpython{version}. Fedora: dnf install python{version}-libs. "
        "Or use a Python built with --enable-shared: make clean serve PYTHON=..."
    )


def lay_out_backend(triton: Triton, folder: Path) -> Path:
    """Make `folder` a backend directory for Triton (replacing it): links to the backend and to our stub.

    The container's is whole as it is, and is returned in its place.
    """
    if triton.libpython is None:
        return triton.backend.parent
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "python"
    python.mkdir(parents=True)
    for part in (*triton.backend.glob("*.so"), *triton.backend.glob("*.py"), triton.stub):
        (python / part.name).symlink_to(part)
    return folder


def command(
    triton: Triton, settings: Settings, run: RunFolder, repository: Path, backends: Path
) -> list[str]:
    """tritonserver's command line, which loads all of `repository` and nothing else, ever.

    Strict readiness: all models are ready. Each call makes another key, which nobody knows and none can send.
    """
    host = settings.triton_host
    over_http = f"ipv6:{host}" if ":" in host else host  # libevhtp's notation, and gRPC's
    closed = [*MANAGEMENT, *([] if settings.triton_shared_memory == "on" else [SHARED_MEMORY])]
    restriction = f"{','.join(closed)}:{CLOSED}={secrets.token_hex(32)}"
    options = {
        "model-repository": repository,
        "backend-directory": backends,
        "model-control-mode": "none",
        "http-restricted-api": restriction,
        "grpc-restricted-protocol": restriction,
        "allow-sagemaker": "false",
        "allow-vertex-ai": "false",  # by default opened by a variable of the environment
        "strict-readiness": "true",
        "exit-timeout-secs": round(settings.drain_timeout),
        "backend-config": f"python,shm-region-prefix-name={run.shared_memory_prefix}",
        "allow-http": str(settings.triton_http == "on").lower(),
        "http-address": over_http,
        "http-port": settings.http_port,
        "grpc-address": f"[{host}]" if ":" in host else host,
        "grpc-port": settings.grpc_port,
        "metrics-address": over_http,
        "metrics-port": settings.metrics_port,
        **({} if settings.engine == "tensorrt_llm" else WITHOUT_GPU),
        "log-format": "ISO8601",
        "log-info": str(settings.log_level in ("debug", "info")).lower(),
        "log-warning": str(settings.log_level != "error").lower(),
        "log-verbose": int(settings.log_level == "debug"),
    }
    traces = []
    if settings.otlp_endpoint:
        url = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
        traces = ["mode=opentelemetry", "level=TIMESTAMPS", "rate=1", f"opentelemetry,url={url}"]
    return [
        *(WITH_STACK if triton.libpython is not None and _stack_is_free() else ()),  # the wheel's 2.51
        str(run.inside_python(triton.server)),
        "--disable-auto-complete-config",  # the configurations are whole; saves a start of every stub
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--trace-config={trace}" for trace in traces),
    ]


def _stack_is_free() -> bool:
    """Whether a thread's unused stack costs nothing; else many large ones could keep Triton from starting."""
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    strict = overcommit.exists() and overcommit.read_text().strip() == "2"
    return not strict and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def environment(triton: Triton, run: RunFolder) -> dict[str, str]:
    """What tritonserver's environment needs beside ours.

    The stub starts its Python in isolated mode, where PYTHONPATH counts for nothing: it finds the packages
    because the first `python3` on the PATH is the virtual environment's.
    """
    path = {"PATH": f"{run.path / 'python' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    return path if triton.libpython is None else path | {"LD_LIBRARY_PATH": str(triton.libpython.parent)}
