"""`python -m backend`: everything that the studio does, without a browser."""

from __future__ import annotations

import sys

from backend.cli.commands import main

sys.exit(main(sys.argv[1:]))
