"""The workspace of the training tests, made once."""

from __future__ import annotations

import pytest

from backend.workspace import Workspace
from tests.training.small import make_workspace


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The tiny model and 24 samples."""
    return make_workspace(tmp_path_factory.mktemp("train*ing[1]"))
