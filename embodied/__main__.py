"""`python -m embodied` is the command line."""

import sys

from embodied.cli import main

sys.exit(main())
