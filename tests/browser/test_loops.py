"""Both loops of the starter, from a fresh workspace, by clicks alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from backend.files import read_json
from backend.runs import Run, State
from backend.workspace import Workspace
from tests.browser.conftest import Studio, opened, serve, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1500)]
PATIENCE_S = 900


def loops(root: Path) -> list[Run]:
    space = Workspace.open(root)
    return [run for run in Run.all(space) if run.spec.stage == "loop"]


def the_loop(root: Path, name: str) -> Run:
    """The one run of this loop, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [run for run in loops(root) if run.spec.parameters["loop"] == name]
        if found:
            assert len(found) == 1
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"the click did not start the loop {name}")


def child(loop: Run, stage: str) -> Run:
    steps = {step["stage"]: step for step in read_json(loop.artifacts / "loop.json")["steps"]}
    return Run(loop.path.parent / steps[stage]["run_id"])


def training(loop: Run) -> Run:
    """The loop's run that is training right now, some steps done."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert not loop.status().state.ended, loop.status()
        for run in Run.all(Workspace.open(loop.path.parents[1])):
            if run.spec.parent == loop.id and run.spec.stage == "pretrain":
                progress = run.progress()
                if progress is not None and progress.done >= 3:
                    return run
        time.sleep(0.2)
    raise AssertionError("the loop never trained")


def wait_for_end(loop: Run) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not loop.status().state.ended:
        assert time.monotonic() < deadline, "the loop takes too long"
        time.sleep(0.5)
    status = loop.status()
    assert status.state is State.SUCCEEDED, status.reason


def click(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_both_loops_run_from_clicks_and_outlive_the_studio(
    browser: Browser, studio: Studio, home: Path
):
    page = opened(browser, studio.url)
    click(page, "Baseline loop")
    baseline = the_loop(studio.root, "baseline")
    page.wait_for_url("**/baseline?run=*")

    run = training(baseline)
    studio.kill()
    seen = run.progress().done
    again = serve(studio.root, studio.port, home / "studio.log")
    studio.process = again.process
    deadline = time.monotonic() + 60
    while run.progress().done <= seen:
        assert time.monotonic() < deadline, "training stood still when the studio was killed"
        time.sleep(0.2)
    assert baseline.status().state is State.RUNNING

    page.goto(f"{studio.url}/runs?run={run.id}")
    settled(page)
    page.get_by_text("Running", exact=False).first.wait_for()
    page.locator('[data-testid="stPlotlyChart"]').first.wait_for()

    wait_for_end(baseline)
    page.goto(f"{studio.url}/overview")
    settled(page)
    click(page, "Synthesis loop")
    synthesis = the_loop(studio.root, "synthesis")
    page.wait_for_url("**/synthesis?run=*")
    page.get_by_text("Analyze data").first.wait_for()
    wait_for_end(synthesis)
    _a_click_on_a_step_shows_its_samples(page, studio, child(synthesis, "finetune"))

    scored = [child(loop, "evaluate") for loop in (baseline, synthesis)]
    page.goto(f"{studio.url}/compare?{'&'.join(f'runs={run.id}' for run in scored)}")
    settled(page)
    text = page.locator('[data-testid="stMain"]').inner_text()
    assert "baseline" in text
    assert "synthesis" in text
    for run in scored:
        scores = read_json(run.artifacts / "scores.json")
        assert scores["textvqa"]["n"] == 500
        assert scores["mmbench"]["n"] == 200
    _above_chance(read_json(scored[1].artifacts / "scores.json"))


def _a_click_on_a_step_shows_its_samples(page: Page, studio: Studio, run: Run) -> None:
    page.goto(f"{studio.url}/training?run={run.id}")
    settled(page)
    loss = page.locator(".nsewdrag").first.bounding_box()
    x, y = loss["x"] + loss["width"] * 0.3, loss["y"] + loss["height"] * 0.6
    page.mouse.move(x, y)
    page.locator(".hoverlayer .legend").first.wait_for()
    page.mouse.click(x, y)
    page.wait_for_url("**step=*")
    page.locator('[data-testid="stMain"] img').first.wait_for()


def _above_chance(scores: dict) -> None:
    """Guessing letters gets 0.4 % of circular groups; naming one of four words, 25 %."""
    assert scores["mmbench"]["interval"][0] > 100 * 0.25**4
    assert scores["textvqa"]["interval"][0] > 25
