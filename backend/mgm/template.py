"""The kit's Gemma chat template: conversations to token ids and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from backend.errors import InputError
from backend.mgm.multimodal import IGNORE, IMAGE_TOKEN

IMAGE_WORD = "<image>"
END = "<eos>"
ROLES = {"human": "user", "gpt": "model"}
ANSWER_HEAD = "<start_of_turn>model\n"

Tokenize = Callable[[str], list[int]]
"""From text to ids, special tokens in it recognized, none added."""


class Encoded(NamedTuple):
    """One conversation as the language model reads it.

    Attributes:
        input_ids: Token ids, `IMAGE_TOKEN` where a picture goes.
        labels: The ids that are trained, `IGNORE` elsewhere.
        mismatch: The kit's length check failed (an empty answer, special words in a text), so no
            label is left and the sample trains nothing.
    """

    input_ids: list[int]
    labels: list[int]
    mismatch: bool


def turn(role: str, text: str) -> str:
    """One turn; an empty text leaves it open, for an answer to come."""
    head = f"<start_of_turn>{role}\n"
    if not text:
        return head
    return f"{head}{text}<end_of_turn>\n" + (END if role == "model" else "")


def move_image(text: str) -> str:
    """The image word at the front of its turn, once, on its own line."""
    if IMAGE_WORD not in text:
        return text
    rest = text.replace(IMAGE_WORD, "").strip()
    return f"{IMAGE_WORD}\n{rest}".strip()


def render(conversations: Sequence[Mapping[str, Any]], *, has_image: bool) -> str:
    """The whole conversation as text, without `<bos>`.

    A leading answer is dropped.

    Raises:
        InputError: Roles are unknown or do not alternate.
    """
    turns = list(conversations)
    if turns and turns[0].get("from") == "gpt":
        turns = turns[1:]
    text = ""
    for index, item in enumerate(turns):
        speaker, value = item.get("from"), str(item.get("value") or "")
        expected = ("human", "gpt")[index % 2]
        if speaker != expected:
            raise InputError(
                f"turn {index + 1} is from {speaker!r} where {expected!r} must speak.",
                place="conversations",
                remedy="Turns alternate between human and gpt, human first.",
            )
        text += turn(ROLES[expected], move_image(value) if has_image else value)
    return text


def tokenize_images(text: str, tokenize: Tokenize, *, has_image: bool) -> list[int]:
    """Ids without `<bos>`; with `has_image`, each image word becomes the placeholder."""
    if not has_image:
        return tokenize(text)
    ids: list[int] = []
    for number, part in enumerate(text.split(IMAGE_WORD)):
        if number:
            ids.append(IMAGE_TOKEN)
        if part:
            ids += tokenize(part)
    return ids


def encode(
    conversations: Sequence[Mapping[str, Any]],
    tokenize: Tokenize,
    *,
    has_image: bool,
    bos: int,
    max_length: int,
) -> Encoded:
    """Ids and labels of a training sample.

    Trained are each answer, the `<end_of_turn>` and newline after it, and `<eos>`. The kit
    measures every round anew and, when the sum differs from the length of the whole (and is
    below `max_length`), trains nothing of the sample; so does this, and says so. Text-only
    samples are cut to `max_length`; samples with a picture are cut later, by the collator.

    Args:
        conversations: LLaVA turns, `{"from": "human" | "gpt", "value": text}`.
        tokenize: See `Tokenize`.
        has_image: The sample has a picture; otherwise the image word is plain text.
        bos: Id that starts every sample.
        max_length: The recipe's model_max_length.

    Raises:
        InputError: Roles are unknown or do not alternate.
    """
    text = render(conversations, has_image=has_image)
    ids = [bos, *tokenize_images(text, tokenize, has_image=has_image)]
    if not has_image:
        ids = ids[:max_length]
    labels = [IGNORE] * len(ids)
    position = 1
    for part in text.split(END):
        question, *answers = part.split(ANSWER_HEAD)
        if not part or len(answers) != 1:
            break
        prompt = tokenize_images(question + ANSWER_HEAD, tokenize, has_image=has_image)
        whole = tokenize_images(part, tokenize, has_image=has_image)
        stop = position + len(whole) + 1
        start = position + len(prompt)
        labels[start:stop] = ids[start:stop]
        position = stop
    mismatch = position < max_length and position != len(ids)
    return Encoded(ids, [IGNORE] * len(ids) if mismatch else labels, mismatch)


def prompt(question: str, tokenize: Tokenize, *, has_image: bool, bos: int) -> list[int]:
    """Ids of a question with the answer's turn open, for generation."""
    words = f"{IMAGE_WORD}\n{question}" if has_image else question
    text = turn("user", words) + ANSWER_HEAD
    return [bos, *tokenize_images(text, tokenize, has_image=has_image)]
