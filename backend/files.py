"""Reading and writing plain files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from backend.errors import InputError

_BLOCK = 64 * 1024


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` through a rename, durable once this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_stream(path: Path, chunks: Iterable[str]) -> None:
    """`write_atomic` of text too long to hold at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with scratch.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of `value` as indented JSON."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        InputError: The file is missing or is not JSON in UTF-8; names the line and column.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("the file does not exist.", place=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("this is not UTF-8 text.", place=str(path)) from error
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno}, column {error.colno}"
        raise InputError(f"this is not JSON: {error.msg}.", place=place) from error


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append `value` as one JSON line, whole or not at all: lines of several writers never mix.

    A torn line that an earlier writer left at the end, when the power failed or another program
    wrote it, is cut off first.

    Raises:
        OSError: The disk had no room for it.
    """
    line = (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        # Its end may only be judged while nobody else writes.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        end = _cut_torn_line(descriptor)
        if os.write(descriptor, line) < len(line):
            os.ftruncate(descriptor, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)


def _cut_torn_line(descriptor: int) -> int:
    """Let an open file end with its last whole line; returns its size."""
    size = end = os.lseek(descriptor, 0, os.SEEK_END)
    block = 1
    while end:
        start = max(0, end - block)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end, block = start, _BLOCK
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def tail_lines(path: Path, size: int) -> list[str]:
    """The lines in the last `size` bytes of a text, without reading the rest; none without a file.

    What the cut left of the first line is left out; the returns of a progress bar end lines, too.
    """
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - size)
            file.seek(start)
            text = file.read(size).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return lines[1 if start else 0 : None if lines[-1] else -1]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file that may still be written to; a torn last line is left out.

    Raises:
        InputError: A line other than the last is not a JSON object.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            # It may be torn within a character.
            if not line.endswith(b"\n"):
                return
            place = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"this is not JSON: {error.msg}.", place=place) from error
            except UnicodeDecodeError as error:
                raise InputError("this is not UTF-8 text.", place=place) from error
            if not isinstance(value, dict):
                raise InputError("this line is not a JSON object.", place=place)
            yield value


def file_sizes(folder: Path) -> dict[Path, int]:
    """Bytes of every file below a folder that may change meanwhile; links are left out."""
    sizes = {}
    for path in folder.rglob("*"):
        # Scratch files of a running program are gone a moment later.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                sizes[path] = path.stat().st_size
    return sizes


def confine(root: Path, relative: str | os.PathLike[str]) -> Path:
    """`relative` below `root`, resolved.

    Raises:
        InputError: The path leads outside `root`, through `..`, an absolute path or a link.
    """
    base = root.resolve()
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise InputError(
            f"the path leads outside {base}.",
            place=str(relative),
            remedy="Name a path inside that folder.",
        )
    return path
