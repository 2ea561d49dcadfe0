"""Whether files are whole: at a glance from headers and ends, or thoroughly by every record."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from backend.errors import InputError, SynthLoopError
from backend.files import confine, read_json
from backend.formats import mmbench
from backend.formats.json_array import array_objects

BLOCK = 1 << 20
HEADER_LIMIT = 1 << 27
"""Bytes; a safetensors header that claims more is taken for broken."""
PLACES = 48
"""Places of a record file where the quick look takes an image's name."""
_IMAGE = re.compile(rb'"images?"\s*:\s*\[?\s*("(?:[^"\\]|\\.)+")')
_BROKEN_OFF = "Fetch it again: it looks broken off."
_EVERY = 1024
Tick = Callable[[], None]


def check_model(folder: Path, files: tuple[str, ...], weights: tuple[str, ...]) -> None:
    """A model folder has its files, and weights of which nothing is missing.

    Args:
        folder: The model's folder.
        files: Files that must be there; those in JSON must parse.
        weights: Any one of these must be there; an index's shards must be there too.

    Raises:
        InputError: Something is missing, broken off or not what its name says.
    """
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{', '.join(missing)} is missing.", place=str(folder))
    for name in files:
        if name.endswith(".json"):
            read_json(folder / name)
    found = next((name for name in weights if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"there are no weights (any of {', '.join(weights)}).", place=str(folder))
    for path in _shards(folder, found):
        check_weights(path)


def _shards(folder: Path, found: str) -> list[Path]:
    path = folder / found
    if not found.endswith(".index.json"):
        return [path]
    index = read_json(path)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names:
        raise InputError("the index lists no tensors.", place=f"{path}, field weight_map")
    return [confine(folder, str(name)) for name in sorted(set(names.values()))]


def check_weights(path: Path) -> None:
    """A file of weights is there to its last byte.

    A safetensors header tells how long the file must be; a torch pickle is a zip archive whose
    directory stands at its end.

    Raises:
        InputError: It is missing, broken off, or something else.
    """
    if not path.is_file():
        raise InputError("the file of weights is missing.", place=str(path))
    if path.suffix != ".safetensors":
        if not zipfile.is_zipfile(path):
            raise InputError(f"this is not a whole torch file. {_BROKEN_OFF}", place=str(path))
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise InputError("this is not a safetensors file.", place=str(path))
        header = file.read(length)
    try:
        tensors = json.loads(header)
        ends = [tensors[name]["data_offsets"][1] for name in tensors if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError("the safetensors header cannot be read.", place=str(path)) from error
    if size != expected:
        raise InputError(
            f"the file has {size:,} of {expected:,} bytes. {_BROKEN_OFF}", place=str(path)
        )


def check_lines(path: Path, *, thorough: bool, tick: Tick) -> None:
    """A file of JSON lines begins and ends with whole objects; thoroughly: every line is one.

    Raises:
        InputError: It is empty, broken off or malformed; names the line where it is known.
    """
    with path.open("rb") as file:
        if thorough:
            number = 0
            for number, line in enumerate(file, 1):
                _object(line, f"{path}, line {number}")
                if number % _EVERY == 0:
                    tick()
            if number == 0:
                raise InputError("the file is empty.", place=str(path))
            return
        _object(file.readline(), f"{path}, line 1")
        _object(_last_line(path), f"{path}, last line")


def _object(line: bytes, place: str) -> None:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"this is not a whole JSON object. {_BROKEN_OFF}", place=place) from error
    if not isinstance(value, dict):
        raise InputError("this is not a JSON object.", place=place)


def _last_line(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 16 * BLOCK))
        return file.read().rstrip().rsplit(b"\n", 1)[-1]


def check_array(path: Path, *, opening: str = "[", thorough: bool, tick: Tick) -> None:
    """A file of one JSON list (or object) begins and ends as one; thoroughly: it parses.

    Raises:
        InputError: It is empty, broken off or malformed.
    """
    if thorough and opening == "[":
        for number, _ in enumerate(array_objects(path)):
            if number % _EVERY == 0:
                tick()
        return
    if thorough:
        read_json(path)
        return
    closing = b"]" if opening == "[" else b"}"
    with path.open("rb") as file:
        first = file.read(64).lstrip()[:1]
        file.seek(max(0, path.stat().st_size - 64))
        last = file.read().rstrip()[-1:]
    if first != opening.encode():
        raise InputError(f"the file does not begin with {opening}.", place=str(path))
    if last != closing:
        raise InputError(f"the file does not end with {closing.decode()}. {_BROKEN_OFF}",
                         place=str(path))  # fmt: skip


def check_table(path: Path, *, thorough: bool, tick: Tick) -> None:
    """A benchmark table has the kit's columns and rows; thoroughly: every row is well formed.

    Raises:
        InputError: It is empty, broken off or malformed.
    """
    number = -1
    for number, _ in enumerate(mmbench.read_rows(path, images=thorough)):
        if not thorough:
            break
        if number % _EVERY == 0:
            tick()
    if number < 0:
        raise InputError("the file has no rows.", place=str(path))
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            raise InputError(f"the last row has no end. {_BROKEN_OFF}", place=str(path))


def check_images(folder: Path, records: Path, *, thorough: bool, tick: Tick) -> None:
    """The images that a record file names are there: at some places, or thoroughly all.

    Args:
        folder: What the names are relative to.
        records: JSON lines, or a JSON list, with `image` or `images` fields.
        thorough: Look for every image.
        tick: Called now and then; may raise to break off.

    Raises:
        InputError: Images are missing; tells how many, and the first.
    """
    looked = missing = 0
    first = ""
    for name in _all_names(records) if thorough else _some_names(records):
        looked += 1
        if looked % _EVERY == 0:
            tick()
        if not _inside(folder, name):
            missing += 1
            first = first or name
    if not missing:
        return
    what = f"{missing:,} of {looked:,} images are missing"
    if not thorough:
        what = f"of {looked:,} images looked for, {missing:,} are missing"
    raise InputError(f"{what}; the first: {first}.", place=str(folder))


def _inside(folder: Path, name: str) -> bool:
    try:
        return confine(folder, name).is_file()
    except SynthLoopError:
        return False


def _some_names(records: Path) -> Iterator[str]:
    """The image named first after each of a number of places, evenly spread over the file."""
    size = records.stat().st_size
    seen: set[str] = set()
    with records.open("rb") as file:
        for place in range(PLACES):
            file.seek(size * place // PLACES)
            found = _IMAGE.search(file.read(1 << 16))
            name = _text(found[1]) if found else ""
            if name and name not in seen:
                seen.add(name)
                yield name


def _all_names(records: Path) -> Iterator[str]:
    """Every image named; a name across the border of two blocks is found as well."""
    rest = b""
    with records.open("rb") as file:
        while block := file.read(BLOCK):
            data, end = rest + block, 0
            for found in _IMAGE.finditer(data):
                end = found.end()
                yield _text(found[1])
            rest = data[max(end, len(data) - (1 << 16)) :]


def _text(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return quoted.decode("utf-8", "replace").strip('"')
