"""What a person is told when something is wrong: the place, the problem and the remedy."""

from __future__ import annotations


class SynthLoopError(Exception):
    """An error with a sentence for a person.

    Attributes:
        problem: What is wrong, in one sentence.
        place: The file, line, field or device it concerns, as a person would look for it.
        remedy: What to do about it, in one sentence.
    """

    exit_code = 1

    def __init__(self, problem: str, *, place: str | None = None, remedy: str | None = None):
        self.problem = problem
        self.place = place
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{where}{self.problem}{remedy}"


class UsageError(SynthLoopError):
    """The caller asked for something that does not exist or does not fit together."""

    exit_code = 2


class InputError(SynthLoopError):
    """A file, a dataset or an asset is missing or malformed."""
