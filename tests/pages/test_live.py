"""Parts of a page that draw themselves again, and what may have gone meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from backend.runs import State
from backend.supervisor import delete
from backend.workspace import Workspace
from tests.pages.browsing import sound, words
from tests.pages.workspaces import add_run, empty

RUN = "20261124-110000-finetune-aaaa"


@pytest.fixture
def space(tmp_path: Path, monkeypatch) -> Workspace:
    made = empty(tmp_path)
    monkeypatch.setenv("SYNTHLOOP_WORKSPACE", str(made.root))
    return made


def reading(run_id: str, fault: str) -> AppTest:
    """An app with one live part, which reads a run's log and then may fail."""

    def app(run_id: str, fault: str) -> None:
        import streamlit as st

        from backend.errors import InputError
        from pages.widgets.live import live
        from pages.widgets.text import workspace

        def draw(name: str) -> None:
            st.write((workspace().runs / name / "output.log").read_text())
            if fault == "bad input":
                raise InputError("the figures are torn.", remedy="Resume the run.")
            if fault == "mistake":
                raise ZeroDivisionError

        live(draw, run_id, every=2, of=[run_id])

    return AppTest.from_function(app, kwargs={"run_id": run_id, "fault": fault})


def test_a_run_that_was_deleted_elsewhere_is_told_as_that(space: Workspace):
    run = add_run(space, RUN, State.SUCCEEDED)
    app = sound(reading(RUN, "").run())
    assert not app.info
    delete(run)
    sound(app.run())
    assert "deleted" in app.info[0].value
    assert app.button[0].label == "Update the page"


def test_an_error_in_a_live_part_is_a_sentence_with_its_remedy(space: Workspace):
    add_run(space, RUN, State.SUCCEEDED)
    assert "Resume the run" in words(sound(reading(RUN, "bad input").run()))


def test_a_mistake_of_ours_is_not_hidden(space: Workspace):
    add_run(space, RUN, State.SUCCEEDED)
    assert reading(RUN, "mistake").run().exception
