"""``python -m teleopen.cli`` is ``teleopen``."""

import sys

from .main import main

sys.exit(main())
