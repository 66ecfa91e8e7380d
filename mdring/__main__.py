"""``python -m mdring`` is the ``mdring`` command."""

import sys

from mdring.cli.main import main

sys.exit(main())
