"""Settings: what `workspace.toml` says, what each of it does, and saving it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st
from pydantic import ValidationError

from backend.assets import ASSETS, asset_status
from backend.errors import SynthLoopError
from backend.gpu import read_devices
from backend.messages import LANGUAGES
from backend.workspace import Settings, Workspace
from pages.widgets.colors import icon
from pages.widgets.states import failed
from pages.widgets.text import escape, gib, t, workspace

NAME_LENGTH = 80
_USUAL_GIB = 23.0
"""What a card of 24 GB leaves to a program."""


def show() -> None:
    """The page."""
    space = workspace()
    st.title(t("settings.title"))
    _saved()
    values = _fields(space)
    settings, problems = checked(values)
    for field, problem in problems.items():
        label = t(f"settings.{field}") if field in Settings.model_fields else field
        st.error(f"{escape(label)}: {escape(problem)}", icon=icon("error"))
    changed = settings is not None and settings != space.settings
    pressed = st.button(
        t("settings.save"), type="primary", icon=icon("save"), disabled=not changed, key="save"
    )
    if changed:
        st.caption(t("settings.unsaved"))
    st.caption(t("settings.file", path=escape(space.root / "workspace.toml")))
    if pressed and settings is not None:
        _save(space, settings)


def _saved() -> None:
    if st.session_state.pop("settings-saved", False):
        st.toast(t("settings.saved"), icon=icon("check_circle"))


def _fields(space: Workspace) -> dict[str, Any]:
    """The widgets; returns the settings as they stand in them."""
    now = space.settings
    values = now.model_dump()
    with st.container(width=640, key="settings-form"):
        st.subheader(t("settings.workspace"), anchor=False)
        values["name"] = (
            st.text_input(
                t("settings.name"),
                now.name,
                max_chars=NAME_LENGTH,
                help=t("settings.name.help"),
                key="settings-name",
            )
            or ""
        ).strip()
        values["language"] = st.segmented_control(
            t("settings.language"),
            LANGUAGES,
            default=now.language,
            required=True,
            format_func=lambda name: t(f"language.{name}"),
            help=t("settings.language.help"),
            key="settings-language",
        )
        profile = t(f"environment.profile.{now.profile}")
        st.caption(t("settings.profile", profile=profile))
        st.subheader(t("settings.memory"), anchor=False)
        values["memory_budget_gib"] = _budget(now.memory_budget_gib)
        _card(values["memory_budget_gib"])
        values["retention_checkpoints"] = st.number_input(
            t("settings.retention_checkpoints"),
            min_value=1,
            max_value=100,
            value=now.retention_checkpoints,
            step=1,
            help=t("settings.retention_checkpoints.help"),
            key="settings-retention",
        )
        st.caption(t("settings.retention_checkpoints.effect", n=values["retention_checkpoints"]))
        st.subheader(t("settings.places"), anchor=False)
        values["kit"] = (
            st.text_input(
                t("settings.kit"), now.kit, help=t("settings.kit.help"), key="settings-kit"
            )
            or ""
        ).strip()
        _place(space.root / values["kit"])
        values["assets"] = _assets(space)
    return values


def _budget(now: float | None) -> float | None:
    """A number field that began with a number cannot be emptied, hence the switch."""
    whole = st.toggle(
        t("settings.whole_card"), now is None, help=t("settings.whole_card.help"), key="whole-card"
    )
    if whole:
        return None
    found: float = st.number_input(
        t("settings.memory_budget_gib"),
        min_value=0.5,
        value=now or _USUAL_GIB,
        step=1.0,
        format="%g",
        help=t("settings.memory_budget_gib.help"),
        key="settings-budget",
    )
    return found


def _card(budget: float | None) -> None:
    """What the budget means on the device that is there."""
    totals = [device.total for device in read_devices().devices if device.total is not None]
    if not totals:
        st.caption(t("settings.memory_budget_gib.unknown"))
        return
    if budget is not None and budget * 2**30 > max(totals):
        st.warning(
            t("settings.memory_budget_gib.more", total=gib(max(totals))), icon=icon("warning")
        )
        return
    st.caption(t("settings.memory_budget_gib.card", total=gib(max(totals))))


def _place(path: Path) -> None:
    resolved = escape(path.resolve())
    if path.is_dir():
        st.caption(t("settings.place", path=resolved))
    else:
        st.warning(t("settings.place.missing", path=resolved), icon=icon("warning"))


def _assets(space: Workspace) -> dict[str, str]:
    """Only assets that lie elsewhere than in the kit are written down."""
    chosen = {}
    with st.expander(
        t("settings.assets"),
        icon=icon("folder"),
        expanded=bool(space.settings.assets),
        key="settings-assets",
    ):
        st.caption(t("settings.assets.help"))
        for name in ASSETS:
            value = st.text_input(
                t(f"asset.{name}"),
                space.settings.assets.get(name, ""),
                placeholder=str(space.asset(name)),
                key=f"settings-asset-{name}",
            )
            path = (value or "").strip()
            if not path:
                continue
            chosen[name] = path
            found = asset_status(_with_asset(space, name, path), name)
            if found.state != "complete":
                words = found.problem or t(f"environment.state.{found.state}")
                st.warning(f"{escape(found.path)}: {escape(words)}", icon=icon("warning"))
    others = {k: v for k, v in space.settings.assets.items() if k not in ASSETS}
    return others | chosen


def _with_asset(space: Workspace, name: str, path: str) -> Workspace:
    assets = space.settings.assets | {name: path}
    return Workspace(space.root, space.settings.model_copy(update={"assets": assets}))


def checked(values: dict[str, Any]) -> tuple[Settings | None, dict[str, str]]:
    """The settings, or None with what is wrong by field."""
    problems = {
        name: t("settings.empty") for name in ("name", "kit") if not str(values[name]).strip()
    }
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems |= {".".join(map(str, one["loc"])): one["msg"] for one in error.errors()}
        return None, problems
    return (None if problems else settings), problems


def _save(space: Workspace, settings: Settings) -> None:
    try:
        Workspace(space.root, settings).save()
    except (SynthLoopError, OSError) as error:
        if isinstance(error, SynthLoopError):
            failed(error)
        else:
            st.error(escape(error), icon=icon("error"))
        return
    st.session_state["settings-saved"] = True
    st.rerun()


show()
