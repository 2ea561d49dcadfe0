"""The samples of a training that had no picture to learn from."""

from __future__ import annotations

from itertools import islice

import streamlit as st

from backend.errors import InputError
from backend.files import read_lines
from backend.runs import Run
from pages.widgets.colors import icon
from pages.widgets.tables import data_table
from pages.widgets.text import escape, t

_FIELDS = ("sample_id", "image", "problem")
_SHOWN = 1000


def unreadable_pictures(run: Run) -> None:
    """Every unreadable picture with its sample and its problem; nothing where there is none."""
    path = run.artifacts / "unreadable.jsonl"
    try:
        lines = list(islice(read_lines(path), _SHOWN))
    except InputError as error:
        st.warning(escape(error), icon=icon("warning"))
        return
    if not lines:
        return
    st.markdown(f"**{t('run.unreadable_pictures')}**")
    # A table draws its cells as they are, never as markup.
    data_table(
        {
            t(f"run.unreadable_pictures.{field}"): [str(line.get(field, "")) for line in lines]
            for field in _FIELDS
        }
    )
