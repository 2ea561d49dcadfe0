"""Training files out of real pairs, with texts of an exact length in tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from backend.mgm.multimodal import IGNORE
from backend.mgm.processing import BOS
from backend.mgm.template import Encoded, encode

Tokenize = Callable[[str], list[int]]
DISTINCT = 16
"""Conversations that a file has; its samples differ in their pictures."""
FILLERS = (" a", " the", " of", "s", "e", ".", ",", "a", "!")
"""Short pieces that bring a text to the wanted number of tokens."""


@dataclass(frozen=True)
class Length:
    """How long the samples of a file are.

    Attributes:
        positions: In the language model, image tokens counted in.
        labels: Tokens that are trained.
        shortest: Every second sample has this many positions and half the labels; None makes all
            alike.
        pictures: Whether samples have a picture.
    """

    positions: int
    labels: int
    shortest: int | None = None
    pictures: bool = True

    @property
    def name(self) -> str:
        """Of the file."""
        mixed = f"-{self.shortest}" if self.shortest else ""
        kind = "" if self.pictures else "-text"
        return f"p{self.positions}{mixed}-l{self.labels}{kind}"


def tokenizer_of(folder: Path) -> Tokenize:
    """The ids of a text by the tokenizer in a language model's folder."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def write_samples(
    path: Path,
    records: Sequence[dict[str, Any]],
    length: Length,
    tokenize: Tokenize,
    *,
    image_tokens: int,
    count: int,
) -> None:
    """A LLaVA file of `count` samples whose lengths are exact.

    Args:
        path: The file.
        records: Real pairs in LLaVA's form; their pictures are used in turn, and their captions
            as words.
        length: What is wanted.
        tokenize: The model's.
        image_tokens: Positions that one picture takes.
        count: Samples.

    Raises:
        ValueError: No text of that length could be made.
    """
    words = _words(records)
    image_tokens = image_tokens if length.pictures else 0
    talks = []
    for index in range(min(count, DISTINCT)):
        positions, labels = length.positions, length.labels
        if length.shortest is not None and index % 2:
            positions, labels = length.shortest, labels // 2
        talks.append(_conversation(words, tokenize, positions, labels, image_tokens))
    made = []
    for index in range(count):
        record, turns = records[index % len(records)], talks[index % len(talks)]
        sample = {"id": f"{index:06d}", "conversations": turns}
        made.append(sample | ({"image": record["image"]} if length.pictures else {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))


def measured(sample: dict[str, Any], tokenize: Tokenize, image_tokens: int) -> tuple[int, int]:
    """Positions and labels of a sample, as the training stage will see it."""
    encoded = _encode(sample["conversations"], tokenize, "image" in sample)
    extra = image_tokens - 1 if "image" in sample else 0
    return len(encoded.input_ids) + extra, sum(label != IGNORE for label in encoded.labels)


def _words(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    captions = (str(record["conversations"][1]["value"]) for record in records)
    words = [
        word for text in captions for word in text.split() if word.isalpha() and len(word) < 13
    ]
    return cycle(words)


def _encode(turns: list[dict[str, str]], tokenize: Tokenize, picture: bool) -> Encoded:
    return encode(turns, tokenize, has_image=picture, bos=BOS, max_length=1 << 30)


def _conversation(
    words: Iterator[str], tokenize: Tokenize, positions: int, labels: int, image_tokens: int
) -> list[dict[str, str]]:
    """One question and one answer that together have exactly these lengths."""
    head = "<image>\n" if image_tokens else ""
    extra = image_tokens - 1 if image_tokens else 0

    def sizes(question: str, answer: str) -> tuple[int, int]:
        turns = _turns(head + question, answer)
        sample = {"conversations": turns} | ({"image": ""} if image_tokens else {})
        return measured(sample, tokenize, extra + 1 if image_tokens else 0)

    answer = _fill(words, labels, lambda text: sizes("What?", text)[1])
    question = _fill(words, positions, lambda text: sizes(text, answer)[0])
    return _turns(head + question, answer)


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _fill(words: Iterator[str], wanted: int, size: Callable[[str], int]) -> str:
    """A text of words whose size is exactly `wanted`."""
    text = next(words)
    step = 64
    while step:
        longer = text + "".join(f" {next(words)}" for _ in range(step))
        if size(longer) <= wanted:
            text = longer
        else:
            step //= 2
    for _ in range(64):
        missing = wanted - size(text)
        if missing == 0:
            return text
        longer = [text + filler for filler in FILLERS]
        fitting = [candidate for candidate in longer if 0 < size(candidate) - size(text) <= missing]
        if not fitting:
            break
        text = fitting[0]
    raise ValueError(f"no text of {wanted} tokens was found, {size(text)} at the nearest")
