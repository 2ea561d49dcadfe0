"""What a training form's values would need, beside the form."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.gpu import visible_devices
from backend.memory.bindings import settings_of
from backend.memory.parts import GIB
from backend.memory.plan import plan_settings
from backend.memory.probes import correction
from backend.memory.shapes import ModelShape
from backend.workspace import Workspace
from pages.widgets.colors import icon
from pages.widgets.memory_bar import memory_bar
from pages.widgets.text import escape, language, t

_GRADES = {"fits": "check_circle", "tight": "warning", "no": "cancel"}


def forecast(space: Workspace, stage: str, values: dict[str, Any]) -> None:
    """Verdict and bar for the card that is here, or that the settings allow; without one nothing.

    The longest sample is taken to be as long as the form allows.
    """
    name, total = _card(space)
    if total is None:
        return
    try:
        settings = settings_of(stage, values)
        shape = ModelShape.of_workspace(space)
    except (SynthLoopError, TypeError, ValueError):
        # The form says itself what is wrong with its values.
        return
    found = plan_settings(
        shape, stage, settings, total, levers=(), factor=correction(space, name).factor
    )
    box = {"fits": st.success, "tight": st.warning, "no": st.error}[found.grade]
    box(f"**{escape(found.verdict.say(language()))}**", icon=icon(_GRADES[found.grade]))
    memory_bar(found.prediction, total)
    if found.grade != "fits":
        if found.advice is not None:
            st.markdown(escape(found.advice.say(language())))
        st.page_link("pages/memory.py", label=t("forecast.more"), icon=icon("memory"))


def _card(space: Workspace) -> tuple[str | None, int | None]:
    """The first visible card's name and the bytes that a run may take of it, as far as known."""
    devices = [device for device in visible_devices() if device.total]
    name = devices[0].name if devices else None
    if space.settings.memory_budget_gib is not None:
        return name, round(space.settings.memory_budget_gib * GIB)
    return name, devices[0].total if devices else None
