"""The assets of the workspace's profile."""

from __future__ import annotations

from collections.abc import Callable

from backend.assets import ASSETS, AssetStatus, assets
from backend.environment.checking import Check, CheckState, Remedy, gib
from backend.workspace import Workspace

_STATES: dict[str, CheckState] = {
    "complete": "ok",
    "incomplete": "failed",
    "missing": "missing",
    "unknown": "unknown",
}


def asset_checks(
    workspace: Workspace,
    *,
    thorough: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> list[Check]:
    """One check an asset; see `backend.assets.asset_status`."""
    return [
        asset_check(workspace, status) for status in assets(workspace, thorough=thorough, tick=tick)
    ]


def asset_check(workspace: Workspace, status: AssetStatus) -> Check:
    """The check that an asset's status amounts to."""
    found = status.problem
    if not found and status.size is not None:
        found = gib(status.size) if status.size >= 2**28 else f"{status.size / 2**20:,.1f} MiB"
    state = _STATES[status.state]
    profile = workspace.settings.profile
    remedy = Remedy("fetch", status.name) if state in ("missing", "failed") else None
    needed = ASSETS[status.name].source if profile == "mgm-2b" else ""
    return Check(f"asset_{status.name}", "assets", state, found, needed, (profile,), remedy=remedy)
