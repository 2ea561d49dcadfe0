"""A link to a page works also as the first thing that anybody asks a new server for."""

from __future__ import annotations

import runpy
from pathlib import Path

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

TEXT = Path(__file__).parents[2] / "pages" / "widgets" / "text.py"


def test_the_old_kind_of_pages_is_switched_off_and_the_router_runs(monkeypatch):
    reruns: list[bool] = []
    monkeypatch.setattr(PagesManager, "uses_pages_directory", True)
    monkeypatch.setattr(st, "rerun", lambda: reruns.append(True))
    runpy.run_path(str(TEXT))
    runpy.run_path(str(TEXT))
    assert PagesManager.uses_pages_directory is False
    assert reruns == [True]
