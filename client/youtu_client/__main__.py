"""`python -m youtu_client` is the command `youtu`."""

import sys

from .cli import main

sys.exit(main())
