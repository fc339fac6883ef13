"""The command `youtu`, also as `python -m youtu_cli`."""

import os
import sys


def main() -> int:
    """Run the command line; returns its exit code."""
    # What gRPC would log reaches the user as an error anyway. It reads this while it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from .main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
