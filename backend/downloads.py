"""Fetching one file over HTTP so that nothing is lost or mistaken.

What has come lies in `.<name>.part` beside the destination, with `.<name>.part.json` telling what
it is a part of. A broken transfer goes on where it broke (RFC 9110: Range, If-Range,
Content-Range); only a file that is whole and has the wanted checksum gets its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from pydantic import BaseModel, ValidationError

from backend.errors import InputError
from backend.files import read_json, write_json
from backend.runs import Reason, RunFailed

CHUNK = 1 << 18
TIMEOUT_S = (10, 20)
"""Seconds to connect, and between two bytes."""
LONGEST_WAIT_S = 30.0
RESERVE = 64 << 20
"""Bytes that stay free on the disk."""
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Download:
    """A file to fetch."""

    url: str
    target: Path
    sha256: str = ""
    """Lower-case hex; empty where nobody tells."""
    size: int | None = None
    """Bytes; None where nobody tells."""
    token: str = ""
    """Bearer token; sent to the named host only."""


@dataclass(frozen=True)
class Patience:
    """What is done about breaks."""

    retries: int = 5
    """Attempts in a row that may bring nothing."""
    wait_s: float = 2.0
    """Before the second attempt; doubles each time."""


class Told:
    """Who is told how far it is. Both methods may raise to break off."""

    def progress(self, done: int, total: int | None) -> None:
        """So many bytes of the file are here."""

    def check_stop(self) -> None:
        """Called several times a second."""

    def broke(self, error: str, wait_s: float) -> None:
        """The transfer broke and is tried again in `wait_s` seconds."""


class _Part(BaseModel):
    """What the bytes in a part file are the beginning of."""

    url: str
    validator: str = ""
    """The ETag (a strong one) or Last-Modified of the whole."""
    total: int | None = None


class _BreakError(Exception):
    """The transfer broke; trying again may help."""

    def __init__(self, why: str, wait_s: float | None = None):
        self.wait_s = wait_s
        super().__init__(why)


class _Bearer(requests.auth.AuthBase):
    """Sends the token as it is, whatever a netrc says; a redirect to another host drops it."""

    def __init__(self, token: str):
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def check_url(url: str) -> None:
    """Raise `InputError` unless `url` is one that may be fetched and written down."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise InputError("only http and https addresses are fetched.", place=url)
    if parts.username or parts.password:
        raise InputError(
            "the address holds a password, which would be written down with the run.",
            place=f"{parts.scheme}://{parts.hostname}",
            remedy="Put a token into an environment variable and name that variable.",
        )


def fetch(download: Download, patience: Patience, told: Told) -> str:
    """Fetch a file and give it its name; returns its SHA-256.

    Raises:
        InputError: The address, the server's refusal, or the disk is why it cannot be had.
        RunFailed: `fetch_broke` after too many attempts, or `checksum_mismatch`.
    """
    check_url(download.url)
    part = part_of(download.target)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError("a file lies where a folder should be.", place=str(part.parent)) from error
    if download.size is not None:
        check_space(part.parent, download.size - part_size(download.target))
    with _alone(part), requests.Session() as session:
        if download.token:
            session.auth = _Bearer(download.token)
        session.headers["Accept-Encoding"] = "identity"
        _transfer(session, download, part, patience, told)
        found = sha256_of(part, told.check_stop)
        if download.sha256 and found != download.sha256:
            _forget(part)
            values = {"url": download.url, "expected": download.sha256, "found": found}
            raise RunFailed(Reason(code="checksum_mismatch", values=values))
        part.replace(download.target)
        _meta(part).unlink(missing_ok=True)
    return found


def part_of(target: Path) -> Path:
    """Where the bytes lie while the file is not whole."""
    return target.with_name(f".{target.name}.part")


def part_size(target: Path) -> int:
    """Bytes of `target` that have come so far."""
    path = part_of(target)
    return path.stat().st_size if path.exists() else 0


def sha256_of(path: Path, check_stop: Callable[[], None] = lambda: None) -> str:
    """The file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            check_stop()
    return digest.hexdigest()


def check_space(folder: Path, needed: int) -> None:
    """Raise `InputError` when the disk of `folder` has no room for `needed` more bytes."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed + RESERVE > free:
        raise InputError(
            f"the disk has {free / 2**30:,.1f} GiB free; {needed / 2**30:,.1f} GiB are needed.",
            place=str(there),
            remedy="Free some space, or set another place for the asset.",
        )


