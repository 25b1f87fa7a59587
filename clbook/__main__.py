"""`python -m clbook` is the command `clbook`."""

import sys

from clbook.lab.cli import main

sys.exit(main())
