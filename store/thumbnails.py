"""Small pictures for galleries, kept as WebP by content below the workspace's `.cache`."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from itertools import islice
from pathlib import Path

from PIL import Image, ImageOps

from backend.errors import InputError, SynthLoopError
from backend.files import confine, write_atomic
from backend.formats import mmbench
from backend.workspace import Workspace
from store.connection import Fingerprint, fingerprint, rows, table

SIDE = 360
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
"""What is decoded; the others' decoders are seldom used and seldom tested."""
_LARGEST_FILE = 64 << 20
_MOST_PIXELS = 64_000_000
_TSV = "tsv:"
_ROWS_AT_ONCE = 256
_converting = threading.Lock()


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture, or why there is none."""

    data: bytes | None
    """WebP."""
    problem: str | None = None
    """Message key below `problem.`: image_missing, image_unreadable, image_outside or
    image_too_large."""

    @property
    def uri(self) -> str | None:
        """The picture as a data URI."""
        if self.data is None:
            return None
        return "data:image/webp;base64," + base64.b64encode(self.data).decode()


def thumbnail(
    workspace: Workspace, root: Path, relative: str, content_hash: str | None, side: int = SIDE
) -> Thumbnail:
    """The picture `relative` below `root`, at most `side` pixels wide and high. Never raises.

    Args:
        workspace: Where small pictures are kept.
        root: The folder that the picture must lie in.
        relative: Its path below that.
        content_hash: SHA-256 of its bytes; None reads the file to find out.
        side: Pixels.
    """
    try:
        path = confine(root, relative)
    except (SynthLoopError, ValueError, OSError):
        return Thumbnail(None, "image_outside")
    if content_hash and (ready := _ready(workspace, content_hash, side)):
        return ready
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return Thumbnail(None, "image_too_large")
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Thumbnail(None, "image_missing")
    except OSError:
        return Thumbnail(None, "image_unreadable")
    return _made(workspace, data, side)


def thumbnails(
    workspace: Workspace, root: Path, wanted: Iterable[tuple[str, str | None]], side: int = SIDE
) -> list[Thumbnail]:
    """`thumbnail` of several (path, content hash) at once, in order."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(
            pool.map(lambda item: thumbnail(workspace, root, item[0], item[1], side), wanted)
        )


def question_thumbnails(
    workspace: Workspace, references: Iterable[str], side: int = SIDE
) -> dict[str, Thumbnail]:
    """The pictures that `image` of questions.parquet names. Never raises.

    Args:
        workspace: Where the benchmarks lie.
        references: Paths below the TextVQA pictures, or `tsv:<index>` of the MMBench TSV.
        side: Pixels.
    """
    wanted = list(dict.fromkeys(references))
    in_tsv = {name: name[len(_TSV) :] for name in wanted if name.startswith(_TSV)}
    found = _tsv_thumbnails(workspace, in_tsv, side)
    files = [name for name in wanted if name not in in_tsv]
    root = workspace.asset("textvqa_images")
    made = thumbnails(workspace, root, [(name, None) for name in files], side)
    return {**found, **dict(zip(files, made, strict=True))}


def _tsv_thumbnails(workspace: Workspace, names: dict[str, str], side: int) -> dict[str, Thumbnail]:
    source = fingerprint(workspace.asset("mmbench_questions"))
    if not names or source is None:
        return dict.fromkeys(names, Thumbnail(None, "image_missing"))
    try:
        pictures = _tsv_pictures(workspace.root / ".cache" / "mmbench", source)
    except (SynthLoopError, OSError):
        return dict.fromkeys(names, Thumbnail(None, "image_unreadable"))
    numbers = {name: int(text) for name, text in names.items() if text.isdecimal()}
    encoded = {
        row["index"]: row["image"]
        for row in rows(
            'SELECT "index", image FROM read_parquet($path) WHERE list_contains($wanted, "index")',
            {"path": escape(str(pictures)), "wanted": list(numbers.values())},
        )
    }
    return {name: _decoded(workspace, encoded.get(numbers.get(name, -1)), side) for name in names}


def _decoded(workspace: Workspace, encoded: str | None, side: int) -> Thumbnail:
    if encoded is None:
        return Thumbnail(None, "image_missing")
    try:
        return _made(workspace, mmbench.decode_image(encoded, "image"), side)
    except InputError:
        return Thumbnail(None, "image_unreadable")


def _tsv_pictures(folder: Path, source: Fingerprint) -> Path:
    """The TSV's pictures as Parquet, converted once: single ones can be read from that."""
    name = hashlib.sha256(repr(source).encode()).hexdigest()[:16]
    target = folder / f"{name}.parquet"
    with _converting:
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            scratch = folder / f".{name}.{os.getpid()}"
            try:
                _write_pictures(mmbench.read_rows(source.file), scratch)
                scratch.replace(target)
            finally:
                scratch.unlink(missing_ok=True)
    return target


def _write_pictures(questions: Iterator[mmbench.Row], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("index", pa.int64()), ("image", pa.string())])
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        while chunk := list(islice(questions, _ROWS_AT_ONCE)):
            numbers, images = [row.index for row in chunk], [row.image for row in chunk]
            held = table(
                'SELECT unnest($numbers::BIGINT[]) AS "index", unnest($images::VARCHAR[]) AS image',
                {"numbers": numbers, "images": images},
            )
            writer.write_table(held)


def _made(workspace: Workspace, data: bytes, side: int) -> Thumbnail:
    """The thumbnail of an encoded picture, from the cache or made and put there."""
    content_hash = hashlib.sha256(data).hexdigest()
    if ready := _ready(workspace, content_hash, side):
        return ready
    try:
        small = _shrunk(data, side)
    except Image.DecompressionBombError:
        return Thumbnail(None, "image_too_large")
    # A hostile or broken file can make a decoder raise nearly anything.
    except Exception:
        return Thumbnail(None, "image_unreadable")
    if small is None:
        return Thumbnail(None, "image_too_large")
    path = _path(workspace, content_hash, side)
    try:
        write_atomic(path, small)
    except OSError:
        # A full disk or a read-only workspace costs time, not the picture.
        return Thumbnail(small)
    return Thumbnail(small)


def _ready(workspace: Workspace, content_hash: str, side: int) -> Thumbnail | None:
    if not (len(content_hash) == 64 and content_hash.isalnum()):
        return None
    source = fingerprint(_path(workspace, content_hash, side))
    return Thumbnail(_bytes(source)) if source else None


@lru_cache(maxsize=512)
def _bytes(source: Fingerprint) -> bytes:
    return source.file.read_bytes()


def _path(workspace: Workspace, content_hash: str, side: int) -> Path:
    folder = workspace.root / ".cache" / "thumbnails" / str(side)
    return folder / content_hash[:2] / f"{content_hash}.webp"


def _shrunk(data: bytes, side: int) -> bytes | None:
    """WebP of at most `side` pixels; None when the picture is too large to open."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        # A JPEG can be decoded at a fraction of its size.
        image.draft("RGB", (side, side))
        if image.width * image.height > _MOST_PIXELS:
            return None
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((side, side))
    buffer = io.BytesIO()
    upright.save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()
