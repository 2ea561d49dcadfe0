"""The checkpoint that writes captions: which one, and asking it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from backend.errors import InputError, UsageError
from backend.evaluation.benchmarks import FilePicture
from backend.formats.data_juicer import LLAVA_IMAGE_TOKEN
from backend.runs import Run
from backend.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Wish:
    """A caption that is wanted."""

    sample_id: str
    image: str
    question: str

    @property
    def key(self) -> tuple[str, str]:
        """The sample, and what is asked of it."""
        return self.sample_id, self.question

    @property
    def sent(self) -> str:
        """The question without its image token."""
        return self.question.replace(LLAVA_IMAGE_TOKEN, "").strip()

    @property
    def picture(self) -> FilePicture:
        """The sample's picture."""
        return FilePicture(Path(self.image))


@dataclass(frozen=True, slots=True)
class Caption:
    """What came of a wish."""

    text: str
    """As the checkpoint answered; empty where there is a problem."""
    problem: str = ""
    """Why the picture could not be shown."""


class Captioner:
    """A loaded checkpoint that captions pictures, as good as asked one by one.

    Args:
        checkpoint: A full checkpoint or an adapter's folder.
        batch_size: Pictures at once.
        roots: Where relative paths in the checkpoint's configurations start.
    """

    def __init__(self, checkpoint: str, batch_size: int, roots: tuple[str, ...]):
        from backend.evaluation.generation import Answerer

        self._answerer = Answerer(
            Path(checkpoint), batch_size=batch_size, roots=[Path(root) for root in roots]
        )

    def captions(self, wishes: Sequence[Wish], max_new_tokens: int) -> list[Caption]:
        """One caption a wish, in order."""
        found: dict[int, Caption] = {}
        for batch in self._answerer.answers(wishes, max_new_tokens):
            found |= {id(wish): Caption(text) for wish, text in batch.answered}
            found |= {id(wish): Caption("", problem) for wish, problem in batch.unreadable}
        return [found[id(wish)] for wish in wishes]


@lru_cache(maxsize=1)
def captioner(checkpoint: str, batch_size: int, roots: tuple[str, ...]) -> Captioner:
    """The checkpoint, loaded once."""
    return Captioner(checkpoint, batch_size, roots)


def captioner_path(workspace: Workspace, value: str) -> Path | None:
    """The checkpoint's folder: of a fine-tuning run, or a path of its own; None for no value.

    Args:
        workspace: Where the runs lie.
        value: A run id, or a path (a relative one is taken from the workspace).

    Raises:
        InputError: There is neither such a run nor such a folder, or it holds no checkpoint.
    """
    if not value:
        return None
    try:
        path = Run.find(workspace, value).artifacts
    except (UsageError, InputError):
        path = (workspace.root / value).resolve()
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(
            "there is no checkpoint here.",
            place=str(path),
            remedy="Choose a finished fine-tuning run, or the folder of a checkpoint.",
        )
    return path
