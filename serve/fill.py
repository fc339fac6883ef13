"""`python -m serve.fill`: fill the model repository for an existing GPU engine and print its path.

The last step of `make engine ENGINE=tensorrt_llm`. `make serve` fills one of its own at every start; this one
is for a manually started Triton: tritonserver --model-repository=...
"""

from __future__ import annotations

import sys

from build.errors import BuildError
from build.tensorrt_llm.engine import built, plan
from serve.repository import RepositoryError, render
from serve.settings import Settings, SettingsError


def main() -> None:
    """Exit status 1 and a line on stderr when there is no engine, or the settings do not fit."""
    try:
        settings = Settings.load()
        if settings.engine != "tensorrt_llm":
            raise BuildError(
                "YOUTU_ENGINE must be tensorrt_llm: the CPU engine's repository is created when it starts"
            )
        made = built(plan(settings.model, settings.data_dir, settings.profile))
        if made is None:
            raise BuildError(f"no engine of {settings.model} with the profile {settings.profile}")
        target = render(settings, made, settings.data_dir.absolute() / "model_repository")
    except (BuildError, RepositoryError, SettingsError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    main()
