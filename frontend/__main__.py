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
    from .handover import take
    from .keys import Keys, KeysError
    from .server import CannotListen, CannotStart, listen, serve

    try:
        given = _arguments(sys.argv[1:])
        settings = _settings(given.settings)
        Keys.of(settings)
        taken = take(given.take) if given.take else None
        listener = taken or listen(settings.host, settings.port)
    except (SettingsError, KeysError, CannotListen) as error:
        sys.stderr.write(f"frontend: {error}\n")
        return 1
    logs.configure(settings.log_level)
    try:
        serve(settings, listener, offer_at=given.offer, wait=taken is not None)
    except CannotStart as error:
        sys.stderr.write(f"frontend: {error}\n")
        return 1
    return 0


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m frontend", allow_abbrev=False)
    parser.add_argument("--settings", type=Path, metavar="FILE", help="JSON written by `python -m serve`")
    parser.add_argument("--offer", type=Path, metavar="PATH", help="where to offer the socket to a successor")
    parser.add_argument("--take", type=Path, metavar="PATH", help="where a predecessor offers its socket")
    return parser.parse_args(arguments)


def _settings(document: Path | None) -> Settings:
    """Those of the file; without one, those of environment and TOML file."""
    from serve.settings import Settings

    return Settings.load() if document is None else Settings.from_document(document)


if __name__ == "__main__":
    sys.exit(main())
