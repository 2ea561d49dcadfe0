"""Installing an optional accelerator into a Python without touching anything else in it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.runs import Reason, RunFailed

GRACE_S = 5.0
"""Seconds that pip gets to end after it was asked to."""
_EVIDENCE = re.compile(r"error|not found|no matching|conflict", re.IGNORECASE)
_LIST = (
    "import json; from importlib import metadata as m; "
    "print(json.dumps({d.name: d.version for d in m.distributions()}))"
)


@dataclass(frozen=True)
class Package:
    """An optional package, pinned."""

    name: str
    version: str
    module: str
    """What `import` calls it."""
    needs: tuple[str, ...] = ()
    """Distributions it needs and that are not installed for it."""
    compiles: bool = False
    """Whether it is built here: needs nvcc, a compiler, and tens of minutes."""


PACKAGES: dict[str, Package] = {
    one.name: one
    for one in (
        Package("flash-attn", "2.8.3.post2", "flash_attn", ("torch", "einops"), compiles=True),
        Package("bitsandbytes", "0.50.2", "bitsandbytes", ("torch", "numpy")),
        Package("liger-kernel", "0.8.5", "liger_kernel", ("torch", "triton")),
    )
}
"""Optional accelerators by the name of their distribution."""


@dataclass(frozen=True)
class Source:
    """Where pip looks; by default where it is configured to."""

    folder: Path | None = None
    """Wheels in this folder are taken, and nothing is asked of the network."""


def command(package: Package, python: Path, source: Source, log: Path) -> list[str]:
    """The command that installs exactly this version, and nothing beside it."""
    words = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "--no-input",
        "--disable-pip-version-check",
        "--log",
        str(log),
        "install",
        "--no-deps",
        "--progress-bar",
        "off",
    ]
    if package.compiles:
        words += ["--no-build-isolation"]
    if source.folder is not None:
        words += ["--no-index", "--find-links", str(source.folder)]
    return [*words, f"{package.name}=={package.version}"]


def distributions(python: Path) -> dict[str, str]:
    """Distributions of a Python by name."""
    done = subprocess.run(
        [str(python), "-c", _LIST], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def install(
    package: Package,
    python: Path,
    source: Source,
    log: Path,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Install a package; what pip prints goes to this process's output.

    Args:
        package: What to install.
        python: The interpreter whose environment gets it.
        source: Where from.
        log: pip's own log.
        tick: Called several times a second; when it raises, pip is ended.

    Raises:
        RunFailed: `install_failed` with pip's words, `install_changed_others` when another
            distribution is not what it was, or `install_unusable` when it cannot be imported.
    """
    before = distributions(python)
    code = _run(command(package, python, source, log), tick)
    values = {"package": package.name, "version": package.version}
    if code != 0:
        evidence = _last_words(log)
        values["error"] = evidence[-1] if evidence else f"pip {code}"
        raise RunFailed(Reason(code="install_failed", values=values, evidence=evidence))
    after = distributions(python)
    own = _plain(package.name)
    changed = [
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in before.keys() | after.keys()
        if _plain(name) != own and before.get(name) != after.get(name)
    ]
    if changed:
        values["changed"] = ", ".join(sorted(changed))
        raise RunFailed(Reason(code="install_changed_others", values=values))
    done = subprocess.run(
        [str(python), "-c", f"import {package.module}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        evidence = done.stderr.strip().splitlines()[-5:]
        values["error"] = evidence[-1] if evidence else f"exit code {done.returncode}"
        raise RunFailed(Reason(code="install_unusable", values=values, evidence=evidence))


def _run(words: Sequence[str], tick: Callable[[], None]) -> int:
    """Run without a shell; ended with all its children when `tick` raises."""
    print(" ".join(words), flush=True)
    with subprocess.Popen(words, start_new_session=True) as process:
        try:
            while process.poll() is None:
                tick()
                time.sleep(0.1)
        except BaseException:
            _end(process)
            raise
        return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                continue


def _last_words(log: Path) -> list[str]:
    if not log.is_file():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # pip puts a time before each line.
    said = [line.split(" ", 1)[-1].strip() for line in lines]
    return [line for line in said if _EVIDENCE.search(line)][-5:]


def _plain(name: str) -> str:
    """A distribution's name as registries compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
