"""`python -m build.tensorrt_llm MODEL --profile 8gb`: make the GPU engine, and say on stdout where it is.

Outside NVIDIA's container it makes nothing, and says how the same command is run inside.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from build.catalogue import HUBS, profiles
from build.errors import BuildError
from build.progress import TerminalProgress
from build.tensorrt_llm.engine import make_engine
from build.tensorrt_llm.machine import NotInContainer, docker_run


def main() -> None:
    """The command line; exit status 1 and what is wrong on stderr for a BuildError, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m build.tensorrt_llm", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="demo | Youtu-LLM-2B | another of the catalogue | hub id | folder")
    parser.add_argument("--profile", default="8gb", help=f"one of {', '.join(profiles())} (default: 8gb)")
    parser.add_argument("--data-dir", type=Path, default=Path("var"), help="folder for downloads and engines")
    parser.add_argument("--hub", choices=HUBS, default=os.environ.get("YOUTU_HUB", "auto"), help="where from")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for library in ("huggingface_hub", "httpx2"):
        logging.getLogger(library).setLevel(logging.ERROR)
    progress = TerminalProgress()
    try:
        engine = make_engine(
            arguments.model, arguments.data_dir, arguments.profile, hub=arguments.hub, progress=progress
        )
    except NotInContainer as error:
        variables = {"ENGINE": "tensorrt_llm", "MODEL": arguments.model, "PROFILE": arguments.profile}
        sys.stdout.write(f"{docker_run(['make', 'engine'], variables)}\n")
        sys.exit(f"error: {error}; the line above runs it there")
    except BuildError as error:
        progress.close()
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        progress.close()
        sys.stderr.write("\ninterrupted; the next start continues after the steps already done\n")
        sys.exit(130)
    sys.stdout.write(f"{engine.path}\n")


if __name__ == "__main__":
    main()
