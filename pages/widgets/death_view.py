"""Why a run died of memory, and the ways out, each one click from a relaunch."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.memory.explain import MEMORY, Explanation, explain_run, way_words
from backend.memory.fit import Option
from backend.runs import Run
from backend.stages import stage as stage_named
from backend.workspace import Workspace
from pages.widgets.memory_bar import held_bar
from pages.widgets.text import escape, language, t

EXPLAINED = (*MEMORY, "killed")
"""Reasons of which more can be said than their sentence."""


def death_view(space: Workspace, run: Run) -> None:
    """What is known of a run's death by memory; nothing for other ends."""
    try:
        found = explain_run(space, run)
    except (SynthLoopError, ValueError):
        # Its own files are broken: the reason that is shown beside this stays true.
        return
    if found is None or found.code not in EXPLAINED:
        return
    death_facts(found)
    for number, way in enumerate(found.ways):
        _way(run, found, way, number)


def death_facts(found: Explanation) -> None:
    """What is known of a death, up to the heading of its ways out."""
    sentences = found.sentences()
    if sentences:
        st.markdown("\n".join(f"- {escape(one.say(language()))}" for one in sentences))
    if found.until_then:
        st.caption(t("death.held"))
        held_bar(found.until_then)
    if found.ways:
        st.markdown(f"**{t('death.ways')}**")
    elif found.settings is not None:
        st.caption(t("death.ways.none"))


def _way(run: Run, found: Explanation, way: Option, number: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(escape(way_words(way, language())), width="stretch")
        used = st.button(t("death.use"), key=f"use-way-{run.id}-{number}", help=t("death.use.help"))
    if used:
        into_training_form(found.stage, run.spec.parameters | found.parameters(way))


def into_training_form(stage: str, parameters: dict[str, Any]) -> None:
    """Open the Training page with these parameters in the stage's form; others are left out."""
    known = stage_named(stage).parameters.model_fields
    kept = st.session_state.setdefault("training_defaults", {})
    kept[stage] = {name: value for name, value in parameters.items() if name in known}
    st.session_state["stage"] = stage
    st.switch_page("pages/training.py")
