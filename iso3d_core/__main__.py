"""`python -m iso3d_core` is `iso3d`."""

import sys

from .cli import main

sys.exit(main())
