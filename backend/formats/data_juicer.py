"""Image-text pairs in Data-Juicer's form: `{"id", "text", "images"}`, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from backend.errors import InputError
from backend.files import write_stream
from backend.formats.fields import objects, text_field

IMAGE_TOKEN = "<__dj__image>"  # noqa: S105
END_TOKEN = "<|__dj__eoc|>"  # noqa: S105
LLAVA_IMAGE_TOKEN = "<image>"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Pair:
    """One sample: a text whose image tokens stand for its images, in order."""

    id: str
    text: str
    images: tuple[str, ...]
    """Paths below the image folder."""
    place: str = ""
    """Where it was read: `file, line n`."""

    def record(self) -> dict[str, Any]:
        """As the file has it."""
        return {"id": self.id, "text": self.text, "images": list(self.images)}


def caption_text(caption: str) -> str:
    """The text of a pair with one image: token, line break, caption, end token."""
    return f"{IMAGE_TOKEN}\n{caption} {END_TOKEN}"


def caption_of(text: str) -> str:
    """The caption in a pair's text: without end token, leading and trailing image token."""
    inner = text.strip().removesuffix(END_TOKEN).strip()
    return inner.removeprefix(IMAGE_TOKEN).removesuffix(IMAGE_TOKEN).strip()


def read_pairs(path: Path, image_root: Path | None = None) -> Iterator[Pair]:
    """The pairs of a Data-Juicer file, each checked.

    Keys other than the three (Data-Juicer's own statistics, say) are left alone.

    Args:
        path: The file.
        image_root: The image folder. Absolute paths below it, as Data-Juicer writes them, are
            taken relative to it.

    Raises:
        InputError: The file is missing or a row is malformed; names file, line, field and remedy.
    """
    for place, record in objects(path):
        yield parse_pair(record, place, image_root)


def parse_pair(record: dict[str, Any], place: str, image_root: Path | None = None) -> Pair:
    """A checked pair from a record of a Data-Juicer file.

    Raises:
        InputError: A field is missing or of the wrong kind, an image lies outside the image
            folder, or the image tokens do not match the images.
    """
    pair = Pair(
        id=record_id(record, place),
        text=text_field(record, "text", place),
        images=image_list(record.get("images"), f"{place}, field images", image_root),
        place=place,
    )
    check_tokens(pair.text, len(pair.images), f"{place}, field text")
    return pair


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Replace `path` by these pairs."""
    write_stream(path, (json.dumps(p.record(), ensure_ascii=False) + "\n" for p in pairs))


def record_id(record: dict[str, Any], place: str) -> str:
    """The `id` of a record as text; whole numbers count as well.

    Raises:
        InputError: It is missing, empty or something else.
    """
    value = record.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    problem = "the field is missing." if value is None else "the id must be text."
    raise InputError(problem, place=f"{place}, field id", remedy="Give every row an id.")


def image_list(value: Any, place: str, root: Path | None = None) -> tuple[str, ...]:
    """Checked image paths; absolute ones below `root` are made relative to it.

    Raises:
        InputError: Not a list of relative paths that stay inside the image folder.
    """
    if value is None:
        raise InputError(
            "the field is missing.", place=place, remedy='Add "images": [path], one per token.'
        )
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise InputError(
            "the images must be a list of paths.", place=place, remedy='Write "images": [path].'
        )
    if root is not None:
        value = [_relative_to(root, item) for item in value]
    for item in value:
        check_image_path(item, place)
    return tuple(value)


def _relative_to(root: Path, item: str) -> str:
    path = PurePosixPath(item)
    inside = path.is_absolute() and path.is_relative_to(root)
    return str(path.relative_to(root)) if inside else item


def check_image_path(value: str, place: str) -> None:
    """Refuse a path that could leave the image folder.

    Raises:
        InputError: It is absolute, climbs through `..` or holds a NUL.
    """
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\0" in value:
        raise InputError(
            f"the image path {value!r} leads outside the image folder.",
            place=place,
            remedy="Name the image by its path inside that folder.",
        )


def check_tokens(text: str, n_images: int, place: str) -> None:
    """Refuse a text whose image tokens do not match its images.

    Raises:
        InputError: No image token, more or fewer images than tokens, or an end token inside.
    """
    tokens = text.count(IMAGE_TOKEN)
    if tokens == 0 and LLAVA_IMAGE_TOKEN in text:
        raise InputError(
            f"the image token is {LLAVA_IMAGE_TOKEN}, which is LLaVA's.",
            place=place,
            remedy=f"Write {IMAGE_TOKEN}, as the kit's conversion expects.",
        )
    if tokens == 0:
        raise InputError(
            "the text has no image token.",
            place=place,
            remedy=f"Begin the text with {IMAGE_TOKEN} and a line break.",
        )
    if tokens != n_images:
        raise InputError(
            f"{n_images} image(s) for {tokens} image token(s).",
            place=place,
            remedy="List one image for each token.",
        )
