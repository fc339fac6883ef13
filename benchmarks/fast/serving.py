"""`python -m serve` with the engine's model replaced: `python -m benchmarks.fast.serving packed|single RATE`.

packed: our engine's model, whose engine makes RATE tokens a second for each request (`engine.py`).
single: a backend in Triton's own process that sends each token alone, as NVIDIA's does (`backend.c`).

Everything else is started as always. The settings come from the environment, as for `python -m serve`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from build.engine_info import TOKENIZER
from build.runtimes import CpuEngine
from serve import __main__ as serving
from serve import launch, repository
from serve.settings import Settings

HERE = Path(__file__).parent
TEXT = "The quick brown fox jumps over the lazy dog, and 我能吞下玻璃而不伤身体。 "
MODEL, BACKEND = "youtu_engine", "fast"


def tokens(engine: CpuEngine) -> list[int]:
    """The tokens of TEXT, of which every answer consists again and again."""
    tokenizer = Tokenizer.from_file(str(engine.path / TOKENIZER))
    ids: list[int] = tokenizer.encode(TEXT, add_special_tokens=False).ids
    return ids


def replace_engine(target: Path, engine: CpuEngine, kind: str, rate: float, interval_ms: float) -> None:
    """In the rendered repository `target`."""
    model, text = target / MODEL / "1", tokens(engine)
    if kind == "packed":
        (model / "engine.py").write_bytes((HERE / "engine.py").read_bytes())
        (model / "plan.json").write_text(json.dumps({"tokens": text, "rate": rate}), encoding="utf-8")
        return
    _edit(target / MODEL, 'backend: "python"', f'backend: "{BACKEND}"')
    # youtu_llm has the whole stream interval, as in front of NVIDIA's, which keeps none.
    own, whole = (
        f'"stream_interval_ms"\n  value {{\n    string_value: "{ms}"'
        for ms in (repository.JITTER * interval_ms, interval_ms)
    )
    _edit(target / "youtu_llm", own, whole)
    facts = [f"-DPERIOD_NS={round(1e9 / rate)}", f"-DTOKENS={','.join(map(str, text))}"]
    library = model / f"libtriton_{BACKEND}.so"
    compiler = ["cc", "-O2", "-shared", "-fPIC", "-pthread", str(HERE / "backend.c")]
    subprocess.run([*compiler, *facts, "-o", str(library)], check=True)


def _edit(model: Path, old: str, new: str) -> None:
    """In the configuration of a rendered model."""
    path = model / repository.CONFIG
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"{path} has no {old!r}")
    path.write_text(text.replace(old, new), encoding="utf-8")


def main() -> int:
    kind, rate = sys.argv[1], float(sys.argv[2])
    del sys.argv[1:]  # serve has options of its own

    def render(settings: Settings, engine: Any, target: Path) -> Path:
        repository.render(settings, engine, target)
        replace_engine(target, engine, kind, rate, settings.stream_interval_ms)
        return target

    vars(launch)["render"] = render
    return serving.main()


if __name__ == "__main__":
    sys.exit(main())
