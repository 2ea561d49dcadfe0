"""What a check says, and what all of them together say of a profile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from backend.workspace import Profile

CheckState = Literal["ok", "warning", "missing", "failed", "unknown"]
Group = Literal["hardware", "drivers", "packages", "assets", "disk"]
GROUPS: tuple[Group, ...] = get_args(Group)
BOTH: tuple[Profile, ...] = ("starter", "mgm-2b")
LARGE: tuple[Profile, ...] = ("mgm-2b",)


@dataclass(frozen=True)
class Remedy:
    """What sets it right: a command to type, or a stage to start."""

    kind: Literal["command", "fetch", "install"]
    value: str
    """The command, the asset to fetch, or the package to install."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Title, reason and remedy in words are at `check.<name>.title`, `.why` and `.remedy`.
    """

    name: str
    group: Group
    state: CheckState
    found: str = ""
    """In figures and names that need no translation; empty when nothing was found."""
    needed: str = ""
    """Likewise; empty when the title says it."""
    blocks: tuple[Profile, ...] = ()
    """Profiles that cannot be worked with while it is missing or failed."""
    optional: bool = False
    """Whether nobody misses it who does without."""
    remedy: Remedy | None = None


@dataclass(frozen=True)
class Readiness:
    """Whether a profile can be worked with."""

    profile: Profile
    ready: bool
    blocking: tuple[str, ...]
    """Names of the checks in the way."""
    unknown: tuple[str, ...]
    """Names of the checks that could have been in the way and could not be made."""


def readiness(found: Iterable[Check], profile: Profile) -> Readiness:
    """What the checks say of a profile."""
    concerned = [check for check in found if profile in check.blocks]
    blocking = tuple(check.name for check in concerned if check.state in ("missing", "failed"))
    unknown = tuple(check.name for check in concerned if check.state == "unknown")
    return Readiness(profile, not blocking, blocking, unknown)


def concerns(check: Check, profile: Profile) -> bool:
    """Whether a workspace of this profile should care: optional and foreign matters aside."""
    return not check.optional and (not check.blocks or profile in check.blocks)


def not_ready(found: Iterable[Check], profile: Profile) -> list[Check]:
    """The checks that ask for something in a workspace of this profile."""
    return [check for check in found if check.state != "ok" and concerns(check, profile)]


def gib(size: float) -> str:
    """Bytes as GiB."""
    return f"{size / 2**30:,.1f} GiB"
