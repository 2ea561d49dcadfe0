"""Where the reference implementation's answers lie: ORACLES_DIR, else the copy beside the tests."""

from __future__ import annotations

import os
from pathlib import Path

ORACLES = Path(os.environ.get("ORACLES_DIR") or Path(__file__).parent / "data" / "oracles")


def oracle(name: str) -> Path:
    """The oracle file or folder `name`, e.g. `textvqa.json` or `mgm_tiny`."""
    return ORACLES / name
