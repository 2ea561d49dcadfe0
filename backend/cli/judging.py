"""`judge`: the log of any training, the kit's too: why it died, and whether it learned."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.cli.output import add_json, print_json
from backend.errors import InputError
from backend.memory.explain import explain_log, explanation_text
from backend.memory.health import advice, describe, judge_log
from backend.memory.symptoms import Finding


def add_commands(commands: Any) -> None:
    """Add this module's command to the parser."""
    judge = commands.add_parser("judge", help="judge the log of a training that ran anywhere")
    judge.add_argument("log", type=Path, metavar="LOG")
    add_json(judge)
    judge.set_defaults(command=_judge)


def _judge(arguments: argparse.Namespace) -> int:
    death = explain_log(arguments.log)
    findings = _findings(arguments.log, died=death is not None)
    sick = death is not None or any(finding.level == "error" for finding in findings)
    if arguments.json:
        print_json(
            {
                "healthy": not sick,
                "death": explanation_text(death) if death is not None else None,
                "findings": [asdict(one) | {"text": describe(one)} for one in findings],
            }
        )
        return 1 if sick else 0
    if death is not None:
        print(explanation_text(death))
    for finding in findings:
        print(f"{finding.level}: {describe(finding)}\n  {advice(finding)}")
    if death is None and not findings:
        print("healthy: nothing found")
    return 1 if sick else 0


def _findings(log: Path, *, died: bool) -> list[Finding]:
    """The health of what was trained; a run that died may not have trained a step."""
    try:
        return judge_log(log)
    except InputError:
        if died:
            return []
        raise
