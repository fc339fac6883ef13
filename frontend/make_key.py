"""`python -m frontend.make_key FILE NAME`: prints a new API key, whose hash goes into the file."""

from __future__ import annotations

import sys
from pathlib import Path

from .keys import KeysError, add


def main() -> None:
    """Exit 1 with one line when the key cannot be made."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m frontend.make_key FILE NAME")
    try:
        key = add(Path(sys.argv[1]), sys.argv[2])
    except (KeysError, OSError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{key}\n")


if __name__ == "__main__":
    main()
