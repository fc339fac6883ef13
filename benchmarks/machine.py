"""What a figure was measured on: processor, memory, versions, commit, load beforehand, and the GPUs if
any.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("xllamacpp", "openvino", "nvidia-pytriton", "gguf", "tritonclient", "uvicorn", "locust", "numpy")
FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "avx512_bf16",
    "amx_bf16",
    "asimddp",
    "i8mm",
)


def facts() -> dict[str, Any]:
    """All of it as JSON-able values; memory in bytes."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu.get("model name", platform.machine()),
        "cpu_features": [flag for flag in FLAGS if flag in features],
        "held_to": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),  # what OpenVINO and torch may use of them
        "cores": len(os.sched_getaffinity(0)),
        "memory": psutil.virtual_memory().total,
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "gpus": gpus(),
    }


def gpus() -> list[dict[str, Any]]:
    """Name, driver and memory in use of each NVIDIA GPU: of the device, and of each process on it (NVML)."""
    import pynvml  # nvidia-ml-py

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            found.append(
                {
                    "name": str(pynvml.nvmlDeviceGetName(handle)),
                    "driver": str(pynvml.nvmlSystemGetDriverVersion()),
                    "total": int(memory.total),
                    "used": int(memory.used),
                    "processes": {str(each.pid): int(each.usedGpuMemory or 0) for each in processes},
                }
            )
        return found
    finally:
        pynvml.nvmlShutdown()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
