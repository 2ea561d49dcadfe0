"""TextVQA accuracy as the original evaluator computes it, bit for bit."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.evaluation.statistics import clustered_interval
from backend.formats.textvqa import (
    ANSWERS_PER_QUESTION,
    Annotation,
    Answer,
    question_of_prompt,
    read_annotations,
    read_answers,
)

SCORER = "textvqa-evalai"
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = frozenset(("a", "an", "the"))
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32
"""The original passes the flag re.UNICODE (32) where the count of replacements belongs."""
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've "
    "hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't "
    "mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't "
    "she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd "
    "someone'd've someone'll someone's something'd something'd've something'll that's there'd "
    "there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've "
    "who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll "
    "y'all'd've you'd you'd've you'll you're you've"
)


def _contractions() -> dict[str, str]:
    """Each contracted word by its spellings that lack exactly one apostrophe."""
    found = {"somebody'd": "somebodyd"}
    for word in _CONTRACTED.split():
        for position, character in enumerate(word):
            if character == "'":
                found[word[:position] + word[position + 1 :]] = word
    return found


_CONTRACTIONS = _contractions()


def normalize(text: str) -> str:
    """The form in which answers are compared.

    Lower case; commas and question marks deleted; `'s` set apart; punctuation deleted where it
    touches a blank and replaced by a blank elsewhere; periods deleted unless a digit follows (the
    first 32 only); number words to digits; articles dropped; contractions completed.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    kept = text
    for mark in _PUNCTUATION:
        touches_blank = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if touches_blank else " ")
    kept = _PERIOD.sub("", kept, count=_MOST_PERIODS)
    words = (_NUMBERS.get(word, word) for word in kept.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


class Reference:
    """The ten answers of one question, normalized once."""

    __slots__ = ("answers", "counts")

    def __init__(self, answers: tuple[str, ...]):
        if len(answers) != ANSWERS_PER_QUESTION:
            raise InputError(
                f"there must be exactly {ANSWERS_PER_QUESTION} answers, there are {len(answers)}."
            )
        self.answers = tuple(normalize(answer) for answer in answers)
        self.counts = Counter(self.answers)

    def score(self, prediction: str) -> float:
        """Accuracy of a prediction, 0 to 1.

        The mean, over the ten sets that leave one person out, of min(1, matches / 3): 0.3, 0.6,
        0.9 and 1 for one, two, three and more people who said the same. Summed in the order of
        the answers, as the original does, so that even the last bit agrees.
        """
        said = normalize(prediction)
        matches = self.counts.get(said, 0)
        if matches == 0:
            return 0.0
        if matches > 3:
            return 1.0
        total = 0.0
        for answer in self.answers:
            total += min(1.0, (matches - (answer == said)) / 3)
        return total / ANSWERS_PER_QUESTION


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer with its score."""

    answer: Answer
    annotation: Annotation
    question_id: str
    """Unique in the benchmark."""
    prediction: str
    score: float


def annotation_id(annotation: Annotation) -> str:
    """A question's id that no other question has: the annotation file's, else image and text."""
    return annotation.question_id or f"{annotation.image_id}:{annotation.question.lower()}"


def score_answers(
    answers: list[Answer], annotations: list[Annotation], place: str = ""
) -> list[Scored]:
    """Each answer scored against the annotation of the same image and question.

    Raises:
        InputError: An answer has no annotation, or a question is answered more often than asked.
    """
    by_key = {annotation.key: annotation for annotation in annotations}
    left = Counter(annotation.key for annotation in annotations)
    references: dict[tuple[str, str], Reference] = {}
    scored = []
    for answer in answers:
        where = answer.place or place
        key = (answer.question_id, question_of_prompt(answer.prompt, where))
        if key not in by_key:
            raise InputError(
                "the annotation file has no such question.",
                place=f"{where}, field question_id ({answer.question_id})",
                remedy="Score against the annotations of the file that was answered.",
            )
        left[key] -= 1
        if left[key] < 0:
            raise InputError("this question is answered twice.", place=where)
        annotation = by_key[key]
        if key not in references:
            references[key] = Reference(annotation.answers)
        score = references[key].score(answer.text)
        scored.append(
            Scored(answer, annotation, annotation_id(annotation), normalize(answer.text), score)
        )
    return scored


def summarize(scored: list[Scored], asked: int) -> dict[str, Any]:
    """Score (0 to 100) with its 95 % interval, bootstrapped over images.

    Args:
        scored: The answers.
        asked: How many questions there were.

    Returns:
        `score` and `interval` (None without answers), `n`, `missing`.
    """
    values = [entry.score for entry in scored]
    score = 100 * sum(values) / len(values) if values else None
    interval = None
    if values:
        low, high = clustered_interval(values, [entry.annotation.image_id for entry in scored])
        interval = [100 * low, 100 * high]
    return {
        "score": score,
        "n": len(values),
        "missing": asked - len(values),
        "interval": interval,
        "scorer": SCORER,
    }


def score_file(answers: Path, annotations: Path) -> dict[str, Any]:
    """Score an answer file against an annotation file; see `summarize`.

    The score is the mean over the answers in the file, as the original computes it; `missing`
    counts the annotated questions without an answer.

    Raises:
        InputError: A file is missing or malformed, or the two do not belong together.
    """
    reference = read_annotations(annotations)
    scored = score_answers(list(read_answers(answers)), reference, str(answers))
    return summarize(scored, len(reference))
