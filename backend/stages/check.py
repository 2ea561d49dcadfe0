"""Check the environment: hardware, drivers, packages, assets and disk, each with its remedy."""

from __future__ import annotations

from dataclasses import asdict

from backend.environment import checks, concerns, not_ready, readiness
from backend.environment.checking import BOTH
from backend.files import write_json
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.workspace import Workspace


class Parameters(StageParameters):
    """How closely to look."""

    thorough: bool = parameter(False, fold="data")


def preflight(_workspace: Workspace, _parameters: Parameters) -> list[Problem]:
    """Nothing can be in the way of looking."""
    return []


def main(context: StageContext, parameters: Parameters) -> None:
    """Write `checks.json`: every check, and whether each profile is ready.

    `ok` of `total` counts the checks that concern the workspace's profile, optional ones aside.
    """
    found = checks(context.workspace, thorough=parameters.thorough, tick=context.check_stop)
    ready = [readiness(found, profile) for profile in BOTH]
    profile = context.workspace.settings.profile
    concerned = [check for check in found if concerns(check, profile)]
    wanting = not_ready(found, profile)
    report = {
        "thorough": parameters.thorough,
        "profile": profile,
        "ok": len(concerned) - len(wanting),
        "total": len(concerned),
        "checks": [asdict(check) for check in found],
        "readiness": {one.profile: asdict(one) for one in ready},
    }
    write_json(context.artifacts / "checks.json", report)
    for check in wanting:
        print(f"{check.state}: {check.name}: {check.found or '-'} (needed: {check.needed or '-'})")
    context.progress(len(found), len(found), "checks")
    own = next(one for one in ready if one.profile == profile)
    context.event(
        "info" if own.ready else "warning",
        "checked",
        count=len(concerned),
        wanting=len(wanting),
        blocking=len(own.blocking),
    )


if __name__ == "__main__":
    stage_main(Parameters, main)
