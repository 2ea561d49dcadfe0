"""A killed or stopped run goes on to the very curve and weights of an undisturbed one."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import InputError
from backend.files import read_lines, write_json
from backend.memory.symptoms import Finding
from backend.runs import Reason, Run, RunFailed, State
from backend.stages import pretrain
from backend.stages.base import StageContext, run_to_end
from backend.training import resume, trainer
from backend.training.engine import STATE_FILE
from backend.workspace import Workspace
from tests.training.small import losses, new_run, seen, train, trained, weights

NOISY = {"save_steps": 2, "epochs": 2, "drop_path": True}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain": ("pretrain", NOISY),
    "full": ("finetune", NOISY | {"method": "full"}),
    "lora": ("finetune", NOISY | {"method": "lora", "lora_rank": 4, "lora_dropout": 0.3}),
    "qlora": ("finetune", NOISY | {"method": "qlora", "lora_rank": 4, "lora_dropout": 0.3}),
    "8-bit": ("finetune", NOISY | {"precision": "fp32_master", "optimizer": "adamw_8bit"}),
    "stochastic": (
        "finetune",
        NOISY | {"precision": "bf16_stochastic", "optimizer": "paged_adamw_8bit"},
    ),
}
STEPS = 12


def _die_at(root: Path, path: Path, step: int, moment: str, threads: int) -> None:
    """Train in this process until it kills itself; sums depend on the number of threads."""
    from backend.stages.base import StageContext

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(threads)
    metric = StageContext.metric
    if moment == "saving":
        resume.finish_writing = die
    else:

        def fatal(self: StageContext, at: int, **values: Any) -> None:
            if moment == "before its record" and at == step:
                die()
            metric(self, at, **values)
            if at == step:
                die()

        StageContext.metric = fatal  # type: ignore[method-assign]
    train(Workspace.open(root), Run(path))


@pytest.fixture(scope="module")
def kill(space: Workspace) -> Any:
    """Train a run in a process of its own that is killed at a step."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.small", "backend.training.trainer"])

    def killed(run: Run, step: int, moment: str) -> None:
        asked = (space.root, run.path, step, moment, torch.get_num_threads())
        child = context.Process(target=_die_at, args=asked)
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL

    return killed


@pytest.fixture(scope="module")
def undisturbed(space: Workspace) -> dict[str, Run]:
    return {kind: trained(space, stage, **values) for kind, (stage, values) in KINDS.items()}


def same(run: Run, base: Run) -> None:
    """The curve, the weights, and what each step saw, to the bit."""
    assert len(losses(run)) == STEPS
    assert losses(run) == losses(base)
    rows = {(step, sample): loss for step, sample, loss in seen(run)}
    assert rows == {(step, sample): loss for step, sample, loss in seen(base)}
    one, two = weights(run.artifacts), weights(base.artifacts)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize(
    ("step", "moment"),
    [
        (1, "before its record"),
        (4, "after its record"),
        (7, "before its record"),
        (12, "after its record"),
    ],
)
@pytest.mark.parametrize("kind", ["pretrain", "full", "lora"])
def test_a_run_killed_at_any_step_goes_on_to_the_bit(
    space: Workspace, undisturbed: dict[str, Run], kill: Any, kind: str, step: int, moment: str
) -> None:
    stage, values = KINDS[kind]
    run = new_run(space, stage, **values)
    kill(run, step, moment)
    assert train(space, run, attempt=2)
    same(run, undisturbed[kind])


def test_a_run_killed_while_it_saved_starts_from_the_checkpoint_before(
    space: Workspace, undisturbed: dict[str, Run], kill: Any
) -> None:
    stage, values = KINDS["full"]
    run = new_run(space, stage, **values)
    assert not train(space, run, stop_at=3)
    before = resume.checkpoints(run.artifacts)
    kill(run, 0, "saving")
    assert resume.checkpoints(run.artifacts) == before
    assert train(space, run, attempt=3)
    same(run, undisturbed["full"])


