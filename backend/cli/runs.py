"""`run`, `loop`, `runs`, `show`, `logs`, `stop`, `resume`: stages and their runs."""

from __future__ import annotations

import argparse
import codecs
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.cli.output import (
    add_json,
    add_parameters,
    opened,
    parameters_of,
    print_findings,
    print_json,
    print_table,
    say,
)
from backend.errors import SynthLoopError
from backend.memory.health import findings_so_far, judge_run, told
from backend.memory.symptoms import Finding
from backend.messages import message
from backend.profiles import asked, defaults
from backend.runs import Run, State
from backend.stages import STAGES
from backend.supervisor import resume, start, stop
from backend.workspace import Workspace

POLL_S = 0.3


def add_commands(commands: Any) -> None:
    """Add this module's commands to the parser."""
    run = commands.add_parser("run", help="run a stage and wait for its end")
    run.add_argument("stage", metavar="STAGE", help=", ".join(STAGES))
    _starts(run)
    run.set_defaults(command=_run)

    loop = commands.add_parser("loop", help="run a whole loop: baseline or synthesis")
    loop.add_argument("loop", metavar="NAME")
    _starts(loop)
    loop.set_defaults(command=_loop)

    runs = commands.add_parser("runs", help="list the runs, newest first")
    add_json(runs)
    runs.set_defaults(command=_runs)

    for name, help_text, command in (
        ("show", "one run: what was asked, where it stands, why it ended", _show),
        ("stop", "ask a run to save and end", _stop),
        ("resume", "continue a run that stopped, failed or was lost", _resume),
    ):
        one = commands.add_parser(name, help=help_text)
        one.add_argument("run", metavar="RUN", help="a run's id, or a unique ending of it")
        add_json(one)
        one.set_defaults(command=command)

    logs = commands.add_parser("logs", help="print what a run printed")
    logs.add_argument("run", metavar="RUN")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    logs.set_defaults(command=_logs)


def _starts(command: argparse.ArgumentParser) -> None:
    """What every command that starts a run understands."""
    add_parameters(command)
    command.add_argument("--name", default="", help="what you call the run")
    command.add_argument("--detach", action="store_true", help="do not wait")
    add_json(command)


def _run(arguments: argparse.Namespace) -> int:
    workspace = opened(arguments)
    values = parameters_of(arguments.parameter)
    if arguments.stage in STAGES:
        values = asked(defaults(workspace, arguments.stage), values)
    return _started(arguments, workspace, arguments.stage, values)


def _loop(arguments: argparse.Namespace) -> int:
    workspace = opened(arguments)
    values = {**defaults(workspace, "loop"), "loop": arguments.loop}
    return _started(arguments, workspace, "loop", values | parameters_of(arguments.parameter))


def _started(
    arguments: argparse.Namespace, workspace: Workspace, stage: str, values: dict[str, Any]
) -> int:
    run = start(workspace, stage, values, name=arguments.name)
    for event in run.events():
        if event.get("code") == "preflight":
            say(f"warning: {event['values']['place']}: {event['values']['text']}")
    if arguments.detach:
        return _told(run, arguments.json)
    say(run.id)
    state = _wait(run)
    _told(run, arguments.json)
    return 0 if state is State.SUCCEEDED else 1


def _wait(run: Run) -> State:
    """Follow a run's progress to its end; it goes on when the waiting is interrupted."""
    shown = ""
    while not (state := run.status().state).ended:
        line = _progress(run, state)
        if line != shown:
            say(line)
            shown = line
        time.sleep(POLL_S)
    return state


def _progress(run: Run, state: State) -> str:
    progress = run.progress()
    if progress is None or not progress.total:
        return str(state)
    share = int(20 * progress.done / progress.total) * 5
    note = f" {progress.note}" if progress.note else ""
    return f"{state}: {share} %{note}"


def _told(run: Run, as_json: bool) -> int:
    """Print a run as it stands."""
    status, spec, findings = run.status(), run.spec, _findings(run, judge_run)
    if as_json:
        print_json(
            {
                "run_id": run.id,
                "stage": spec.stage,
                "name": spec.name,
                "parameters": spec.parameters,
                "inputs": spec.inputs,
                "path": str(run.path),
                "status": status.model_dump(mode="json"),
                "progress": progress.model_dump() if (progress := run.progress()) else None,
                "findings": [told(one) for one in findings],
            }
        )
        return 0
    print(f"{run.id}  {status.state}")
    if status.reason is not None:
        values = status.reason.values
        print(message(f"reason.{status.reason.code}", **values))
        if status.state is not State.SUCCEEDED:
            print(message(f"reason.{status.reason.code}.remedy", **values))
            for line in status.reason.evidence:
                print(f"  | {line}")
    print_findings(findings)
    return 0


def _findings(run: Run, judged: Callable[[Run], list[Finding]]) -> list[Finding]:
    """What is wrong with a training so far; where its figures cannot be read, that is told."""
    try:
        return judged(run)
    except (SynthLoopError, ValueError) as error:
        say(f"not judged: {run.id}: {error}")
        return []


def _runs(arguments: argparse.Namespace) -> int:
    workspace = opened(arguments)
    found = []
    for run in Run.all(workspace):
        try:
            found.append((run, run.spec, run.status(), _findings(run, findings_so_far)))
        except (SynthLoopError, ValueError) as error:
            say(f"left out, its files are broken: {run.id}: {error}")
    if arguments.json:
        print_json(
            [
                {
                    "run_id": run.id,
                    "stage": spec.stage,
                    "name": spec.name,
                    "state": status.state,
                    "findings": [told(one) for one in findings],
                }
                for run, spec, status, findings in found
            ]
        )
        return 0
    rows = [
        [
            run.id,
            spec.stage,
            str(status.state),
            spec.name,
            _took(status.started_at, status.ended_at),
            findings[0].code if findings and findings[0].level != "info" else "-",
        ]
        for run, spec, status, findings in found
    ]
    print_table(["run", "stage", "state", "name", "seconds", "finding"], rows)
    return 0


def _took(started: float | None, ended: float | None) -> str:
    return f"{ended - started:.0f}" if started is not None and ended is not None else "-"


def _show(arguments: argparse.Namespace) -> int:
    return _told(Run.find(opened(arguments), arguments.run), arguments.json)


def _stop(arguments: argparse.Namespace) -> int:
    run = Run.find(opened(arguments), arguments.run)
    stop(run)
    _wait(run)
    return _told(run, arguments.json)


def _resume(arguments: argparse.Namespace) -> int:
    return _told(resume(Run.find(opened(arguments), arguments.run)), arguments.json)


def _logs(arguments: argparse.Namespace) -> int:
    run = Run.find(opened(arguments), arguments.run)
    position = 0
    while True:
        ended = run.status().state.ended
        position = _copied(run.log_path, position)
        if not arguments.follow or ended:
            return 0
        time.sleep(POLL_S)


def _copied(path: Path, position: int) -> int:
    """Print a file from a position on; returns where it ends now."""
    if not path.exists():
        return position
    with path.open("rb") as file:
        file.seek(position)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while chunk := file.read(1 << 16):
            sys.stdout.write(decoder.decode(chunk))
        sys.stdout.flush()
        return file.tell()
