"""`python -m frontend`: the HTTP server, in the foreground. Exit 0 after SIGTERM, 1 when it cannot start."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from serve.settings import Settings, SettingsError

from . import logs
from .keys import Keys, KeysError
from .server import CannotListen, Server, listen


def main() -> int:
    """Load the settings, bind the port, serve until told to end. Returns only when it could not start."""
    try:
        settings = _settings(sys.argv[1:])
        Keys.of(settings)
        listener = listen(settings.host, settings.port)
    except (SettingsError, KeysError, CannotListen) as error:
        sys.stderr.write(f"frontend: {error}\n")
        return 1
    logs.configure(settings.log_level)
    Server(settings, listener).run()
    return 0


def _settings(arguments: list[str]) -> Settings:
    """Those of the file that `--settings` names; without it, those of environment and TOML file."""
    parser = argparse.ArgumentParser(prog="python -m frontend", allow_abbrev=False)
    parser.add_argument("--settings", type=Path, metavar="FILE", help="JSON written by `python -m serve`")
    given = parser.parse_args(arguments).settings
    return Settings.load() if given is None else Settings.from_document(given)


if __name__ == "__main__":
    sys.exit(main())
