"""`python -m vwsdlib.cli`."""

import sys

from . import main

sys.exit(main())
