"""The tiny reference model, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.mgm.checkpoints import MGM
from tests.mgm import tiny


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Directories of Gemma, CLIP and ConvNeXt."""
    return tiny.write_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def mgm(zoo: tuple[Path, Path, Path]) -> MGM:
    """A fresh model with the reference's weights."""
    return tiny.assemble(zoo)


@pytest.fixture
def lora(zoo: tuple[Path, Path, Path]) -> MGM:
    """A fresh model with the reference's adapter inside."""
    return tiny.load_lora(zoo)
