"""What can be said of a training from its log alone: whether it died, and whether it learned."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from backend.errors import InputError
from backend.memory.explain import Explanation, explain_log
from backend.memory.health import judge_log
from backend.memory.symptoms import Finding


class Verdict(NamedTuple):
    """A log's death, None where nothing says that it died, and its findings, the worst first."""

    death: Explanation | None
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """Neither dead nor with a finding of the worst grade."""
        return self.death is None and all(one.level != "error" for one in self.findings)


def verdict(log: Path, *, vocabulary_size: int | None = None) -> Verdict:
    """The verdict on a log in one of the forms that `judge_log` reads.

    Args:
        log: What a training printed, its `trainer_state.json`, or its `metrics.jsonl`.
        vocabulary_size: Tokens of its model; the largest known when unknown.

    Raises:
        InputError: The file is missing, or tells neither of a training step nor of a death.
    """
    death = explain_log(log)
    try:
        findings = judge_log(log, vocabulary_size=vocabulary_size)
    except InputError:
        # A training that died may not have trained a step.
        if death is None:
            raise
        findings = []
    return Verdict(death, findings)
