"""`plan`: will this training fit that card?"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from backend.cli.output import (
    add_json,
    add_parameters,
    opened,
    parameters_of,
    positive,
    positive_whole,
    print_json,
    say_problem,
)
from backend.errors import UsageError
from backend.gpu import visible_devices
from backend.memory.plan import plan, plan_json, plan_text
from backend.memory.probes import correction
from backend.profiles import asked, defaults
from backend.supervisor import validated
from backend.training.checks import configuration_problems, machine_problems
from backend.workspace import Workspace

GIB = 1 << 30


def add_commands(commands: Any) -> None:
    """Add this module's command to the parser."""
    planning = commands.add_parser("plan", help="predict a training's memory, and make it fit")
    add_parameters(planning)
    planning.add_argument("--stage", choices=("pretrain", "finetune"), default="finetune")
    planning.add_argument("--budget", type=positive, metavar="GIB", help="device memory on the box")
    planning.add_argument(
        "--positions", type=positive_whole, help="longest row, image tokens counted in"
    )
    add_json(planning)
    planning.set_defaults(command=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    workspace = opened(arguments)
    usual = defaults(workspace, arguments.stage)
    values = asked(usual, parameters_of(arguments.parameter))
    checked: Any = validated(arguments.stage, values)
    problems = configuration_problems(workspace, checked, arguments.stage)
    for problem in problems:
        say_problem(problem)
    if any(problem.level == "error" for problem in problems):
        return UsageError.exit_code
    # A plan may be for another machine, so what this one lacks is no reason to refuse it.
    for problem in machine_problems(checked):
        say_problem(replace(problem, level="warning"))
    device = _device_name()
    found = plan(
        workspace,
        arguments.stage,
        checked.model_dump(),
        _budget(workspace) if arguments.budget is None else arguments.budget,
        positions=arguments.positions,
        factor=correction(workspace, device).factor,
    )
    if arguments.json:
        print_json(plan_json(found))
    else:
        print(plan_text(found, workspace.settings.language))
    return 0 if found.grade != "no" else 1


def _device_name() -> str | None:
    devices = visible_devices()
    return devices[0].name if devices else None


def _budget(workspace: Workspace) -> float:
    """The budget of the settings, else the first card found."""
    if workspace.settings.memory_budget_gib is not None:
        return workspace.settings.memory_budget_gib
    devices = visible_devices()
    total = devices[0].total if devices else None
    if total is None:
        raise UsageError(
            "no card is seen here, so its memory is unknown.",
            place="--budget",
            remedy="Name the memory on the box, for example: --budget 24",
        )
    return total / GIB
