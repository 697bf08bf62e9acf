"""``python -m trevsnn``."""

import sys

from trevsnn.cli.main import main

sys.exit(main())
