"""`judge`: the log of any training, the kit's too: why it died, and whether it learned."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from backend.cli.output import add_json, positive_whole, print_findings, print_json
from backend.errors import UsageError
from backend.memory.explain import explanation_text
from backend.memory.health import told
from backend.memory.verdicts import verdict


def add_commands(commands: Any) -> None:
    """Add this module's command to the parser."""
    judge = commands.add_parser("judge", help="judge the log of a training that ran anywhere")
    judge.add_argument("log", type=Path, metavar="LOG")
    judge.add_argument(
        "--vocabulary",
        type=positive_whole,
        metavar="N",
        help="tokens of its model; without it 256,000, the largest known",
    )
    add_json(judge)
    judge.set_defaults(command=_judge)


def _judge(arguments: argparse.Namespace) -> int:
    if arguments.log.is_dir():
        raise UsageError(
            "this is a folder.",
            place=str(arguments.log),
            remedy="Name the file that the training printed into.",
        )
    death, findings = found = verdict(arguments.log, vocabulary_size=arguments.vocabulary)
    if arguments.json:
        print_json(
            {
                "healthy": found.healthy,
                "death": explanation_text(death) if death is not None else None,
                "findings": [told(one) for one in findings],
            }
        )
        return 0 if found.healthy else 1
    if death is not None:
        print(explanation_text(death))
    print_findings(findings)
    if death is None and not findings:
        print("healthy: nothing found")
    return 0 if found.healthy else 1
