"""The probe runs the real training code on the longest samples, and says what it measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from backend.errors import SynthLoopError, UsageError
from backend.files import read_json, read_lines
from backend.memory import bindings
from backend.memory.expectation import Length, longest_micro_batch
from backend.memory.measuring import Meter, metered
from backend.memory.parts import MOMENTS
from backend.memory.predict import predict
from backend.memory.probes import correction, probes_path, ratio, record
from backend.memory.shapes import MGM_2B
from backend.runs import Run
from backend.stages import finetune, probe
from backend.supervisor import validated
from backend.training.presets import PRESETS
from backend.workspace import Workspace
from tests.training.small import make_workspace, new_run, seen, set_state, train, trained

DEVICE = "Test card"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def probed(space: Workspace) -> Run:
    return trained(space, "probe", method="lora", lora_rank=4, global_batch_size=16)


def test_three_steps_on_the_longest_samples(probed: Run) -> None:
    assert [row["step"] for row in read_lines(probed.metrics_path)] == [1, 2, 3]
    longest = {name for _, name, _ in seen(probed)}
    assert len(longest) == 2
    assert len(seen(probed)) == 3 * 2 * 2
    expected = read_json(probed.artifacts / "memory.json")
    # 'What color?', a picture of 4 x 4 patches, and an answer of three words, letter by letter.
    assert expected["positions"] > 16 + len("What color? yellow")
    assert 0 < expected["label_fraction"] < 0.5


def test_nothing_of_the_training_is_left(probed: Run) -> None:
    assert sorted(path.name for path in probed.artifacts.iterdir()) == ["memory.json", "probe.json"]


def test_without_a_gpu_main_memory_is_measured_and_nothing_is_corrected(
    space: Workspace, probed: Run
) -> None:
    found = read_json(probed.artifacts / "probe.json")
    assert (found["device"], found["ratio"]) == (None, None)
    measured = found["measured"]
    assert (measured["weights"], measured["peak_allocated"], measured["moments"]) == (
        None,
        None,
        {},
    )
    assert 0 < measured["host_before"] <= measured["host_peak"]
    assert found["predicted"]["peak_allocated"] > 0
    assert not probes_path(space).exists()
    assert [event["code"] for event in probed.events()][-1] == "probe_host_only"


def test_pretraining_can_be_probed(space: Workspace) -> None:
    run = trained(space, "probe", trains="pretrain", precision="bf16_stochastic")
    assert read_json(run.artifacts / "probe.json")["settings"]["method"] == "projector"


def test_what_a_gpu_measures_corrects_its_later_predictions(space: Workspace, probed: Run) -> None:
    found = read_json(probed.artifacts / "probe.json")
    settings = probe.Parameters.model_validate(probed.spec.parameters)
    prediction = predict(MGM_2B, settings_of(found))
    meter = Meter()
    moving = prediction.moments["backward"] - sum(
        prediction.held["backward"][name] for name in ("weights", "gradients", "optimizer")
    )
    meter.found.moments = {"backward": prediction.moments["backward"] + round(0.1 * moving)}
    context = _context(space, new_run(space, "probe"))
    probe.write_result(context, settings, settings_of(found), prediction, meter.found, DEVICE)
    corrected = correction(space, DEVICE)
    assert (corrected.count, corrected.device) == (1, DEVICE)
    assert corrected.factor == pytest.approx(1.1, abs=0.01)
    assert correction(space, "Another card").factor == 1.0
    assert read_json(context.artifacts / "probe.json")["ratio"] == pytest.approx(1.1, abs=0.01)


# Highest allocated bytes of each moment, by preset, on one H100 (three steps of micro-batch 4,
# 1,024 positions of which 200 are labeled).
ON_H100 = {
    "fit-8gb-qlora": (3693576192, 5408752640, 5532497408, 5679195136, 5667241472, 4783704064),
    "fit-12gb-lora": (6634566656, 8353581056, 8471644672, 8623454208, 8578863616, 7727467520),
    "fit-16gb-full": (
        6109277184, 12028270592, 12122257408, 12324374016, 12500774912, 11599719424
    ),
}  # fmt: skip


@pytest.mark.parametrize("preset", ON_H100)
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_real_probe_agrees_whatever_corrected_before_it(preset: str, factor: float) -> None:
    values = finetune.Parameters.model_validate(
        {"preset": preset, "micro_batch_size": 4, "global_batch_size": 8}
    )
    settings = replace(
        bindings.settings_of("finetune", values.model_dump()),
        positions=1024, label_fraction=200 / 1024, images_per_sample=1,
    )  # fmt: skip
    prediction = predict(MGM_2B, settings, factor=factor)
    measured = dict(zip(MOMENTS, ON_H100[preset], strict=True))
    assert ratio(prediction, measured) == pytest.approx(1.0, abs=0.1)


def test_a_probe_that_is_far_off_corrects_nothing(space: Workspace) -> None:
    record(space, "Odd card", {"ratio": -5.3})
    assert (correction(space, "Odd card").factor, correction(space, "Odd card").count) == (1.0, 0)
    record(space, "Odd card", {"ratio": 1.2})
    assert correction(space, "Odd card").factor == 1.2


def test_moments_are_told_apart_and_the_engine_is_left_as_it_was(space: Workspace) -> None:
    from backend.training.probing import ProbedTrainer

    run = new_run(space, "probe", method="lora", lora_rank=4)
    values = finetune.Parameters.model_validate(
        {**run.spec.parameters, "global_batch_size": 2, "micro_batch_size": 2}
    )
    trainer = ProbedTrainer(_context(space, run), values, finetune.job(space, values))
    entered: list[str] = []
    meter = Recorder(entered)
    before = trainer.engine.micro_batch
    with metered(trainer.engine, meter):
        trainer.probe_step()
    assert entered == ["vision", "forward", "loss", "backward", "vision", "optimizer"]
    assert trainer.engine.micro_batch == before


class Recorder(Meter):
    def __init__(self, entered: list[str]) -> None:
        super().__init__()
        self.entered = entered

    def enter(self, moment: str) -> None:
        self.entered.append(moment)
        super().enter(moment)


def test_several_processes_are_refused_with_a_reason(space: Workspace) -> None:
    values = probe.Parameters.model_validate(
        {"data": str(space.asset("finetune_pairs")), "zero_stage": 2}
    )
    codes = [problem.code for problem in probe.preflight(space, values)]
    assert codes == ["probe_alone"]


@pytest.mark.parametrize(
    "name",
    ["epochs", "max_steps", "save_steps", "save_total_limit", "stop_when_sick", "launcher",
     "image_workers", "group_by_modality_length"],
)  # fmt: skip
def test_what_no_step_depends_on_is_refused(space: Workspace, name: str) -> None:
    assert name in finetune.Parameters.model_fields
    usual = finetune.Parameters.model_fields[name].default
    with pytest.raises(UsageError, match="no such parameter") as refused:
        validated("probe", {"data": str(space.asset("finetune_pairs")), name: usual})
    assert refused.value.place == name


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_probe_measures_what_the_training_of_the_same_words_does(stage: Any, preset: str) -> None:
    asked = {"preset": preset, "mlp_chunk": 7}
    probed = validated("probe", asked | {"trains": stage}).model_dump()
    trained = validated(stage, asked).model_dump()
    own = {"learning_rate", "global_batch_size", "image_mode"} - PRESETS[preset].keys()
    for name in probed.keys() & trained.keys() - (own if stage == "pretrain" else set()):
        assert probed[name] == trained[name], name


@pytest.mark.parametrize(
    ("name", "value"), [("method", "lora"), ("lora_rank", 8), ("projector", "somewhere")]
)
def test_pretraining_is_probed_without_what_only_fine_tuning_has(
    space: Workspace, name: str, value: Any
) -> None:
    asked = {"trains": "pretrain", "data": str(space.asset("finetune_pairs")), name: value}
    problems = probe.preflight(space, probe.Parameters.model_validate(asked))
    assert [(one.code, one.place) for one in problems] == [("probe_pretrains", name)]


def test_a_missing_file_is_found_before_the_start(space: Workspace) -> None:
    values = probe.Parameters.model_validate({"data": "nowhere.json"})
    assert [p.level for p in probe.preflight(space, values)] == ["error"]
    run = new_run(space, "probe", data="nowhere.json")
    with pytest.raises(SynthLoopError, match="nowhere"):
        train(space, run)


def test_the_longest_are_found_by_tokens_not_by_words() -> None:
    class Sample:
        def __init__(self, length: int) -> None:
            self.length = length

    samples = [Sample(3), Sample(-700), Sample(5), Sample(4)]
    lengths = [Length(600, 4, 1), Length(120, 90, 0), Length(590, 6, 1), Length(610, 10, 1)]
    found = longest_micro_batch(samples, 2, 576, lambda index: lengths[index])
    assert found.indices == (3, 0)
    assert (found.positions, found.images_per_sample) == (610, 1)
    assert found.label_fraction == pytest.approx(14 / (2 * 610))
    assert len(longest_micro_batch(samples[:1], 4, 576, lambda i: lengths[i]).indices) == 4


def settings_of(found: dict) -> object:
    from backend.memory.settings import MemorySettings

    values = found["settings"]
    return MemorySettings(**{**values, "lora_targets": tuple(values["lora_targets"])})


def _context(space: Workspace, run: Run):
    from backend.runs import State
    from backend.stages.base import StageContext

    set_state(run, State.RUNNING)
    return StageContext(space, run)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_every_part_is_measured(space: Workspace) -> None:
    run = trained(space, "probe", method="full", precision="bf16_stochastic")
    measured = read_json(run.artifacts / "probe.json")["measured"]
    assert set(measured["moments"]) >= {"vision", "forward", "loss", "backward", "optimizer"}
    assert 0 < measured["weights"] <= measured["peak_allocated"] <= measured["peak_reserved"]
