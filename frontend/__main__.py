"""`python -m frontend`: the HTTP server, in the foreground. Exit 0 after SIGTERM, 1 when it cannot start."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve.settings import Settings


def main() -> int:
    """Load the settings, bind the port, serve until SIGTERM or SIGINT."""
    # Here, not above: a child process that is spawned imports this module, and needs none of them.
    from serve.settings import SettingsError

    from . import logs
    from .keys import Keys, KeysError
    from .server import CannotListen, CannotStart, listen, serve

    try:
        settings = _settings(sys.argv[1:])
        Keys.of(settings)
        listener = listen(settings.host, settings.port)
    except (SettingsError, KeysError, CannotListen) as error:
        sys.stderr.write(f"frontend: {error}\n")
        return 1
    logs.configure(settings.log_level)
    try:
        serve(settings, listener)
    except CannotStart as error:
        sys.stderr.write(f"frontend: {error}\n")
        return 1
    return 0


def _settings(arguments: list[str]) -> Settings:
    """Those of the file that `--settings` names; without it, those of environment and TOML file."""
    from serve.settings import Settings

    parser = argparse.ArgumentParser(prog="python -m frontend", allow_abbrev=False)
    parser.add_argument("--settings", type=Path, metavar="FILE", help="JSON written by `python -m serve`")
    given = parser.parse_args(arguments).settings
    return Settings.load() if given is None else Settings.from_document(given)


if __name__ == "__main__":
    sys.exit(main())
