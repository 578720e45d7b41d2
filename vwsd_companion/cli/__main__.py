"""`python -m vwsd_companion.cli`."""

import sys

from . import main

sys.exit(main())
