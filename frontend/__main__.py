"""`python -m frontend`: the HTTP server, in the foreground. Exit 0 after SIGTERM, 1 when it cannot start."""

from __future__ import annotations

import sys


def main() -> int:
    """Load the settings, bind the port, serve until told to end."""
    # Here, not above: a child process that is spawned imports this module, and needs none of them.
    from serve.settings import Settings, SettingsError

    from . import logs
    from .keys import Keys, KeysError
    from .server import CannotListen, CannotStart, listen, serve

    try:
        settings = Settings.load()
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


if __name__ == "__main__":
    sys.exit(main())
