"""`python -m clbook` is the command `clbook`."""

import sys

from clbook.cli import main

sys.exit(main())
