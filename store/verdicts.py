"""What people said of samples: appended to `verdicts.jsonl`, the latest word counts."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Literal, get_args

from backend.errors import InputError, UsageError
from backend.files import append_line, read_lines
from backend.workspace import Workspace
from store.connection import Fingerprint, fingerprint

Verdict = Literal["good", "bad", "unsure"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def add_verdict(
    workspace: Workspace, reference: str, sample_id: str, verdict: Verdict | None
) -> None:
    """Append a verdict; None takes the earlier one back.

    Raises:
        UsageError: There is no such verdict.
    """
    if verdict is not None and verdict not in VERDICTS:
        raise UsageError(f"there is no such verdict (there are: {', '.join(VERDICTS)}).")
    line = {
        "time": time.time(),
        "dataset": reference,
        "sample_id": sample_id,
        "verdict": verdict,
    }
    append_line(workspace.root / "verdicts.jsonl", line)


def verdicts(workspace: Workspace, reference: str) -> dict[str, str]:
    """The latest verdict of each judged sample of a dataset version."""
    source = fingerprint(workspace.root / "verdicts.jsonl")
    return {} if source is None else _verdicts(source, reference)


@lru_cache(maxsize=16)
def _verdicts(source: Fingerprint, reference: str) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        for line in read_lines(source.file):
            if line.get("dataset") != reference:
                continue
            sample_id, verdict = line.get("sample_id"), line.get("verdict")
            if verdict in VERDICTS:
                found[str(sample_id)] = str(verdict)
            else:
                found.pop(str(sample_id), None)
    except InputError:
        # A damaged line hides what follows it, never the samples themselves.
        return found
    return found
