"""`python -m build MODEL`: build the engine that serves MODEL, and print its path."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from build.catalogue import HUBS
from build.engine import WEIGHTS, make_engine
from build.errors import BuildError
from build.progress import TerminalProgress
from build.runtimes import RUNTIMES, CpuEngine, make_chosen_engine


def main() -> None:
    """The command line; exit status 1 and one line on stderr for a BuildError, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m build", description="fetch a model and convert it to an engine"
    )
    parser.add_argument(
        "model", help="demo | smollm2 | Youtu-LLM-2B | organisation/name on the hub | folder | file.gguf"
    )
    parser.add_argument("--data-dir", type=Path, default=Path("var"), help="folder for downloads and engines")
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default=os.environ.get("YOUTU_RUNTIME", "auto"),
        help="runtime of the engine (default: chosen for this processor)",
    )
    parser.add_argument(
        "--weights", choices=WEIGHTS, help="weight format for llama.cpp (default: q8_0, which is int8)"
    )
    parser.add_argument("--hub", choices=HUBS, default=os.environ.get("YOUTU_HUB", "auto"), help="where from")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for library in ("huggingface_hub", "httpx2"):
        logging.getLogger(library).setLevel(logging.ERROR)
    progress = TerminalProgress()
    try:
        hub, root = arguments.hub, arguments.data_dir
        engine: CpuEngine
        if arguments.weights:
            engine = make_engine(arguments.model, root, weights=arguments.weights, hub=hub, progress=progress)
        else:
            engine = make_chosen_engine(
                arguments.model, root, runtime=arguments.runtime, hub=hub, progress=progress, say=_say
            )
    except BuildError as error:
        progress.close()
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        progress.close()
        sys.stderr.write("\ninterrupted; the next start continues with what was fetched\n")
        sys.exit(130)
    sys.stdout.write(f"{engine.path}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
