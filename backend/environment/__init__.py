"""What machine and workspace offer, against what the studio needs. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from backend.environment.checking import (
    GROUPS,
    Check,
    CheckState,
    Readiness,
    Remedy,
    concerns,
    not_ready,
    readiness,
)
from backend.environment.disk import disk_checks
from backend.environment.hardware import hardware_checks
from backend.environment.kit import asset_checks
from backend.environment.software import driver_checks, package_checks
from backend.gpu import read_devices
from backend.workspace import Workspace

__all__ = [
    "GROUPS",
    "Check",
    "CheckState",
    "Readiness",
    "Remedy",
    "checks",
    "concerns",
    "not_ready",
    "readiness",
]


def checks(
    workspace: Workspace,
    *,
    thorough: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> list[Check]:
    """All checks, grouped, in the order in which a person should read them.

    Args:
        workspace: Whose assets and disk; its profile decides what they must hold.
        thorough: Read every record of the assets; takes minutes at full size.
        tick: Called now and then; may raise to break off.
    """
    readings = read_devices()
    return [
        *hardware_checks(workspace, readings),
        *driver_checks(readings),
        *package_checks(),
        *asset_checks(workspace, thorough=thorough, tick=tick),
        *disk_checks(workspace),
    ]
