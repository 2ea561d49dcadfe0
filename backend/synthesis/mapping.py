"""What a mapper's rows mean for the samples: unchanged, rewritten, new, or gone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.synthesis.lineage import Ledger
from backend.synthesis.recipes import SYNTHESIS_OPERATORS
from backend.synthesis.samples import META, NOTE, QUESTION, STATS, Sample, plain_text

_OWN = frozenset({"id", "text", "images", QUESTION, STATS})
NOT_RETURNED = "not returned"
"""The reason of a sample that an operator lost: told to skip errors, or by its own doing."""
_BROKEN = "empty, or its tokens are damaged"
_NEW_IMAGE = "new image"


@dataclass(frozen=True)
class Mapping:
    """One mapper of a recipe."""

    operator: str
    image_root: Path
    taken: set[str]
    """Sample ids in use."""
    ledger: Ledger

    def apply(self, samples: list[Sample], rows: list[dict[str, Any]]) -> None:
        """Take the rows that the mapper returned over into the samples it was given."""
        returned: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            returned[row["id"]].append(row)
        for sample in samples:
            own = returned.get(sample.sample_id, [])
            if own:
                self._take_over(sample, own)
            else:
                self.ledger.judge(sample, kept=False, reason=NOT_RETURNED)

    def _take_over(self, sample: Sample, rows: list[dict[str, Any]]) -> None:
        # Where an operator returns several rows of one, the unchanged one is the original.
        first = next((row for row in rows if not self._changes(sample, row)), rows[0])
        source = sample.copy()
        self._rewrite(sample, first)
        for row in rows:
            if row is not first:
                self._create(source, row)

    def _rewrite(self, sample: Sample, row: dict[str, Any]) -> None:
        reason, text, before = self._note(row), plain_text(row["text"]), sample.text
        if text is None:
            self.ledger.judge(sample, kept=False, reason=reason or _BROKEN)
        elif not self._changes(sample, row):
            sample.extra = _extra(row)
            self.ledger.judge(sample, kept=True, reason=reason)
        else:
            same_text = text == before
            self._fill(sample, row, text)
            self.ledger.rewrite(sample, before, reason or (_NEW_IMAGE if same_text else ""))

    def _create(self, source: Sample, row: dict[str, Any]) -> None:
        text = plain_text(row["text"])
        if text is None:
            self.ledger.fail(f"{source.sample_id}: {_BROKEN}")
            return
        new = source.copy()
        new.sample_id = self._free_id(source.source_id)
        self._fill(new, row, text)
        self.ledger.create(new, f"from {source.sample_id}")

    def _fill(self, sample: Sample, row: dict[str, Any], text: str) -> None:
        """Text, images and columns of a row; what was known of the old ones is forgotten."""
        images = self._relative(row["images"])
        if images != sample.images:
            sample.width = sample.height = sample.image_sha256 = None
        sample.text, sample.images = text, images
        sample.stats, sample.extra = {}, _extra(row)
        if self.operator in SYNTHESIS_OPERATORS:
            sample.origin, sample.operator = "synthesized", self.operator

    def _changes(self, sample: Sample, row: dict[str, Any]) -> bool:
        same_text = plain_text(row["text"]) == sample.text
        return not same_text or self._relative(row["images"]) != sample.images

    def _note(self, row: dict[str, Any]) -> str:
        """What our own operator noted of a row; a failure is counted."""
        note = (row.get(META) or {}).get(NOTE) or {}
        reason = str(note.get("reason") or "")
        if note.get("failed"):
            self.ledger.fail(f"{row['id']}: {reason}")
        return reason

    def _relative(self, images: list[str]) -> list[str]:
        """Paths below the image folder; a new image keeps its absolute path."""
        root = self.image_root
        paths = (Path(image) for image in images)
        return [
            str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths
        ]

    def _free_id(self, source_id: str) -> str:
        number = 2
        while f"{source_id}~{number}" in self.taken:
            number += 1
        self.taken.add(f"{source_id}~{number}")
        return f"{source_id}~{number}"


def _extra(row: dict[str, Any]) -> dict[str, Any]:
    """Columns that later operators may read; our own notes are not among them."""
    extra = {name: value for name, value in row.items() if name not in _OWN}
    meta = {k: v for k, v in (extra.pop(META, None) or {}).items() if k != NOTE}
    return {**extra, META: meta} if meta else extra
