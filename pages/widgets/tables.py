"""Tables that a person can sort, search and select in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from store.connection import as_table


def data_table(columns: Mapping[str, Sequence[Any]], **options: Any) -> Any:
    """`st.dataframe` of equally long columns, without an index.

    From anything but Arrow, or to find out whether rows should come on demand, Streamlit imports
    pandas: a quarter of what the page process may take.

    Args:
        columns: Head to values; None shows as unknown.
        options: Those of `st.dataframe`.

    Returns:
        What was selected, where `on_select` asks for it.
    """
    return st.dataframe(as_table(columns), hide_index=True, lazy=False, **options)
