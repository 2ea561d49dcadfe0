"""What surrounds every page, and that the page process stays light."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from backend.messages import LANGUAGES, message
from backend.starter import create
from backend.workspace import Workspace
from pages.widgets.shell import GROUPS
from tests.pages.browsing import ROOT, markup, sound, through_the_router, visit, words
from tests.pages.workspaces import empty, half_finished

PAGES = [name for group in GROUPS.values() for name in group]
"""What the sidebar offers: every page."""


TORN = {
    "20261124-110000-finetune-1111": "run.json",
    "20261124-120000-evaluate-9999": "run.json",
    "20261124-100000-finetune-5707": "status.json",
    "20261124-090000-pretrain-baad": "outcome.json",
    "20261124-103000-evaluate-beef": "artifacts/scores.json",
    "20261124-080000-loop-aaaa": "artifacts/loop.json",
    "20261124-080020-finetune-aaad": "metrics.jsonl",
}
"""Runs of the damaged workspace, and the file of each that is torn."""


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """Workspaces as a person finds them, by what they are."""
    folder = tmp_path_factory.mktemp("spaces")
    with pytest.MonkeyPatch.context() as fewer:
        for name in ("N_SEED", "N_INSTRUCTIONS", "N_TEXTVQA", "N_MMBENCH"):
            fewer.setattr(create, name, 60)
        starter = create.create_starter(folder / "starter")
    return {
        "empty": empty(folder / "empty"),
        "starter": starter,
        "half-finished": half_finished(folder / "half"),
        "damaged": damaged(folder / "damaged"),
    }


def damaged(root: Path) -> Workspace:
    """A workspace with runs of which one file each is torn."""
    space = half_finished(root)
    for run_id, name in TORN.items():
        path = space.runs / run_id / name
        path.write_bytes(b'{"step": 1, "los\n' + path.read_bytes()[: path.stat().st_size // 2])
    return space


@pytest.fixture(scope="module")
def busy(spaces: dict[str, Workspace]) -> Workspace:
    return spaces["half-finished"]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("space", ["empty", "starter", "half-finished", "damaged"])
@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens(page, space, lang, spaces, monkeypatch):
    app = visit(page, spaces[space], monkeypatch, lang)
    assert app.title[0].value == message(f"{page}.title", lang)
    shown = f"{words(app)} {markup(app)}"
    assert not re.search(r"\b[a-z]+(\.[a-z_]+)+\.(help|title|label|none)\b", shown), "a raw key"


@pytest.mark.parametrize("view", ["charts", "health", "configuration", "files"])
@pytest.mark.parametrize("run_id", TORN)
def test_a_run_with_a_torn_file_opens(run_id, view, spaces, monkeypatch):
    app = visit("runs", spaces["damaged"], monkeypatch, run=run_id, view=view)
    assert app.subheader or app.error


def test_names_from_data_stay_text(busy, monkeypatch):
    app = visit("overview", busy, monkeypatch)
    assert "<b>round</b>" not in markup(app)
    assert "second <b>round" not in words(app)
    assert any("studio *one*" in str(block.value) for block in app.sidebar.get("html"))


def test_the_language_is_chosen_in_the_sidebar_at_once(busy, monkeypatch):
    app = visit("runs", busy, monkeypatch)
    app.sidebar.button_group(key="language").set_value("zh")
    sound(app.run())
    assert app.title[0].value == message("runs.title", "zh")
    assert app.query_params["lang"] == "zh"


def test_an_unknown_language_falls_back(busy, monkeypatch):
    assert visit("runs", busy, monkeypatch, "tlh").title[0].value == message("runs.title")


def test_what_is_running_is_in_the_sidebar(busy, monkeypatch):
    app = visit("overview", busy, monkeypatch)
    links = [link.proto.label for link in app.sidebar.get("page_link")]
    assert any("50\u00a0%" in label and "left" in label for label in links)


@pytest.mark.parametrize("place", [None, "/nowhere/at/all"])
def test_without_a_workspace_the_one_command_is_shown(place, monkeypatch):
    if place is None:
        monkeypatch.delenv("SYNTHLOOP_WORKSPACE", raising=False)
    else:
        monkeypatch.setenv("SYNTHLOOP_WORKSPACE", place)
    through_the_router(monkeypatch)
    app = sound(AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run())
    assert app.code[0].value.startswith("python -m backend")


def test_a_broken_workspace_file_is_explained(tmp_path: Path, monkeypatch):
    (tmp_path / "workspace.toml").write_text("name = [")
    monkeypatch.setenv("SYNTHLOOP_WORKSPACE", str(tmp_path))
    through_the_router(monkeypatch)
    app = sound(AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run())
    assert "not TOML" in words(app)


def test_the_page_process_loads_no_training_library(busy):
    script = textwrap.dedent(
        f"""
        import sys
        from pytest import MonkeyPatch
        from streamlit.testing.v1 import AppTest
        from tests.pages.browsing import through_the_router
        through_the_router(MonkeyPatch())
        app = AppTest.from_file("app.py", default_timeout=60).run()
        for page in {PAGES!r}:
            app.switch_page(f"pages/{{page}}.py").run()
            assert not app.exception and app.title, (page, app.exception)
        heavy = {{"torch", "transformers", "data_juicer", "deepspeed", "datasets", "ray", "peft"}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        """
    )
    environment = os.environ | {
        "SYNTHLOOP_WORKSPACE": str(busy.root),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
