from __future__ import annotations

from tests.juicer import juicer

__all__ = ["juicer"]
