"""Widgets whose labels change (language, counts), kept in the URL by their values.

Streamlit's own binding writes labels; a link must mean the same in every language.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st


def restore(key: str, options: Sequence[Any], default: Any) -> None:
    """Give the widget `key` its value from the URL, as far as it is among the options.

    Args:
        key: Of the widget, and in the URL.
        options: What may be chosen.
        default: A list where several may be chosen.
    """
    known = {str(option): option for option in options}
    st.session_state[_options(key)] = list(options)
    if key in st.session_state:
        current = st.session_state[key]
        values = current if isinstance(default, list) else [current]
        if all(value in options for value in values or []):
            return
    asked = [known[value] for value in st.query_params.get_all(key) if value in known]
    if isinstance(default, list):
        st.session_state[key] = asked
    else:
        st.session_state[key] = asked[0] if asked else default


def keep(key: str, default: Any, then: Callable[[], None] | None = None) -> Callable[[], None]:
    """A callback that puts the widget's value into the URL; the default needs no mention.

    When an option's label has changed (its run has started, say), Streamlit takes the old label
    for a value and calls this: what is no option is forgotten, and the URL says what was chosen.
    """

    def change() -> None:
        if key not in st.session_state:
            # Whoever opened another run has let go of the widget's value.
            return
        value = st.session_state[key]
        options = st.session_state.get(_options(key))
        chosen = value if isinstance(value, list) else [value]
        if options is not None and any(one is not None and one not in options for one in chosen):
            del st.session_state[key]
            return
        if value == default or value is None:
            st.query_params.pop(key, None)
        else:
            st.query_params[key] = value if isinstance(value, list) else str(value)
        if then is not None:
            then()

    return change


def _options(key: str) -> str:
    """Where the options of a widget are kept, for its callback."""
    return f"{key}-options"
