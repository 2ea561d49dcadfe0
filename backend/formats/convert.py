"""Between Data-Juicer's pairs and LLaVA's conversations, by the rules of the challenge's kit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.formats.data_juicer import (
    END_TOKEN,
    IMAGE_TOKEN,
    LLAVA_IMAGE_TOKEN,
    Pair,
    caption_of,
    caption_text,
    read_pairs,
    write_pairs,
)
from backend.formats.llava import (
    ASSISTANT,
    HUMAN,
    Conversation,
    Turn,
    read_conversations,
    write_conversations,
)

_ROLE_TAG = re.compile(rf"\[\[({HUMAN}|{ASSISTANT})\]\]: ")


def dj_to_llava(source: Path, target: Path, originals: Path | None = None) -> int:
    """Convert a Data-Juicer file to a LLaVA file.

    Args:
        source: Pairs, one JSON object a line.
        target: Where the JSON list goes; replaced when it exists.
        originals: The LLaVA file with the questions (`stage_1.json`). With it each text is a
            caption that answers its original's question (the kit's `restore_questions`); the same
            id may come more than once. Without it each text is a dialogue with role tags.

    Returns:
        The number of records.

    Raises:
        InputError: A row is malformed, an id has no original, or a text is not in that form.
    """
    pairs = read_pairs(source)
    if originals is None:
        conversations = (dialogue_to_conversation(pair) for pair in pairs)
    else:
        known = read_originals(originals)
        conversations = (restore_question(pair, known) for pair in pairs)
    return write_conversations(target, (item.record() for item in conversations))


def llava_to_dj(source: Path, target: Path, *, captions_only: bool = True) -> int:
    """Convert a LLaVA file to a Data-Juicer file.

    Args:
        source: A JSON list of conversations.
        target: Where the pairs go; replaced when it exists.
        captions_only: Keep the one answer as a caption, as the kit's seed was made; False keeps
            the whole dialogue with role tags.

    Returns:
        The number of rows.

    Raises:
        InputError: A record is malformed or does not fit that form.
    """
    convert = conversation_to_caption if captions_only else conversation_to_dialogue
    count = 0

    def pairs() -> Iterator[Pair]:
        nonlocal count
        for conversation in read_conversations(source):
            yield convert(conversation)
            count += 1

    write_pairs(target, pairs())
    return count


def read_originals(path: Path) -> dict[str, Conversation]:
    """The conversations that questions are restored from, by id.

    Raises:
        InputError: The file is malformed.
    """
    return {item.id: item for item in read_conversations(path)}


def restore_question(pair: Pair, originals: Mapping[str, Conversation]) -> Conversation:
    """The caption of `pair` as the answer to its original's first question, word for word.

    Raises:
        InputError: The id has no original, several different images, or an empty caption.
    """
    original = originals.get(pair.id)
    if original is None:
        raise InputError(
            f"the id {pair.id!r} is not in the originals.",
            place=f"{pair.place}, field id",
            remedy="A synthesized sample must reuse the id of the seed it was made from.",
        )
    caption = checked_caption(pair)
    turns = (original.turns[0], Turn(original.turns[1].speaker, caption))
    return Conversation(pair.id, turns, (single_image(pair),), pair.place)


def single_image(pair: Pair) -> str:
    """The one image of a pair; the same image may be listed more than once.

    Raises:
        InputError: There are several different images, or none.
    """
    distinct = set(pair.images)
    if len(distinct) != 1:
        raise InputError(
            f"{len(distinct)} different images; a sample of this model has one.",
            place=f"{pair.place}, field images",
            remedy="Split the row into one row for each image.",
        )
    return pair.images[0]


def checked_caption(pair: Pair) -> str:
    """The caption of a pair.

    Raises:
        InputError: It is empty, or an image or end token stands inside it.
    """
    caption = caption_of(pair.text)
    place = f"{pair.place}, field text"
    if not caption:
        raise InputError("the caption is empty.", place=place, remedy="Write or drop the caption.")
    for token in (IMAGE_TOKEN, LLAVA_IMAGE_TOKEN, END_TOKEN):
        if token in caption:
            raise InputError(
                f"{token} stands inside the caption.",
                place=place,
                remedy="Put the image token first and the end token last.",
            )
    return caption


def is_dialogue(text: str) -> bool:
    """Whether the text begins with a role tag."""
    return _ROLE_TAG.match(text.strip()) is not None


def answer_of(text: str) -> str:
    """What is said about the picture: the caption itself, or all answers of a dialogue, by lines.

    Args:
        text: Without image token around a caption and without end token.
    """
    if not is_dialogue(text):
        return text
    _, *parts = _ROLE_TAG.split(text)
    turns = zip(parts[0::2], parts[1::2], strict=True)
    return "\n".join(said.removesuffix("\n") for speaker, said in turns if speaker == ASSISTANT)


def dialogue_to_conversation(pair: Pair) -> Conversation:
    """The turns of a text with role tags.

    Raises:
        InputError: There are no role tags, or questions and answers do not take turns.
    """
    place = f"{pair.place}, field text"
    inner = pair.text.strip().removesuffix(END_TOKEN).removesuffix(" ")
    head, *parts = _ROLE_TAG.split(inner)
    if head.strip() or not parts or len(parts) % 4:
        raise InputError(
            f"the text is not a dialogue with [[{HUMAN}]] and [[{ASSISTANT}]] in turns.",
            place=place,
            remedy="For captions, name the file that has the questions (--originals).",
        )
    speakers, values = parts[0::2], [value.removesuffix("\n") for value in parts[1::2]]
    values[-1] = parts[-1]
    turns = []
    for number, (speaker, value) in enumerate(zip(speakers, values, strict=True)):
        if speaker != (HUMAN, ASSISTANT)[number % 2]:
            raise InputError("questions and answers must take turns.", place=place)
        turns.append(Turn(speaker, value.replace(IMAGE_TOKEN, LLAVA_IMAGE_TOKEN)))
    return Conversation(pair.id, tuple(turns), (single_image(pair),), pair.place)


def conversation_to_dialogue(conversation: Conversation) -> Pair:
    """A pair whose text holds every turn behind its role tag.

    Raises:
        InputError: The first question does not begin or end with the image token, or a turn
            holds what would be read as a role tag.
    """
    _check_first_question(conversation)
    lines = []
    for turn in conversation.turns:
        if _ROLE_TAG.search(turn.value) or END_TOKEN in turn.value:
            raise InputError(
                "a turn holds a role tag or an end token.",
                place=f"{conversation.place}, field conversations",
                remedy="Remove it from the text.",
            )
        value = turn.value.replace(LLAVA_IMAGE_TOKEN, IMAGE_TOKEN)
        lines.append(f"[[{turn.speaker}]]: {value}")
    text = "\n".join(lines)
    return Pair(conversation.id, f"{text} {END_TOKEN}", conversation.images, conversation.place)


def conversation_to_caption(conversation: Conversation) -> Pair:
    """A pair whose caption is the conversation's one answer.

    Raises:
        InputError: There is more than one answer, or not exactly one image.
    """
    _check_first_question(conversation)
    place = f"{conversation.place}, field conversations"
    if len(conversation.turns) != 2 or len(conversation.images) != 1:
        raise InputError(
            "only one question, one answer and one image make a caption.",
            place=place,
            remedy="Convert dialogues with role tags instead.",
        )
    text = caption_text(conversation.turns[1].value.strip())
    pair = Pair(conversation.id, text, conversation.images, conversation.place)
    checked_caption(pair)
    return pair


def caption_record(
    source_id: str, question: str, answer: str, image: str, **extra: Any
) -> dict[str, Any]:
    """The LLaVA record of a sample whose parts are already checked.

    Args:
        source_id: Id of the seed sample.
        question: The original question with its image token.
        answer: The caption.
        image: Path below the image folder.
        extra: Further keys, which trainers pass over.
    """
    turns = (Turn(HUMAN, question), Turn(ASSISTANT, answer))
    return {**Conversation(source_id, turns, (image,)).record(), **extra}


def _check_first_question(conversation: Conversation) -> None:
    first = conversation.turns[0].value.strip()
    if not (first.startswith(LLAVA_IMAGE_TOKEN) or first.endswith(LLAVA_IMAGE_TOKEN)):
        raise InputError(
            "the first question neither begins nor ends with the image token.",
            place=f"{conversation.place}, field conversations[0]",
            remedy=f"Begin it with {LLAVA_IMAGE_TOKEN} and a line break.",
        )
