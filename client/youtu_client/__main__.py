"""`python -m youtu_client` is the command `youtu`, see `youtu_cli`."""

import sys

from youtu_cli.__main__ import main

sys.exit(main())
