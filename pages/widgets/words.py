"""Sentences that may not be there: names that come from data or from older versions."""

from __future__ import annotations

from backend.messages import catalogue
from pages.widgets.text import language


def known_text(key: str, otherwise: str) -> str:
    """The sentence `key`; where there is none, what is given."""
    return catalogue(language()).get(key, otherwise)
