"""The answer file of a running evaluation: appended live, resumed, put in order at the end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from backend.evaluation.benchmarks import Name, Task, answered_keys
from backend.files import append_line, write_atomic


class Notebook:
    """Answers as they come, one line each in the kit's format.

    Args:
        path: The answer file; what it already holds is kept, but for a torn last line.
        benchmark: Whose answers.
        model_id: What the lines call the model.
    """

    def __init__(self, path: Path, benchmark: Name, model_id: str):
        self.path, self.benchmark, self.model_id = path, benchmark, model_id
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content or not content:
            write_atomic(path, whole)

    def unanswered(self, tasks: list[Task]) -> list[Task]:
        """The tasks that have no answer yet, in their order."""
        answered = Counter(answered_keys(self.path, self.benchmark))
        waiting = []
        for task in tasks:
            if answered[task.key] > 0:
                answered[task.key] -= 1
            else:
                waiting.append(task)
        return waiting

    def add(self, answers: list[tuple[Task, str]]) -> None:
        """Append answers; each is whole on the disk or not there at all."""
        for task, text in answers:
            append_line(self.path, task.line(text, self.model_id))

    def put_in_order(self, tasks: list[Task]) -> None:
        """Rewrite the file in the order of the benchmark, as the kit leaves it."""
        lines: dict[tuple[str, str], list[str]] = defaultdict(list)
        keys = answered_keys(self.path, self.benchmark)
        # Only a line break ends a line: an answer may hold U+2028, which `splitlines` splits at.
        with self.path.open(encoding="utf-8", newline="\n") as file:
            for key, line in zip(keys, file, strict=True):
                lines[key].append(json.dumps(json.loads(line), ensure_ascii=False) + "\n")
        ordered = [lines[task.key].pop(0) for task in tasks if lines[task.key]]
        write_atomic(self.path, "".join(ordered))

    def copy_to(self, path: Path) -> None:
        """Write the same answers under another name."""
        write_atomic(path, self.path.read_bytes())
