"""The command `youtu`, also as `python -m youtu_client`."""

import os
import sys


def main() -> int:
    """Run the command line; returns its exit code."""
    # What gRPC would log reaches the user as an error anyway. It reads this while it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from . import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
