"""Installing from a folder of wheels into a throwaway Python; the network is never asked."""

from __future__ import annotations

import base64
import hashlib
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

from backend.environment.installing import (
    PACKAGES,
    Package,
    Source,
    command,
    distributions,
    install,
)
from backend.environment.software import pins
from backend.errors import InputError
from backend.gpu import read_devices
from backend.runs import Run, RunFailed, RunSpec, new_run_id
from backend.stages.base import StageContext, StopRequested
from backend.stages.install import Parameters, main, preflight
from backend.workspace import Settings, Workspace

TINY = Package("synthloop-tiny", "1.2.3", "synthloop_tiny")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="installing"))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An empty Python; without pip, which is not needed in it."""
    folder = tmp_path / "python"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def wheel(
    folder: Path, version: str = "1.2.3", source: str = "VALUE = 1\n", needs: str = ""
) -> None:
    """A wheel as a build makes it (PEP 427)."""
    folder.mkdir(exist_ok=True)
    info = f"synthloop_tiny-{version}.dist-info"
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    members = {
        "synthloop_tiny.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: synthloop-tiny\n"
        f"Version: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{name},{_digest(text)},{len(text)}\n" for name, text in members.items())
    with zipfile.ZipFile(folder / f"synthloop_tiny-{version}-py3-none-any.whl", "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
        file.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def put(python: Path, folder: Path, tick=lambda: None) -> None:
    install(TINY, python, Source(folder), folder / "pip.log", tick)


def test_exactly_the_pinned_version_is_installed_and_nothing_it_asks_for(python, tmp_path):
    wheel(tmp_path / "wheels", needs="a-package-that-is-nowhere")
    wheel(tmp_path / "wheels", version="9.9.9")
    put(python, tmp_path / "wheels")
    assert distributions(python) == {"synthloop-tiny": "1.2.3"}


def test_a_version_that_is_not_to_be_had_says_so_in_pips_words(python, tmp_path):
    wheel(tmp_path / "wheels", version="9.9.9")
    with pytest.raises(RunFailed) as failed:
        put(python, tmp_path / "wheels")
    reason = failed.value.reason
    assert reason.code == "install_failed"
    assert "No matching distribution" in " ".join(reason.evidence)


def test_what_cannot_be_imported_is_no_success(python, tmp_path):
    wheel(tmp_path / "wheels", source="import a_module_that_is_nowhere\n")
    with pytest.raises(RunFailed) as failed:
        put(python, tmp_path / "wheels")
    assert failed.value.reason.code == "install_unusable"
    assert "a_module_that_is_nowhere" in failed.value.reason.values["error"]


def test_a_stop_ends_pip_at_once(python, tmp_path):
    wheel(tmp_path / "wheels")
    began = time.monotonic()

    def stop() -> None:
        raise StopRequested

    with pytest.raises(StopRequested):
        put(python, tmp_path / "wheels", stop)
    assert time.monotonic() - began < 10


def test_the_command_has_no_shell_and_touches_nothing_else(tmp_path):
    words = command(PACKAGES["flash-attn"], Path(sys.executable), Source(), tmp_path / "log")
    assert words[-1] == f"flash-attn=={PACKAGES['flash-attn'].version}"
    assert "--no-deps" in words
    assert "--no-build-isolation" in words
    assert "--upgrade" not in words
    assert "--no-index" not in words


def codes(workspace: Workspace, **values) -> dict[str, str]:
    found = preflight(workspace, Parameters(**values))
    return {problem.code: problem.level for problem in found}


@pytest.mark.skipif(bool(read_devices().devices), reason="this machine has a device")
def test_without_a_device_it_is_refused_unless_forced(workspace):
    assert codes(workspace, package="bitsandbytes")["install_no_device"] == "error"
    assert codes(workspace, package="bitsandbytes", force=True)["install_no_device"] == "warning"
    spec = RunSpec(
        run_id=new_run_id("install"),
        stage="install",
        parameters={},
        argv=[],
        created_at=time.time(),
        device=None,
    )
    context = StageContext(workspace, Run.create(workspace, spec))
    with pytest.raises(InputError, match="no GPU"):
        main(context, Parameters(package="bitsandbytes"))
    assert list(context.artifacts.iterdir()) == []


def test_what_is_there_already_and_what_is_lacking_is_said_before(workspace):
    assert codes(workspace, package="bitsandbytes")["install_there"] == "warning"
    assert codes(workspace, wheels="nowhere")["install_wheels"] == "error"


def test_the_pin_of_a_package_that_is_in_requirements_is_the_same():
    pinned = pins()
    wrong = [
        one.name for one in PACKAGES.values() if pinned.get(one.name, one.version) != one.version
    ]
    assert wrong == []
