"""Looking at image files: size, content hash, and whether they can be read at all."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from backend.errors import InputError
from backend.files import confine

_DRAFT = 8
"""Scale at which a JPEG is decoded: all of its data is read, most arithmetic is saved."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image file turned out to be."""

    width: int | None
    height: int | None
    """Pixels; None when the image cannot be read."""
    sha256: str | None
    """Of the file's bytes; None when there are none."""
    problem: str | None = None
    """Message key below `problem.`: `image_missing`, `image_unreadable`, `image_outside`,
    `image_too_large`; None when all is well."""
    detail: str = ""
    """What the decoder said."""


def inspect_image(root: Path, relative: str) -> ImageFacts:
    """`inspect_file` of `relative`, unless it leads outside `root`."""
    try:
        return inspect_file(confine(root, relative))
    except InputError as error:
        return ImageFacts(None, None, None, "image_outside", error.problem)


def inspect_file(path: Path) -> ImageFacts:
    """Read and decode an image; a bad one is told, never raised."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ImageFacts(None, None, None, "image_missing", "no such file")
    except OSError as error:
        return ImageFacts(None, None, None, "image_unreadable", error.strerror or str(error))
    digest = hashlib.sha256(data).hexdigest()
    try:
        width, height = _decode(data)
    except UnidentifiedImageError:
        return ImageFacts(None, None, digest, "image_unreadable", "not an image")
    except Image.DecompressionBombError as error:
        return ImageFacts(None, None, digest, "image_too_large", str(error))
    # A hostile or broken file can make a decoder raise nearly anything.
    except Exception as error:
        return ImageFacts(None, None, digest, "image_unreadable", str(error))
    return ImageFacts(width, height, digest)


class ImageInspector:
    """`inspect_image` of many, on all cores, each file read once.

    Decoders release the interpreter's lock, so threads scale. Use it as a context manager.
    """

    def __init__(self, root: Path, workers: int | None = None):
        self.root = root
        self._pool = ThreadPoolExecutor(workers or os.cpu_count())
        self._known: dict[str, ImageFacts] = {}

    def __enter__(self) -> ImageInspector:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def facts(self, relatives: Sequence[str]) -> list[ImageFacts]:
        """The facts of these paths, in order."""
        new = list(dict.fromkeys(path for path in relatives if path not in self._known))
        found = self._pool.map(lambda path: inspect_image(self.root, path), new)
        self._known.update(zip(new, found, strict=True))
        return [self._known[path] for path in relatives]


def _decode(data: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(data))
    width, height = image.size
    image.draft("RGB", (max(width // _DRAFT, 1), max(height // _DRAFT, 1)))
    image.load()
    return width, height
