"""Where the workspace lies: room, permission, and the kind of file system."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import psutil

from backend.environment.checking import BOTH, Check, CheckState, gib
from backend.workspace import Workspace

STARTER_NEED = 2 << 30
"""Bytes for the starter's data, caches and small checkpoints."""
CHECKPOINT = 6_038_332_288
"""Bytes of MGM-2B's 3,019,166,144 weights in bf16."""
OPTIMIZER = 5_038_862_848
"""Bytes of 8-bit AdamW's two states for the 2,519,431,424 weights that train."""
PROJECTOR = 1_025_987_456
"""Bytes of the kit's mm_projector.bin, which holds the frozen towers too."""
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "drvfs", "sshfs", "fuse.sshfs", "v9fs"}
"""File systems on which locks and renames may fail, and small files are slow."""
FLEETING = {"tmpfs", "ramfs"}
"""File systems that forget everything at a restart."""


def disk_checks(workspace: Workspace) -> list[Check]:
    """Room, permission and file system of the workspace's folder."""
    return [_free(workspace), _writable(workspace), file_system_check(file_system(workspace.root))]


def space_needed(workspace: Workspace) -> int:
    """Bytes that one round of training leaves at most, as many checkpoints kept as settings say."""
    if workspace.settings.profile == "starter":
        return STARTER_NEED
    kept = workspace.settings.retention_checkpoints
    return PROJECTOR + CHECKPOINT + kept * (CHECKPOINT + OPTIMIZER)


def _free(workspace: Workspace) -> Check:
    needed = space_needed(workspace)
    free = shutil.disk_usage(workspace.root).free
    if free >= needed:
        state: CheckState = "ok"
    else:
        state = "failed" if free < needed / 2 else "warning"
    profile = (workspace.settings.profile,)
    return Check("disk_free", "disk", state, gib(free), f"≥ {gib(needed)}", profile)


def _writable(workspace: Workspace) -> Check:
    for folder in (workspace.root, workspace.runs, workspace.datasets):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
        except OSError as error:
            found = f"{folder}: {error.strerror}"
            return Check("disk_writable", "disk", "failed", found, "", BOTH)
    return Check("disk_writable", "disk", "ok", str(workspace.root), "", BOTH)


def file_system(path: Path) -> str | None:
    """The type of the file system that `path` lies on; None when the system does not tell."""
    mounts = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    here = path.resolve()
    for folder in (here, *here.parents):
        if mounts.get(folder):
            return mounts[folder].lower()
    return None


def file_system_check(kind: str | None) -> Check:
    """A file system that keeps what it is given, and where one process can lock out another."""
    if kind is None:
        return Check("file_system", "disk", "unknown")
    state: CheckState = "warning" if kind in NETWORK | FLEETING else "ok"
    return Check("file_system", "disk", state, kind)
