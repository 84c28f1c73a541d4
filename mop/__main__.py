"""``python -m mop`` is the ``mop`` command."""

import sys

from mop.cli import main

sys.exit(main())