def test_what_a_killed_save_left_goes_with_the_older_checkpoints(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        folder = resume.scratch_folder(tmp_path, step)
        resume.start_writing(folder)
        resume.finish_writing(folder, {"step": step})
    resume.start_writing(resume.scratch_folder(tmp_path, 25))
    resume.drop_older(tmp_path, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-20", "checkpoint-30"}


@pytest.mark.parametrize("stop_at", [1, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_to_the_bit(
    space: Workspace, undisturbed: dict[str, Run], kind: str, stop_at: int
) -> None:
    stage, values = KINDS[kind]
    run = new_run(space, stage, **values | {"save_steps": 0})
    assert not train(space, run, stop_at=stop_at)
    assert [step for step, _ in resume.checkpoints(run.artifacts)] == [stop_at]
    assert train(space, run, attempt=2)
    same(run, undisturbed[kind])


def test_only_the_attempt_that_trained_a_step_last_counts(space: Workspace, kill: Any) -> None:
    stage, values = KINDS["pretrain"]
    run = new_run(space, stage, **values)
    kill(run, 3, "after its record")
    assert train(space, run, attempt=2)
    rows = [(row["step"], row["attempt"]) for row in read_lines(run.metrics_path)]
    assert rows == [(1, 1), (2, 1), (3, 1)] + [(step, 2) for step in range(3, STEPS + 1)]


def test_a_save_that_fails_leaves_the_checkpoint_before_and_no_rest(
    space: Workspace, undisturbed: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, values = KINDS["full"]
    run = new_run(space, stage, **values, save_total_limit=1)
    save = resume.save_random

    def full_disk(folder: Path, rank: int) -> None:
        if folder.name == ".checkpoint-6":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder, rank)

    monkeypatch.setattr(resume, "save_random", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(space, run)
    assert [path.name for path in run.artifacts.glob("*checkpoint-*")] == ["checkpoint-4"]
    monkeypatch.undo()
    assert train(space, run, attempt=2)
    same(run, undisturbed["full"])


def test_a_sick_run_keeps_the_checkpoint_from_before(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sick(rows: Any) -> list[Finding]:
        return [Finding("not_finite", "error", {})] if len(list(rows)) >= 5 else []

    def conclude(run: Run, stopped_at: int) -> None:
        raise RunFailed(Reason(code="stopped_sick", values={"step": stopped_at}))

    monkeypatch.setattr(trainer, "judge", sick)
    monkeypatch.setattr(trainer, "conclude", conclude)
    monkeypatch.setattr(trainer, "SICK_EVERY", 5)
    run = new_run(space, "pretrain", **NOISY, save_total_limit=1)
    with pytest.raises(RunFailed, match="stopped_sick") as failure:
        train(space, run)
    assert failure.value.reason.values == {"step": 5}
    assert [step for step, _ in resume.checkpoints(run.artifacts)] == [4]


def test_a_run_that_is_stopped_while_it_loads_ends_at_once(space: Workspace) -> None:
    run = new_run(space, "pretrain", **NOISY)
    context = StageContext(space, run)
    context.stop_requested = True
    outcome = run_to_end(context, lambda: pretrain.main(context, _parameters(run)))
    assert outcome.state is State.STOPPED
    assert not run.metrics_path.exists()
    assert not list(run.artifacts.glob("*checkpoint-*"))


def test_a_run_that_is_stopped_in_its_last_step_has_succeeded(
    space: Workspace, undisturbed: dict[str, Run]
) -> None:
    run = new_run(space, "pretrain", **NOISY)

    class Context(StageContext):
        def metric(self, step: int, **values: Any) -> None:
            super().metric(step, **values)
            self.stop_requested = step == STEPS

    context = Context(space, run)
    outcome = run_to_end(context, lambda: pretrain.main(context, _parameters(run)))
    assert outcome.state is State.SUCCEEDED
    same(run, undisturbed["pretrain"])


def _parameters(run: Run) -> pretrain.Parameters:
    return pretrain.Parameters.model_validate(run.spec.parameters)


def test_a_checkpoint_of_samples_that_have_changed_is_refused(
    space: Workspace, tmp_path: Path
) -> None:
    records = json.loads(space.asset("finetune_pairs").read_text())
    data = tmp_path / "train.json"
    data.write_text(json.dumps(records))
    given = {"data": str(data), "image_root": str(space.asset("finetune_images"))}
    run = new_run(space, "pretrain", **NOISY, **given)
    assert not train(space, run, stop_at=3)
    records[3]["conversations"][1]["value"] += " and more"
    data.write_text(json.dumps(records))
    with pytest.raises(InputError, match="data: no longer what"):
        train(space, run, attempt=2)


def test_a_checkpoint_of_other_data_is_refused(space: Workspace) -> None:
    run = new_run(space, "pretrain", **NOISY)
    assert not train(space, run, stop_at=3)
    ((_, folder),) = resume.checkpoints(run.artifacts)[-1:]
    position = resume.read_position(folder)
    write_json(folder / resume.POSITION_FILE, position | {"samples": 25})
    with pytest.raises(InputError, match="samples: no longer what"):
        train(space, run, attempt=2)


@pytest.mark.parametrize(
    ("name", "value"), [("optimizer", "adamw_8bit"), ("seed", 7), ("lora_rank", 8)]
)
def test_a_checkpoint_of_other_parameters_is_refused_by_name(
    space: Workspace, name: str, value: Any
) -> None:
    stage, values = KINDS["lora"]
    run = new_run(space, stage, **values)
    assert not train(space, run, stop_at=2)
    spec = run.spec
    asked = spec.model_copy(update={"parameters": spec.parameters | {name: value}})
    write_json(run.path / "run.json", asked.model_dump(mode="json"))
    with pytest.raises(InputError, match=f"^[^,]*: {name}: no longer what"):
        train(space, run, attempt=2)


@pytest.mark.parametrize("file", [STATE_FILE, "random-0.pt"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "gone"])
def test_a_broken_checkpoint_is_named_and_the_one_before_goes_on(
    space: Workspace, undisturbed: dict[str, Run], file: str, damage: str
) -> None:
    stage, values = KINDS["pretrain"]
    run = new_run(space, stage, **values)
    assert not train(space, run, stop_at=5)
    newest = run.artifacts / "checkpoint-5"
    broken = newest / file
    if damage == "cut":
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    elif damage == "garbage":
        broken.write_bytes(b"no checkpoint")
    else:
        broken.unlink()
    with pytest.raises(InputError, match="cannot be read") as refused:
        train(space, run, attempt=2)
    assert refused.value.place == str(newest)
    shutil.rmtree(newest)
    assert train(space, run, attempt=3)
    same(run, undisturbed["pretrain"])
