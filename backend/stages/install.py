"""Install an optional accelerator, pinned, without touching any other package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from backend.environment.installing import PACKAGES, Source, install
from backend.environment.software import driver_checks, installed, torch_cuda
from backend.errors import InputError
from backend.gpu import read_devices
from backend.messages import message
from backend.stages.base import Problem, StageContext, StageParameters, parameter, stage_main
from backend.workspace import Workspace

_NO_CUDA_NEEDED = ("bitsandbytes",)


class Parameters(StageParameters):
    """What to install, and from where."""

    package: Literal["flash-attn", "bitsandbytes", "liger-kernel"] = parameter(
        "bitsandbytes", fold="data"
    )
    wheels: str = parameter("", fold="data", kind="path")
    force: bool = parameter(False, fold="advanced")


def preflight(workspace: Workspace, parameters: Parameters) -> list[Problem]:
    """Device, CUDA, compiler, what the package needs, and whether it is there already."""
    package = PACKAGES[parameters.package]
    values = {"package": package.name, "version": package.version}
    problems = []
    have = installed(package.name)
    if have == package.version:
        problems.append(Problem("warning", "install_there", values, package.name))
    if parameters.wheels and not _folder(workspace, parameters.wheels).is_dir():
        place = str(_folder(workspace, parameters.wheels))
        problems.append(Problem("error", "install_wheels", {"path": place}, "wheels"))
    missing = [name for name in package.needs if installed(name) is None]
    if missing:
        wanted = values | {"missing": ", ".join(missing)}
        problems.append(Problem("error", "install_needs", wanted, "package"))
    return [*problems, *_machine(parameters, values)]


def _machine(parameters: Parameters, values: dict[str, str]) -> list[Problem]:
    """What the machine lacks; with force these are warnings."""
    level: Literal["error", "warning"] = "warning" if parameters.force else "error"
    readings = read_devices()
    problems = []
    if not readings.devices:
        problems.append(Problem(level, "install_no_device", values, "GPU"))
    if not torch_cuda() and parameters.package not in _NO_CUDA_NEEDED:
        problems.append(Problem(level, "install_no_cuda", values, "torch"))
    if PACKAGES[parameters.package].compiles and not parameters.wheels:
        tools = {check.name: check.state for check in driver_checks(readings)}
        absent = [name for name in ("nvcc", "compiler", "ninja") if tools[name] != "ok"]
        if absent:
            wanted = values | {"tools": ", ".join(absent)}
            problems.append(Problem(level, "install_no_compiler", wanted, "package"))
    return problems


def _folder(workspace: Workspace, wheels: str) -> Path:
    return (workspace.root / wheels).resolve()


def main(context: StageContext, parameters: Parameters) -> None:
    """Install into the Python that runs this."""
    for problem in preflight(context.workspace, parameters):
        if problem.level == "error":
            # The machine may have changed since the run was asked for.
            sentence = message(f"problem.{problem.code}", "en", **problem.values)
            raise InputError(sentence, place=problem.place)
    package = PACKAGES[parameters.package]
    source = Source(
        _folder(context.workspace, parameters.wheels) if parameters.wheels else None,
    )
    log = context.artifacts / "pip.log"
    install(package, Path(sys.executable), source, log, context.check_stop)
    context.event("info", "installed", package=package.name, version=package.version)


if __name__ == "__main__":
    stage_main(Parameters, main)
