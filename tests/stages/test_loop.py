"""A loop starts its stages in turn, ends with the first that fails, and repeats no success."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.files import read_json, write_json
from backend.profiles import defaults
from backend.runs import Run, RunFailed, RunStatus, State
from backend.stages import finetune, loop
from backend.stages.base import StageContext, StopRequested
from backend.workspace import Workspace
from tests.pages.workspaces import add_run
from tests.seeds import make_workspace, picture, stage_context


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SYNTHLOOP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setitem(loop.LOOPS, "baseline", ("prepare",))
    return make_workspace(tmp_path)


def begin(space: Workspace, **parameters: Any) -> tuple[StageContext, loop.Parameters]:
    context = stage_context(space, "loop", **parameters)
    write_json(context.run.status_path, _running(1))
    return context, loop.Parameters.model_validate(parameters)


def _running(attempt: int) -> dict[str, Any]:
    status = RunStatus(state=State.RUNNING, attempt=attempt)
    return status.model_dump(mode="json", exclude={"supervised"})


def steps(context: StageContext) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(context.artifacts / "loop.json")["steps"]
    return found


def test_each_stage_is_a_run_of_the_loop(space: Workspace):
    context, parameters = begin(space, sample_cap=5, seed=7)
    loop.main(context, parameters)
    (step,) = steps(context)
    child = Run.find(space, step["run_id"])
    assert (step["state"], child.spec.parent, child.spec.name) == (
        "succeeded", context.run.id, "baseline"
    )  # fmt: skip
    assert child.spec.parameters["sample_cap"] == 5
    assert child.spec.parameters["seed"] == 7


def test_a_stage_that_fails_ends_the_loop_and_is_tried_again(space: Workspace):
    image = space.asset("seed_images") / "images" / "000000003.png"
    image.write_bytes(b"broken")
    context, parameters = begin(space)
    with pytest.raises(RunFailed) as failure:
        loop.main(context, parameters)
    reason = failure.value.reason
    assert (reason.code, reason.values["stage"]) == ("step_failed", "prepare")
    assert "000000003.png" in reason.values["problem"]
    (failed,) = steps(context)
    assert failed["state"] == "failed"

    picture(3).save(image)
    write_json(context.run.status_path, _running(2))
    loop.main(StageContext(space, context.run), parameters)
    (step,) = steps(context)
    assert step["state"] == "succeeded"
    assert step["run_id"] != failed["run_id"]


def test_what_succeeded_is_not_repeated(space: Workspace):
    context, parameters = begin(space)
    loop.main(context, parameters)
    before = steps(context)
    write_json(context.run.status_path, _running(2))
    loop.main(StageContext(space, context.run), parameters)
    assert steps(context) == before
    assert len([run for run in Run.all(space) if run.spec.stage == "prepare"]) == 1


def test_a_stopped_loop_starts_nothing_more(space: Workspace):
    context, parameters = begin(space)
    context.stop_requested = True
    with pytest.raises(StopRequested):
        loop.main(context, parameters)
    assert [run.spec.stage for run in Run.all(space)] == ["loop"]


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("profile", ["starter", "mgm-2b"])
def test_an_adapter_learns_at_a_rate_of_its_own(space: Workspace, profile: Any, method: str):
    settings = space.settings.model_copy(update={"profile": profile})
    workspace = Workspace(space.root, settings)
    values = defaults(workspace, "finetune") | loop.method_values(workspace, method)
    found = finetune.Parameters.model_validate(values)
    usual = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}
    assert found.method == method
    assert found.learning_rate == (1e-3 if profile == "starter" else usual[method])


def test_synthesis_needs_a_baseline_that_succeeded(space: Workspace):
    asked = loop.Parameters(loop="synthesis")
    assert [one.code for one in loop.preflight(space, asked)] == ["no_baseline"]
    failed = add_run(
        space, "20261124-110000-loop-1111", State.FAILED, parameters={"loop": "baseline"}
    )
    assert [one.code for one in loop.preflight(space, asked)] == ["no_baseline"]
    chosen = loop.Parameters(loop="synthesis", baseline_loop=failed.id)
    assert [one.code for one in loop.preflight(space, chosen)] == ["no_baseline"]
