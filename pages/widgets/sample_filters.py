"""The facets of a dataset version and what is chosen of them; all of it is in the URL."""

from __future__ import annotations

import streamlit as st

from backend.workspace import Workspace
from pages.widgets.sample_card import statistic_name
from pages.widgets.text import escape, t
from pages.widgets.url import keep, restore
from store.samples import FACETS, NONE, Filters, Range, column_limits, facets

PAGE = "page"
OPEN = "sample"


def facet_column(space: Workspace, reference: str, search: str) -> Filters:
    """The facets with their counts; what is chosen is in the URL."""
    known = {
        name: _options(name, values) for name, values in facets(space, reference, Filters()).items()
    }
    for name, options in known.items():
        restore(f"f_{name}", options, [])
    chosen = {name: tuple(st.session_state[f"f_{name}"]) for name in FACETS}
    ranges = _chosen_ranges(space, reference)
    filters = Filters(
        search=search,
        fate=chosen["fate"][0] if len(chosen["fate"]) == 1 else "",  # type: ignore[arg-type]
        origin=chosen["origin"],
        operator=chosen["operator"],
        dropped_by=chosen["dropped_by"],
        verdict=chosen["verdict"],
        ranges=ranges,
    )
    counted = {name: dict(values) for name, values in facets(space, reference, filters).items()}
    for name, options in known.items():
        if not options:
            continue
        st.pills(
            t(f"samples.facet.{name}"),
            options,
            selection_mode="multi",
            key=f"f_{name}",
            format_func=lambda value, name=name: _facet_label(name, value, counted[name]),
            on_change=keep(f"f_{name}", [], first_page),
            wrap=True,
        )
    range_sliders(space, reference)
    if filters.active:
        st.button(
            t("samples.clear"), icon=":material/filter_alt_off:", on_click=clear, type="tertiary"
        )
    return filters


def range_sliders(space: Workspace, reference: str) -> None:
    """One slider a statistic, folded away until one is asked for."""
    limits = {n: v for n, v in column_limits(space, reference).items() if v[0] < v[1]}
    active = bool(_chosen_ranges(space, reference))
    with st.expander(t("samples.ranges"), expanded=active):
        for name, (low, high) in limits.items():
            st.slider(
                escape(statistic_name(name)),
                low,
                high,
                key=f"r_{name}",
                value=(low, high),
                bind="query-params",
                on_change=first_page,
                format="%.3g",
                step=(high - low) / 100,
            )


def first_page() -> None:
    """Filters changed: what was on page 7 is not there any more."""
    st.query_params.pop(PAGE, None)


def clear() -> None:
    """Forget every filter and the open sample."""
    for key in list(st.session_state):
        if str(key).startswith(("f_", "r_")):
            del st.session_state[key]
    for key in [key for key in st.query_params if key.startswith("f_")]:
        del st.query_params[key]
    st.session_state["q"] = ""
    first_page()
    open_sample("")


def open_sample(sample_id: str) -> None:
    """Open one card; without an id, none."""
    if sample_id:
        st.query_params[OPEN] = sample_id
    else:
        st.query_params.pop(OPEN, None)


def _options(facet: str, values: list[tuple[str, int]]) -> list[str]:
    """What may be chosen of a facet; that no operator touched a sample is no choice."""
    nothing = NONE if facet in ("operator", "dropped_by") else None
    return [value for value, _ in values if value != nothing]


def _chosen_ranges(space: Workspace, reference: str) -> tuple[Range, ...]:
    found = []
    for name, limits in column_limits(space, reference).items():
        chosen = st.session_state.get(f"r_{name}")
        if chosen is None:
            asked = st.query_params.get_all(f"r_{name}")
            chosen = tuple(map(_number, asked)) if len(asked) == 2 else limits
            chosen = limits if None in chosen else chosen
        if tuple(chosen) != limits:
            found.append(Range(name, *chosen))
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _facet_label(facet: str, value: str, counts: dict[str, int]) -> str:
    known = facet in ("fate", "origin", "verdict") and value != NONE
    names = {"fate": "lineage", "origin": "samples.origin", "verdict": "samples.verdict"}
    label = t(f"{names[facet]}.{value}") if known else escape(value)
    return f"{label} {counts.get(value, 0):,}"
