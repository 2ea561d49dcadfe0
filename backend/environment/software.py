"""Driver, compiler and packages, judged by what is written about them rather than by importing."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path

from backend.environment.checking import BOTH, LARGE, Check, CheckState, Remedy
from backend.environment.installing import PACKAGES
from backend.gpu import DeviceReadings

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
PYTHON = (3, 11)
STRANGERS = ("torchvision", "timm", "open_clip_torch")
"""Packages that the registry builds for other torch builds: beside ours they break transformers'
image processors, and nothing here needs them."""
DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""Lowest driver for each major CUDA version (NVIDIA's table of minor version compatibility)."""
_CUDA = re.compile(r"^cuda[^=\n]*=\s*['\"]([\d.]+)['\"]", re.MULTILINE)
_SHOWN = 4
Version = Callable[[str], str | None]


def installed(name: str) -> str | None:
    """The version of a distribution; None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def torch_cuda() -> str | None:
    """The CUDA version torch was built for, as its files say; "" for none, None without torch."""
    found = util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).with_name("version.py")
    if not path.is_file():
        return None
    version = _CUDA.search(path.read_text(encoding="utf-8"))
    return version[1] if version else ""


def driver_checks(
    readings: DeviceReadings,
    cuda: str | None = None,
    which: Callable[[str], str | None] = shutil.which,
) -> list[Check]:
    """The driver against torch's CUDA, then what compiling operators needs."""
    built = torch_cuda() if cuda is None else cuda
    return [_driver(readings, built), _torch_build(readings, built), *_tools(which)]


def _driver(readings: DeviceReadings, cuda: str | None) -> Check:
    lowest = DRIVERS.get(int(cuda.split(".")[0])) if cuda else None
    needed = f"≥ {lowest} (CUDA {cuda})" if lowest else ""
    found = readings.driver
    if readings.error == "no_driver":
        state: CheckState = "missing"
    elif found is None:
        state = "unknown"
    elif lowest is not None and _numbers(found) < _numbers(lowest):
        state = "failed"
    else:
        state = "ok"
    return Check("driver", "drivers", state, found or "", needed, LARGE)


def _torch_build(readings: DeviceReadings, cuda: str | None) -> Check:
    """A machine with a device wants a torch that can use it."""
    if cuda is None:
        return Check("torch_build", "drivers", "missing", "", "torch", BOTH)
    if cuda:
        return Check("torch_build", "drivers", "ok", f"CUDA {cuda}", "CUDA", LARGE)
    state: CheckState = "failed" if readings.devices else "warning"
    return Check("torch_build", "drivers", state, "CPU", "CUDA", LARGE)


def _tools(which: Callable[[str], str | None]) -> list[Check]:
    found = []
    for name, commands in (
        ("compiler", ("g++", "c++")),
        ("ninja", ("ninja",)),
        ("nvcc", ("nvcc",)),
    ):
        at = next((path for one in commands if (path := _find(one, which)) is not None), None)
        state: CheckState = "ok" if at else "missing"
        found.append(Check(name, "drivers", state, at or "", commands[0], optional=True))
    return found


def _find(command: str, which: Callable[[str], str | None]) -> str | None:
    """A command on the path, beside this Python, or where CUDA is usually unpacked."""
    found = which(command)
    if found is None:
        places = (Path(sys.executable).parent, Path("/usr/local/cuda/bin"))
        found = next((str(one / command) for one in places if (one / command).is_file()), None)
    return found


def package_checks(version: Version = installed, requirements: Path = REQUIREMENTS) -> list[Check]:
    """Python, the pins, what should not be there, and the optional accelerators."""
    return [_python(), _pins(version, requirements), _strangers(version), *_optional(version)]


def _python() -> Check:
    good = sys.version_info[:2] >= PYTHON
    needed = f"≥ {PYTHON[0]}.{PYTHON[1]}"
    return Check(
        "python", "packages", "ok" if good else "failed", platform.python_version(), needed, BOTH
    )


def pins(requirements: Path = REQUIREMENTS) -> dict[str, str]:
    """The exact versions that the studio was tested with, by distribution."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    kept = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.split("[")[0].strip(): version.strip() for name, version in kept}


def _pins(version: Version, requirements: Path) -> Check:
    if not requirements.is_file():
        return Check("pins", "packages", "unknown", "", requirements.name, BOTH)
    wanted = pins(requirements)
    have = {name: version(name) for name in wanted}
    absent = [name for name, found in have.items() if found is None and name not in PACKAGES]
    # "2.13.0+cpu" is 2.13.0 in another build.
    other = [
        f"{name} {found}"
        for name, found in have.items()
        if found is not None and found.split("+")[0] != wanted[name]
    ]
    as_pinned = len(wanted) - len(other) - sum(found is None for found in have.values())
    listed = absent or other
    more = f" + {len(listed) - _SHOWN}" if len(listed) > _SHOWN else ""
    names = f": {', '.join(listed[:_SHOWN])}{more}" if listed else ""
    state: CheckState = "missing" if absent else "warning" if other else "ok"
    remedy = Remedy("command", f"pip install -r {requirements.name}") if listed else None
    needed = str(len(wanted))
    return Check("pins", "packages", state, f"{as_pinned}{names}", needed, BOTH, remedy=remedy)


def _strangers(version: Version) -> Check:
    there = [name for name in STRANGERS if version(name) is not None]
    remedy = Remedy("command", f"pip uninstall {' '.join(there)}") if there else None
    state: CheckState = "warning" if there else "ok"
    return Check("strangers", "packages", state, ", ".join(there), "", remedy=remedy)


def _optional(version: Version) -> list[Check]:
    found = []
    for name, package in PACKAGES.items():
        have = version(name)
        state: CheckState = "missing" if have is None else "ok"
        if have is not None and have.split("+")[0] != package.version:
            state = "warning"
        remedy = None if state == "ok" else Remedy("install", name)
        key = name.replace("-", "_")
        found.append(
            Check(key, "packages", state, have or "", package.version, optional=True, remedy=remedy)
        )
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
