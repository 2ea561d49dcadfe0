"""Every store test reads a folder whose name is a pattern that matches a neighbor as well."""

from __future__ import annotations

from pathlib import Path

import pytest


def among_patterns(folder: Path) -> Path:
    """A folder that DuckDB reads twice when it takes the name for a pattern."""
    (folder / "a*").mkdir()
    (folder / "ab").symlink_to("a*")
    return folder / "a*"


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    return among_patterns(tmp_path)
