"""What success means, each criterion with its state."""

from __future__ import annotations

from typing import Literal, NamedTuple

from backend.errors import SynthLoopError
from backend.memory.symptoms import Finding
from backend.runs import Run, State
from backend.workspace import Workspace
from pages.widgets.comparisons import comparison
from pages.widgets.phases import Standing
from pages.widgets.run_tabs import findings
from pages.widgets.text import gib, t
from store.runs import RunRow

Verdict = Literal["passed", "failed", "unknown"]
_LOOKED_AT = 4


class Criterion(NamedTuple):
    """One line: message key at `criterion.<code>`, its state, and the evidence in words."""

    code: str
    verdict: Verdict
    evidence: str = ""


def criteria(space: Workspace, now: Standing) -> list[Criterion]:
    """The five of them."""
    return [
        _memory(now),
        _steps(now),
        _loss(space, now),
        Criterion("baseline", "passed", now.baseline.label)
        if now.baseline
        else Criterion("baseline", "unknown"),
        _better(space, now),
    ]


def open_findings(space: Workspace, now: Standing) -> list[tuple[RunRow, Finding]]:
    """Errors and warnings of the newest training runs, the worst first."""
    trained = [row for row in now.rows if row.last_step is not None and row.problem is None]
    found = []
    for row in trained[:_LOOKED_AT]:
        found += [(row, one) for one in _known(space, row) or () if one.level != "info"]
    return sorted(found, key=lambda pair: pair[1].level != "error")


def _memory(now: Standing) -> Criterion:
    row = now.training
    if row is None:
        return Criterion("memory", "unknown")
    if row.peak_memory is None or now.card is None:
        return Criterion("memory", "unknown", t("criterion.no_device"))
    evidence = t("criterion.of", part=gib(row.peak_memory), whole=gib(now.card))
    return Criterion("memory", "passed" if row.peak_memory < now.card else "failed", evidence)


def _steps(now: Standing) -> Criterion:
    row = now.training
    if row is None or not row.state.ended:
        return Criterion("steps", "unknown")
    return Criterion("steps", "passed" if row.state is State.SUCCEEDED else "failed", row.label)


def _loss(space: Workspace, now: Standing) -> Criterion:
    row = now.training
    if row is None:
        return Criterion("loss", "unknown")
    found = _known(space, row)
    if found is None:
        return Criterion("loss", "unknown", row.label)
    bad = any(one.level == "error" for one in found)
    return Criterion("loss", "failed" if bad else "passed", row.label)


def _known(space: Workspace, row: RunRow) -> list[Finding] | None:
    """The run's findings; None where its figures cannot be read, which its own page tells."""
    try:
        return findings(Run(space.runs / row.id))
    except SynthLoopError:
        return None


def _better(space: Workspace, now: Standing) -> Criterion:
    if now.baseline is None or now.latest is None:
        return Criterion("better", "unknown")
    ours, base = (Run(space.runs / row.id) for row in (now.latest, now.baseline))
    found = [comparison(ours, base, name) for name in ("textvqa", "mmbench")]
    known = [one.verdict for one in found if one is not None]
    if not known:
        return Criterion("better", "unknown", t("criterion.no_answers"))
    better = "better" in known and "worse" not in known
    return Criterion("better", "passed" if better else "failed", now.latest.label)
