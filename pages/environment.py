"""Environment: is everything there that the loop needs, and what is to be done where it is not."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from pathlib import Path

import streamlit as st

from backend.assets import ASSETS
from backend.environment import Check, Readiness, checks, readiness
from backend.environment.checking import BOTH
from backend.environment.installing import PACKAGES
from backend.errors import SynthLoopError
from backend.files import read_json
from backend.runs import Run, State
from backend.supervisor import command, start, stop
from backend.workspace import Workspace
from pages.widgets.cards import reason_box, state_badge
from pages.widgets.check_rows import check_groups
from pages.widgets.colors import icon
from pages.widgets.forms import stage_form
from pages.widgets.live import live
from pages.widgets.states import failed, switch_link
from pages.widgets.tables import data_table
from pages.widgets.text import ago, clock, escape, gib, left, t, workspace
from store.runs import RunRow, run_rows

_STAGES = ("check", "fetch", "install")
_NAMED = 4
_NEWS_S = 86400
"""Seconds for which a failure is worth a place on top."""


def show() -> None:
    """The page."""
    space = workspace()
    st.title(t("environment.title"))
    rows = [row for row in run_rows(space) if row.stage in _STAGES and row.problem is None]
    found = with_thorough(_checks(space.root), rows, space)
    _sentences(space, found)
    _again(space, rows)
    _under_way([row.id for row in rows if not row.state.ended])
    _ended_badly(rows)
    _asked_form()
    check_groups(found, space.settings.profile, _act)
    _places(space, found)
    _more()


@st.cache_data(ttl=4, max_entries=8, show_spinner=False)
def _checks(root: Path) -> list[Check]:
    """Four seconds old is new enough."""
    return checks(Workspace.open(root))


def with_thorough(found: list[Check], rows: list[RunRow], space: Workspace) -> list[Check]:
    """The checks with the faults that only the last thorough look could see."""
    done = [row for row in rows if row.stage == "check" and row.state is State.SUCCEEDED]
    thorough = next((row for row in done if row.parameters.get("thorough")), None)
    if thorough is None:
        return found
    try:
        report = read_json(Run.find(space, thorough.id).artifacts / "checks.json")
        faults = {
            one["name"]: str(one["found"])
            for one in report["checks"]
            if one["group"] == "assets" and one["state"] == "failed"
        }
    except (SynthLoopError, KeyError, TypeError):
        return found
    seen = t("environment.thorough.seen", ago=ago(thorough.ended_at))
    return [
        replace(check, state="failed", found=f"{faults[check.name]} ({seen})")
        if check.name in faults and check.state == "ok"
        else check
        for check in found
    ]


def _sentences(space: Workspace, found: list[Check]) -> None:
    """Ready for what, and what is missing for the rest."""
    own = space.settings.profile
    ready = {profile: readiness(found, profile) for profile in BOTH}
    box = st.success if ready[own].ready else st.warning
    symbol = icon("check_circle" if ready[own].ready else "warning")
    lines = [_sentence(ready[own], "own")]
    lines += [_sentence(ready[profile], "other") for profile in BOTH if profile != own]
    box("\n\n".join(lines), icon=symbol)


def _sentence(one: Readiness, whose: str) -> str:
    profile = t(f"environment.profile.{one.profile}")
    names = [t(f"check.{name}.title") for name in one.blocking[:_NAMED]]
    rest = len(one.blocking) - len(names)
    listed = t("environment.list.separator").join(names)
    if rest > 0:
        listed = t("environment.list.more", names=listed, n=rest)
    if one.ready:
        sentence = t(f"environment.ready.{whose}", profile=profile)
    else:
        sentence = t(f"environment.missing.{whose}", profile=profile, names=listed)
    if one.unknown:
        unknown = t("environment.list.separator").join(
            t(f"check.{name}.title") for name in one.unknown
        )
        sentence += " " + t("environment.unknown", names=unknown)
    return f"**{sentence}**" if whose == "own" else sentence


def _again(space: Workspace, rows: list[RunRow]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="again"):
        pressed = st.button(t("environment.again"), type="primary", icon=icon("refresh"))
        thorough = st.toggle(
            t("parameter.thorough.label"), help=t("parameter.thorough.help"), key="thorough"
        )
        asked = {"thorough": True} if thorough else {}
        with st.popover(
            t("environment.command"), icon=icon("terminal"), type="tertiary", width="content"
        ):
            st.code(
                command("check", asked, root=workspace().root), language="bash", wrap_lines=True
            )
        last = next((row for row in rows if row.stage == "check" and row.state.ended), None)
        if last is not None:
            when = t("environment.last", ago=ago(last.ended_at))
            st.caption(when, help=clock(last.ended_at), width="content")
    if pressed:
        _checks.clear()
        token = st.session_state.setdefault("check-request", secrets.token_hex(8))
        try:
            start(space, "check", {"thorough": thorough}, request=token)
        except SynthLoopError as error:
            failed(error)
            return
        del st.session_state["check-request"]
        st.rerun()


def _under_way(run_ids: list[str]) -> None:
    if run_ids:
        live(_going_on, run_ids, every=1, of=run_ids)


def _going_on(run_ids: list[str]) -> None:
    """Checks, downloads and installs that go on; when one ends, the whole page anew."""
    space = workspace()
    for run_id in run_ids:
        run = Run.find(space, run_id)
        status = run.status()
        if status.state.ended:
            _checks.clear()
            st.rerun()
        with st.container(border=True, key=f"live-{run_id}"):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"**{run_name(run)}**", width="content")
                state_badge(status.state)
                switch_link(
                    "pages/runs.py", t("environment.log"), icon("terminal"), {"run": run_id}
                )
                if st.button(t("run.stop"), key=f"stop-{run_id}", icon=icon("stop_circle")):
                    stop(run)
            progress = run.progress()
            if progress is None:
                st.caption(t("environment.starting"))
            elif progress.unit == "bytes":
                words = [escape(progress.note), gib(progress.done)]
                if progress.total:
                    words[1] = t("environment.of", done=words[1], total=gib(progress.total))
                words.append(left(progress.eta_s))
                share = progress.done / progress.total if progress.total else 0.0
                text = " · ".join(word for word in words if word)
                st.progress(min(1.0, share), text=text)


def run_name(run: Run) -> str:
    """What a download or install brings, else the stage; harmless in Markdown."""
    spec = run.spec
    name = t(f"stage.{spec.stage}")
    what = str(spec.parameters.get("package") or "")
    asset = spec.parameters.get("asset")
    if spec.stage == "fetch":
        known = asset in ASSETS
        what = t(f"asset.{asset}") if known else str(spec.parameters.get("path") or "")
    return f"{name}: {escape(what)}" if what else name


def _ended_badly(rows: list[RunRow]) -> None:
    """The newest run of each kind, when it failed within a day."""
    space = workspace()
    for stage in _STAGES:
        newest = next((row for row in rows if row.stage == stage), None)
        if newest is None or newest.state is not State.FAILED or newest.reason is None:
            continue
        if time.time() - (newest.ended_at or 0) > _NEWS_S:
            continue
        st.markdown(f"**{run_name(Run.find(space, newest.id))}** · {ago(newest.ended_at)}")
        reason_box(newest.state, newest.reason)
        switch_link("pages/runs.py", t("environment.log"), icon("terminal"), {"run": newest.id})


def _act(check: Check) -> None:
    """The button that opens the form which sets a check right."""
    remedy = check.remedy
    if remedy is not None:
        label = t(f"environment.act.{remedy.kind}")
        _open(remedy.kind, remedy.value, label, f"act-{check.name}")


def _places(space: Workspace, found: list[Check]) -> None:
    """Where each asset lies, how large it is, and where it comes from."""
    states = {check.name.removeprefix("asset_"): check for check in found}
    shown = [
        {
            "asset": t(f"asset.{name}"),
            "state": t(f"environment.state.{states[name].state}"),
            "size": states[name].found if states[name].state == "ok" else "",
            "full": gib(asset.size) if asset.size else "",
            "source": asset.source,
            "path": str(space.asset(name)),
        }
        for name, asset in ASSETS.items()
    ]
    labels = {name: t(f"environment.places.{name}") for name in shown[0]}
    with st.expander(t("environment.places"), icon=icon("folder"), key="places"):
        data_table({label: [row[name] for row in shown] for name, label in labels.items()})
        st.caption(t("environment.places.help"))


def _asked_form() -> None:
    """The form that a remedy's button opened, filled in, where the eye is."""
    asset, package = st.query_params.get("fetch", ""), st.query_params.get("install", "")
    if not (asset or package):
        return
    stage_name = "fetch" if asset else "install"
    with st.container(border=True, key=f"form-{stage_name}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader(t(f"environment.{stage_name}"), anchor=False, width="stretch")
            if st.button(t("environment.close"), icon=icon("close"), type="tertiary", key="close"):
                _close()
                st.rerun()
        if asset in ASSETS:
            source = escape(ASSETS[asset].source)
            st.caption(t("environment.fetch.source", asset=t(f"asset.{asset}"), source=source))
        defaults = {"asset": asset} if asset in ASSETS else None
        if package in PACKAGES:
            defaults = {"package": package}
        stage_form(stage_name, defaults=defaults, primary=False, on_start=_started)


def _more() -> None:
    """The same forms, for what no check asks for."""
    with st.container(horizontal=True, key="more"):
        _open("fetch", "other", t("environment.fetch"), "more-fetch")
        _open("install", next(iter(PACKAGES)), t("environment.install"), "more-install")


def _open(kind: str, value: str, label: str, key: str) -> None:
    symbol = icon("download" if kind == "fetch" else "deployed_code")
    if st.button(label, key=key, icon=symbol):
        _close()
        st.query_params[kind] = value
        st.rerun()


def _close() -> None:
    for kind in ("fetch", "install"):
        st.query_params.pop(kind, None)


def _started(_run: Run) -> None:
    """Stay here: the run shows on top."""
    _close()


show()