def _transfer(
    session: requests.Session, download: Download, part: Path, patience: Patience, told: Told
) -> None:
    """Bring all bytes into the part file, through any number of breaks that bring something."""
    fruitless = 0
    while True:
        before = part.stat().st_size
        try:
            _attempt(session, download, part, told)
            return
        except _BreakError as broken:
            fruitless = 0 if part.stat().st_size > before else fruitless + 1
            if fruitless > patience.retries:
                values = {"url": download.url, "error": str(broken)}
                raise RunFailed(Reason(code="fetch_broke", values=values)) from broken
            wait = min(LONGEST_WAIT_S, patience.wait_s * 2 ** max(0, fruitless - 1))
            wait = min(LONGEST_WAIT_S, max(wait, broken.wait_s or 0))
            told.broke(str(broken), wait)
            _sleep(wait, told.check_stop)


def _attempt(session: requests.Session, download: Download, part: Path, told: Told) -> None:
    told.check_stop()
    known = _known(download, part)
    have = part.stat().st_size
    if known.total is not None and have == known.total:
        return
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    try:
        with session.get(download.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            _check_answer(response, download)
            extent = _extent(response, have, known)
            if extent is None:
                os.truncate(part, 0)
                raise _BreakError("the file on the server has changed")
            start, total = extent
            _check_size(download, total)
            check_space(part.parent, (total or download.size or 0) - start)
            fresh = _Part(url=download.url, validator=_validator(response), total=total)
            write_json(_meta(part), fresh.model_dump())
            _receive(response, part, start, total, told)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        if isinstance(error, requests.TooManyRedirects | requests.exceptions.InvalidSchema):
            raise InputError(f"the server leads astray: {error}.", place=download.url) from error
        raise _BreakError(_plain(error)) from error


def _known(download: Download, part: Path) -> _Part:
    """What the part file is a part of; it is emptied where going on could mix two files."""
    if part.stat().st_size:
        try:
            known = _Part.model_validate(read_json(_meta(part)))
        except (InputError, ValidationError):
            known = _Part(url="")
        trusted = known.validator or (download.sha256 and known.total is not None)
        whole = known.total is None or part.stat().st_size <= known.total
        if known.url == download.url and trusted and whole:
            return known
        os.truncate(part, 0)
    return _Part(url=download.url)


def _check_answer(response: requests.Response, download: Download) -> None:
    status = response.status_code
    if download.url.startswith("https:") and response.url.startswith("http:"):
        raise InputError("the server leads to an address without encryption.", place=response.url)
    if status in _TRY_AGAIN:
        asked = response.headers.get("Retry-After", "")
        raise _BreakError(f"HTTP {status}", float(asked) if asked.isdecimal() else None)
    if status in (401, 403):
        raise InputError(
            f"the server refuses (HTTP {status}).",
            place=download.url,
            remedy="Accept the license at the source, and name the variable that holds your token.",
        )
    if status not in (200, 206, 416):
        raise InputError(
            f"the server has no such file (HTTP {status}).",
            place=download.url,
            remedy="Check the address.",
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InputError("the server sends it compressed, unasked.", place=download.url)


def _extent(response: requests.Response, have: int, known: _Part) -> tuple[int, int | None] | None:
    """Where the answer's bytes begin in the file, and how many the file has.

    None when what is here cannot be the beginning of what the server has now.
    """
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    total = int(found[3]) if found and found[3] != "*" else None
    goes_on = found is not None and found[1] is not None and int(found[1]) == have
    same = known.total is None or total == known.total
    if response.status_code == 206 and have and goes_on and same:
        return have, total
    if response.status_code == 416 and total == have:
        return have, total
    return None


def _check_size(download: Download, total: int | None) -> None:
    if download.size is not None and total is not None and total != download.size:
        raise InputError(
            f"the server's file has {total:,} bytes, not {download.size:,}.", place=download.url
        )


def _validator(response: requests.Response) -> str:
    """What If-Range may hold: a strong ETag, else the date of the last change."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


def _receive(
    response: requests.Response, part: Path, start: int, total: int | None, told: Told
) -> None:
    if response.status_code == 416:
        return
    done = start
    with part.open("r+b") as file:
        file.truncate(start)
        file.seek(start)
        for block in _blocks(response):
            file.write(block)
            done += len(block)
            told.check_stop()
            told.progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise _BreakError(f"{done:,} of {total:,} bytes came")
    if total is not None and done > total:
        os.truncate(part, 0)
        raise _BreakError(f"more than the {total:,} bytes announced came")


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """What has arrived, as it arrives: a slow line must not hide a request to stop."""
    while block := response.raw.read1(CHUNK):
        yield block


def _sleep(seconds: float, check_stop: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check_stop()
        time.sleep(min(0.2, left))


def _meta(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _meta(part).unlink(missing_ok=True)


def _plain(error: Exception) -> str:
    """The innermost cause, which says it in a few words."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    return f"{type(cause).__name__}: {cause}"


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """The part file, made if need be, with no other process at it."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "another run is fetching this file.", place=str(part), remedy="Wait for it."
            ) from error
        if not part.exists():
            raise InputError("another run has just fetched this file.", place=str(part))
        yield
