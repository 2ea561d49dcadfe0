"""Data-Juicer in a process where nothing can be installed.

Data-Juicer installs what an operator lacks while it runs: through its lazy loader, and in some
operators by calling pip or git themselves. Here the first raises an error that names the package,
and the second is refused by an audit hook, which holds for this process for good. Therefore only
a stage's own process, or a child made for the purpose, may call `guarded_operators`.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from backend.errors import InputError

_INSTALLER = re.compile(
    r"(^|[\s/=])(pip[\d.]*|uv|uvx|conda|mamba|easy_install|git|setup\.py)(\s|$)"
)
_LAUNCHES = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"})


class PackageMissingError(ImportError):
    """An operator needs a package that is not installed.

    Attributes:
        package: What pip would be asked for.
    """

    def __init__(self, package: str):
        super().__init__(f"needs the package {package!r}, and nothing is installed while data runs")
        self.package = package


class InstallRefusedError(PermissionError):
    """An operator tried to start an installer."""


def guard_environment(cache_folder: Path) -> dict[str, str]:
    """Environment variables under which no tool reaches for a registry or a model hub.

    Args:
        cache_folder: Where Data-Juicer and datasets may keep their caches.
    """
    return {
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_REQUIRE_VIRTUALENV": "1",
        "UV_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(cache_folder / "datasets"),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "DATA_JUICER_CACHE_HOME": str(cache_folder / "data_juicer"),
        "DJ_PRODUCED_DATA_DIR": str(cache_folder / "produced"),
    }


@cache
def guarded_operators(cache_folder: Path) -> dict[str, type[Any]]:
    """Data-Juicer's registry with our operators in it, in a process that was guarded first.

    Args:
        cache_folder: Where Data-Juicer and datasets may keep their caches.

    Raises:
        InputError: Data-Juicer is not installed.
    """
    os.environ.update(guard_environment(cache_folder))
    sys.addaudithook(_refuse_installers)
    try:
        import datasets
        from data_juicer.ops import OPERATORS
        from data_juicer.utils.lazy_loader import LazyLoader
        from loguru import logger
    except ImportError as error:
        raise InputError(
            f"Data-Juicer cannot be imported: {error}.",
            remedy="Install the studio's requirements again: make run",
        ) from error
    LazyLoader._install_package = classmethod(_refuse_package)
    datasets.disable_progress_bars()
    datasets.disable_caching()
    logger.remove()
    # Without the values of variables: some are keys of services.
    logger.add(sys.stderr, level="WARNING", backtrace=False, diagnose=False)

    from backend.synthesis.operators import register

    register()
    modules: dict[str, type[Any]] = OPERATORS.modules
    return modules


def _refuse_package(_loader: type[Any], package: str, _pip_args: object = None) -> None:
    raise PackageMissingError(package)


def _refuse_installers(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "import" and arguments[0] in ("pip", "uv", "ensurepip"):
        raise PackageMissingError(arguments[0])
    if event in _LAUNCHES:
        words = _words(arguments)
        if _INSTALLER.search(words):
            raise InstallRefusedError(
                f"an operator tried to run {words!r}; nothing is installed here"
            )


def _words(arguments: tuple[Any, ...]) -> str:
    """Program and arguments of a launch as one line."""
    parts: list[Any] = []
    for argument in arguments[:2]:
        parts += argument if isinstance(argument, list | tuple) else [argument]
    texts = (part for part in parts if isinstance(part, str | bytes | os.PathLike))
    return " ".join(os.fsdecode(text) for text in texts)
