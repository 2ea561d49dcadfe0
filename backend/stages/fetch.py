"""Fetch an asset, or any file the workspace needs, from a web address to its place in the kit."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal
from urllib.parse import unquote, urljoin, urlsplit

from backend.assets import ASSETS, asset_status
from backend.downloads import (
    Download,
    Patience,
    Told,
    check_space,
    check_url,
    fetch,
    part_size,
    sha256_of,
)
from backend.errors import InputError, SynthLoopError
from backend.files import confine, write_json
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.workspace import Workspace

_LISTED = re.compile(r"(?:([0-9a-fA-F]{64})[ \t]+\*?)?(\S.*)")
"""A file as `sha256sum` writes it, or only its name."""
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


Target = Literal[
    "other",
    "llm",
    "vision_tower",
    "vision_tower_aux",
    "seed_pairs",
    "seed_originals",
    "seed_images",
    "finetune_pairs",
    "finetune_images",
    "textvqa_questions",
    "textvqa_annotations",
    "textvqa_images",
    "mmbench_questions",
]
"""The assets, or any other file of the kit."""


class Parameters(StageParameters):
    """What to fetch, and where to."""

    asset: Target = parameter("other", fold="data")
    url: str = parameter("", fold="data", max_length=4000)
    files: list[str] = parameter([], fold="data")
    path: str = parameter("", fold="data")
    sha256: str = parameter("", fold="data", pattern=r"^([0-9a-fA-F]{64})?$")
    size: int | None = parameter(None, fold="data", ge=1)
    unpack: bool = parameter(False, fold="data")
    replace_existing: bool = parameter(False, fold="data")
    token_variable: str = parameter("", fold="advanced", pattern=r"^[A-Za-z_0-9]*$")
    retries: int = parameter(5, fold="advanced", ge=0, le=100)
    retry_wait_s: float = parameter(2.0, fold="advanced", ge=0, le=60)


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """Address, destination, token and room on the disk; nothing is asked of the network."""
    if not parameters.url:
        return [Problem("error", "fetch_url", {}, "url")]
    try:
        downloads = plan(workspace, parameters)
        for one in downloads:
            if one.size is not None and not one.target.exists():
                check_space(one.target.parent, one.size - part_size(one.target))
    except SynthLoopError as error:
        values = {"problem": error.problem, "remedy": error.remedy or ""}
        return [Problem("error", "fetch_refused", values, error.place or "url")]
    problems = []
    if any(not one.sha256 for one in downloads):
        problems.append(Problem("warning", "fetch_unverified", {}, "sha256"))
    there = [one.target for one in downloads if one.target.exists() and not one.sha256]
    if there and not parameters.replace_existing:
        values = {"path": str(there[0])}
        problems.append(Problem("error", "fetch_exists", values, str(there[0])))
    return problems


def plan(workspace: Workspace, parameters: Parameters) -> list[Download]:
    """The files to fetch with their places.

    Raises:
        InputError: The address, a name or the destination is not acceptable; names the field.
    """
    check_url(parameters.url)
    token = _token(parameters.token_variable)
    target = _destination(workspace, parameters)
    if not parameters.files:
        checksum = parameters.sha256.lower()
        return [Download(parameters.url, target, checksum, parameters.size, token)]
    if parameters.sha256 or parameters.size is not None:
        raise InputError(
            "one checksum or size cannot hold for several files.",
            place="sha256",
            remedy="Write each file's checksum before its name.",
        )
    if not parameters.url.endswith("/"):
        raise InputError("with a list of files it must end with a slash.", place="url")
    found = []
    for line in parameters.files:
        checksum, name = _listed(line)
        url = urljoin(parameters.url, name)
        if not url.startswith(parameters.url):
            raise InputError("a file leads away from the address.", place=f"files, {line}")
        found.append(Download(url, confine(target, name), checksum, None, token))
    return found


def _listed(line: str) -> tuple[str, str]:
    found = _LISTED.fullmatch(line.strip())
    if found is None:
        raise InputError("this names no file.", place=f"files, {line!r}")
    return (found[1] or "").lower(), found[2]


def _token(variable: str) -> str:
    if not variable:
        return ""
    token = os.environ.get(variable, "")
    if not token:
        raise InputError(
            f"the environment variable {variable} is not set.",
            place="token_variable",
            remedy="Set it where the studio is started.",
        )
    return token


def _destination(workspace: Workspace, parameters: Parameters) -> Path:
    """The file, or with a list of files or an archive the folder, to fetch to."""
    into_folder = bool(parameters.files)
    if parameters.asset != "other":
        base = _own(workspace, workspace.asset(parameters.asset))
        folder = base if ASSETS[parameters.asset].is_folder else base.parent
        if parameters.path or into_folder:
            return confine(folder, parameters.path)
        if folder == base or parameters.unpack:
            return confine(folder, _name_in(parameters.url))
        return base
    if not parameters.path and not into_folder:
        raise InputError("nothing says where to put it.", place="asset", remedy="Choose an asset.")
    return confine(workspace.kit, parameters.path)


def _own(workspace: Workspace, path: Path) -> Path:
    """The path, which must be the workspace's or the kit's to write to."""
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root) for root in (workspace.kit, workspace.root)):
        raise InputError(
            "the asset is set to a place outside the workspace.",
            place=str(resolved),
            remedy="Remove that setting, or put the files there yourself.",
        )
    return resolved


def _name_in(url: str) -> str:
    name = Path(unquote(urlsplit(url).path)).name
    if not name:
        raise InputError("the address names no file.", place="url", remedy="Set path.")
    return name


class _Teller(Told):
    """Speaks through the stage; bytes of files that are done count before those under way."""

    def __init__(self, context: StageContext, files: int):
        self.context = context
        self.files = files
        self.number = 0
        self.name = ""

    def begin(self, number: int, name: str) -> None:
        """The next file begins."""
        self.number, self.name = number, name

    def progress(self, done: int, total: int | None) -> None:
        """So many bytes of this file are here."""
        note = self.name if self.files == 1 else f"{self.name} ({self.number}/{self.files})"
        self.context.progress(done, total, "bytes", note)

    def check_stop(self) -> None:
        """Raise when a person asked to stop."""
        self.context.check_stop()

    def broke(self, error: str, wait_s: float) -> None:
        """Leave a warning that it is tried again."""
        self.context.event("warning", "fetch_broke", error=error, wait=f"{wait_s:.0f}")


def main(context: StageContext, parameters: Parameters) -> None:
    """Fetch the files and write `fetched.json`."""
    downloads = plan(context.workspace, parameters)
    patience = Patience(parameters.retries, parameters.retry_wait_s)
    teller = _Teller(context, len(downloads))
    fetched = []
    for number, one in enumerate(downloads, 1):
        teller.begin(number, one.target.name)
        checksum = _there(one, parameters.replace_existing, context)
        if checksum is None:
            print(f"{one.url} -> {one.target}", flush=True)
            checksum = fetch(one, patience, teller)
        size = one.target.stat().st_size
        entry = {"url": one.url, "path": str(one.target), "size": size, "sha256": checksum}
        fetched.append(entry | {"verified": bool(one.sha256)})
        write_json(context.artifacts / "fetched.json", fetched)
        context.event("info", "fetched", file=one.target.name, size=size)
    if parameters.unpack:
        for one in downloads:
            unpack(context, one.target)
    if parameters.asset != "other":
        status = asset_status(context.workspace, parameters.asset)
        if status.state != "complete":
            context.event(
                "warning", "asset_incomplete", asset=status.name, problem=status.problem or "–"
            )


def _there(one: Download, replace_existing: bool, context: StageContext) -> str | None:
    """The checksum of the file when it is there already as wanted; None when it is to be fetched.

    Raises:
        InputError: Another file is there, and it may not be replaced.
    """
    if not one.target.exists():
        return None
    if one.sha256 and one.target.is_file():
        found = sha256_of(one.target, context.check_stop)
        if found == one.sha256:
            context.event("info", "fetched_before", file=one.target.name)
            return found
    if replace_existing and one.target.is_file():
        return None
    raise InputError(
        "another file is there already.",
        place=str(one.target),
        remedy="Set replace_existing to replace it.",
    )


def unpack(context: StageContext, archive: Path) -> None:
    """Unpack a tar or zip archive beside itself; members cannot leave its folder.

    Raises:
        InputError: It is no archive, is broken, or holds a member that is not acceptable.
    """
    members = _tar if archive.name.endswith(_TARS) else _zip
    if members is _zip and archive.suffix != ".zip":
        raise InputError("this is not a tar or zip archive.", place=str(archive))
    total, count = archive.stat().st_size, 0
    try:
        with archive.open("rb") as raw:
            for _ in members(raw, archive.parent):
                context.check_stop()
                count += 1
                context.progress(min(raw.tell(), total), total, "bytes", archive.name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise InputError(f"the archive cannot be unpacked: {error}.", place=str(archive)) from error
    context.event("info", "unpacked", file=archive.name, count=count)


def _tar(raw: IO[bytes], folder: Path) -> Iterator[None]:
    with tarfile.open(fileobj=raw, mode="r:*") as file:
        for member in file:
            check_space(folder, member.size)
            file.extract(member, folder, filter="data")
            yield


def _zip(raw: IO[bytes], folder: Path) -> Iterator[None]:
    with zipfile.ZipFile(raw) as file:
        for member in file.infolist():
            confine(folder, member.filename)
            check_space(folder, member.file_size)
            file.extract(member, folder)
            yield


if __name__ == "__main__":
    stage_main(Parameters, main)
