"""`score` and `convert`: answers against their benchmark, pairs from one form to the other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from backend.cli.output import add_json, print_json
from backend.errors import UsageError
from backend.evaluation import mmbench, textvqa
from backend.formats.convert import dj_to_llava, llava_to_dj


def add_commands(commands: Any) -> None:
    """Add this module's commands to the parser."""
    score = commands.add_parser("score", help="score answers, the kit's too")
    benchmarks = score.add_subparsers(required=True, metavar="BENCHMARK")
    one = benchmarks.add_parser("textvqa")
    one.add_argument("--answers", type=Path, required=True)
    one.add_argument("--annotations", type=Path, required=True)
    add_json(one)
    one.set_defaults(command=_textvqa)
    other = benchmarks.add_parser("mmbench")
    other.add_argument("--answers", type=Path, required=True)
    other.add_argument("--questions", type=Path, required=True, metavar="TSV")
    other.add_argument("--contract", choices=("kit", "vlmeval"), default="kit")
    add_json(other)
    other.set_defaults(command=_mmbench)

    convert = commands.add_parser("convert", help="convert between Data-Juicer's form and LLaVA's")
    convert.add_argument("direction", choices=("dj-to-llava", "llava-to-dj"))
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("target", type=Path, metavar="OUT")
    convert.add_argument(
        "--originals", type=Path, help="stage_1.json, whose questions are restored (dj-to-llava)"
    )
    convert.add_argument(
        "--dialogues", action="store_true", help="keep whole dialogues (llava-to-dj)"
    )
    convert.set_defaults(command=_convert)


def _textvqa(arguments: argparse.Namespace) -> int:
    return _told(arguments, textvqa.score_file(arguments.answers, arguments.annotations))


def _mmbench(arguments: argparse.Namespace) -> int:
    found = mmbench.score_file(arguments.answers, arguments.questions, arguments.contract)
    return _told(arguments, found)


def _told(arguments: argparse.Namespace, scores: dict[str, Any]) -> int:
    if arguments.json:
        print_json(scores)
        return 0
    for name, value in scores.items():
        if isinstance(value, dict):
            for part, inner in value.items():
                print(f"{name}.{part}: {_plain(inner)}")
        else:
            print(f"{name}: {_plain(value)}")
    return 0


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


def _convert(arguments: argparse.Namespace) -> int:
    to_llava = arguments.direction == "dj-to-llava"
    for option, given in (
        ("--originals", not to_llava and arguments.originals),
        ("--dialogues", to_llava and arguments.dialogues),
    ):
        if given:
            raise UsageError(f"the option means nothing with {arguments.direction}.", place=option)
    if to_llava:
        count = dj_to_llava(arguments.source, arguments.target, arguments.originals)
    else:
        count = llava_to_dj(
            arguments.source, arguments.target, captions_only=not arguments.dialogues
        )
    print(f"{arguments.target}: {count}")
    return 0
