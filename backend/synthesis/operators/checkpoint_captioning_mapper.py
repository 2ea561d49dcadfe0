"""Operator: let a trained checkpoint of the workspace write captions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data_juicer.ops.base_op import OPERATORS, Mapper
from data_juicer.utils.constant import Fields

from backend.errors import InputError
from backend.formats.data_juicer import caption_of, caption_text
from backend.synthesis.agreement import agreement_model
from backend.synthesis.captioner import Wish, captioner
from backend.synthesis.captions import vagueness
from backend.synthesis.samples import NOTE, QUESTION, plain_text

STAT = "image_text_agreement"
PROMPT = "Give a brief description of the image."
"""For a sample that has no question of its own."""


@dataclass
class Draft:
    """A sample that may get a caption."""

    row: dict[str, Any]
    image: str
    old: str
    old_score: float | None = None
    """Agreement of image and caption; None where nobody needs it."""
    new: str = ""
    new_score: float | None = None
    note: str = ""
    """What was decided, and by which figure."""
    failed: bool = False
    """A caption was wanted and none came."""


@OPERATORS.register_module("checkpoint_captioning_mapper")
class CheckpointCaptioningMapper(Mapper):  # type: ignore[misc]
    """Writes captions with a trained checkpoint of the workspace.

    The checkpoint sees the picture and the sample's own question, and its answer becomes the
    caption: of all samples, or of those whose image and caption agree badly or whose caption is
    vague (any of the conditions that are set is enough). A local CLIP model compares, and the
    caption that agrees better stays. An empty answer, or a picture that cannot be read, counts
    as a failure and leaves the sample as it was.
    """

    _batched_op = True
    # One process with full batches beats several that load the model each.
    _single_process = True

    def __init__(
        self,
        checkpoint: str = "",
        model: str = "",
        max_agreement: float | None = None,
        lowest_share: float | None = None,
        min_vagueness: float | None = None,
        keep_better: bool = True,
        min_gain: float = 0.0,
        keep_original_sample: bool = False,
        prompt: str = "",
        max_new_tokens: int = 96,
        answers_at_once: int = 32,
        batch_size: int = 128,
        *args: Any,
        **kwargs: Any,
    ):
        """Set who writes, for which samples, and what stays.

        Args:
            checkpoint: Folder of a full checkpoint or of an adapter, e.g. `${captioner}`.
            model: Folder of the CLIP model that measures agreement, e.g. `${vision_tower}`.
            max_agreement: Samples that agree less than this get a caption.
            lowest_share: This share of all samples, those that agree least, get a caption, e.g.
                0.5. `image_text_agreement_filter` must have measured them before.
            min_vagueness: Samples at least as vague as this get a caption; 1 is a caption in
                which no word is about the picture.
            keep_better: Keep the old caption where it agrees better with the picture.
            min_gain: By how much a new caption must agree better to be preferred.
            keep_original_sample: Add the new caption as a sample beside the old one instead of
                replacing it.
            prompt: Asked of every picture instead of the sample's own question.
            max_new_tokens: Where an answer without an end is cut.
            answers_at_once: Pictures that the checkpoint answers together.
            batch_size: Samples looked at together.
            args: Data-Juicer's own.
            kwargs: Data-Juicer's own.
        """
        kwargs.setdefault("num_proc", 1)
        super().__init__(*args, batch_size=batch_size, **kwargs)
        if not checkpoint:
            raise ValueError("checkpoint names no folder")
        if not model and (keep_better or max_agreement is not None):
            raise ValueError("agreement is measured by model, which names no folder")
        if lowest_share is not None and not 0 < lowest_share <= 1:
            raise ValueError("lowest_share is more than 0 and at most 1")
        self.checkpoint = checkpoint
        self.model = model
        self.max_agreement = max_agreement
        self.lowest_share = lowest_share
        self.min_vagueness = min_vagueness
        self.keep_better = keep_better
        self.min_gain = min_gain
        self.keep_original_sample = keep_original_sample
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.answers_at_once = answers_at_once
        self.share_limit: float | None = None

    def run(self, dataset: Any, **kwargs: Any) -> Any:
        """Data-Juicer's own way in; `survey` comes first where the caller has not done it."""
        if self.lowest_share is not None and self.share_limit is None:
            self.survey(dataset.to_list())
        return super().run(dataset, **kwargs)

    def survey(self, rows: list[dict[str, Any]]) -> None:
        """Find the agreement below which `lowest_share` of all samples lie.

        Args:
            rows: Every sample, with its statistics.

        Raises:
            InputError: Their agreement is not among them.
        """
        if self.lowest_share is None:
            return
        scores = [score for row in rows if (score := _measured(row)) is not None]
        if len(scores) < len(rows):
            raise InputError(
                "which samples agree least is not known: their agreement was not measured, or "
                "their captions have changed since.",
                place="checkpoint_captioning_mapper, lowest_share",
                remedy="Put image_text_agreement_filter right before it.",
            )
        self.share_limit = float(np.quantile(scores, self.lowest_share))

    def process_batched(self, samples: dict[str, Any]) -> dict[str, Any]:
        """The samples with their new captions, each with a note of what was decided."""
        columns = zip(*samples.values(), strict=True)
        rows = [dict(zip(samples, values, strict=True)) for values in columns]
        drafts = [
            Draft(row, row[self.image_key][0], caption_of(row[self.text_key]), _measured(row))
            for row in rows
        ]
        if self.keep_better or self.max_agreement is not None:
            self._measure([draft for draft in drafts if draft.old_score is None])
        self._write([draft for draft in drafts if self._wants(draft)])
        returned = [row for draft in drafts for row in self._returned(draft)]
        return {name: [row.get(name) for row in returned] for name in {**samples, Fields.meta: 0}}

    def _measure(self, drafts: list[Draft]) -> None:
        scores = self._scores(drafts, [draft.old for draft in drafts])
        for draft, score in zip(drafts, scores, strict=True):
            draft.old_score = score

    def _wants(self, draft: Draft) -> bool:
        """Whether the sample gets a caption; notes why."""
        limits = [limit for limit in (self.max_agreement, self.share_limit) if limit is not None]
        if not limits and self.min_vagueness is None:
            return True
        score, limit = draft.old_score, max(limits, default=-math.inf)
        if score is not None and score < limit:
            draft.note = f"{STAT} {score:.4g} < {limit:.4g}"
            return True
        vague = vagueness(draft.old)
        if self.min_vagueness is not None and vague is not None and vague >= self.min_vagueness:
            draft.note = f"caption_vagueness {vague:.4g} >= {self.min_vagueness:.4g}"
            return True
        draft.note = "" if score is None else f"{STAT} {score:.4g}"
        return False

    def _write(self, drafts: list[Draft]) -> None:
        """Ask for new captions, and measure them where captions are compared."""
        if not drafts:
            return
        wishes = [
            Wish(str(draft.row.get("id")), draft.image, self.prompt or _question(draft.row))
            for draft in drafts
        ]
        roots = tuple(str(folder) for folder in Path(self.model).parents) if self.model else ()
        writer = captioner(self.checkpoint, self.answers_at_once, roots)
        for draft, answer in zip(drafts, writer.captions(wishes, self.max_new_tokens), strict=True):
            draft.new = plain_text(caption_text(answer.text)) or ""
            draft.failed = not draft.new
            if draft.failed:
                draft.note = answer.problem or f"the answer is no caption: {answer.text!r}"
        written = [draft for draft in drafts if draft.new]
        if self.keep_better:
            scores = self._scores(written, [draft.new for draft in written])
            for draft, score in zip(written, scores, strict=True):
                draft.new_score = score

    def _returned(self, draft: Draft) -> list[dict[str, Any]]:
        """The rows that come of a sample."""
        if not draft.new:
            return [_noted(draft)]
        if draft.old_score is not None and draft.new_score is not None:
            old, new = draft.old_score, draft.new_score
            if new <= old + self.min_gain:
                draft.note = f'{STAT} {old:.4g} stays, {new:.4g} for "{draft.new}"'
                return [_noted(draft)]
            draft.note = f"{STAT} {old:.4g} -> {new:.4g}"
        rewritten = {**_noted(draft), self.text_key: caption_text(draft.new)}
        return [_noted(draft), rewritten] if self.keep_original_sample else [rewritten]

    def _scores(self, drafts: list[Draft], captions: list[str]) -> list[float]:
        if not drafts:
            return []
        images = [draft.image for draft in drafts]
        return [float(score) for score in agreement_model(self.model).scores(images, captions)]


def _measured(row: dict[str, Any]) -> float | None:
    """The agreement that a filter before has left."""
    value = (row.get(Fields.stats) or {}).get(STAT)
    return None if value is None else float(value)


def _question(row: dict[str, Any]) -> str:
    return row.get(QUESTION) or PROMPT


def _noted(draft: Draft) -> dict[str, Any]:
    meta = {**(draft.row.get(Fields.meta) or {})}
    meta[NOTE] = {"reason": draft.note, "failed": draft.failed}
    return {**draft.row, Fields.meta: meta}
