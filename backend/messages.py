"""Every sentence a person reads, in English and Chinese, by key."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

CATALOGUES = Path(__file__).parents[1] / "pages" / "locales"
LANGUAGES = ("en", "zh")


@lru_cache(maxsize=len(LANGUAGES))
def catalogue(language: str) -> dict[str, str]:
    """Key to template (`str.format` placeholders) in one language."""
    values: dict[str, str] = json.loads(
        (CATALOGUES / f"{language}.json").read_text(encoding="utf-8")
    )
    return values


def message(key: str, language: str = "en", **values: object) -> str:
    """The sentence `key` with its placeholders filled.

    Raises:
        KeyError: No such key; a missing sentence is a bug, never hidden.
    """
    template = catalogue(language)[key]
    return template.format(**values) if values else template
