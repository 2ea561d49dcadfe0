"""Fine-tuning goes on from a checkpoint: an adapter, ours or the kit's, or a full one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.bases import located
from backend.errors import InputError
from backend.mgm import checkpoints
from backend.runs import Run
from backend.stages import finetune
from backend.training.model import build
from backend.workspace import Workspace
from tests.mgm import tiny
from tests.training.small import EXACT, losses, make_workspace, new_run, train, trained, weights

KITS_RUN = tiny.TINY / "lora_run"
KITS = {"method": "lora", "lora_rank": 4, "lora_alpha": 8.0}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("continue"))


@pytest.fixture(scope="module")
def first(space: Workspace) -> dict[str, Run]:
    ways = {"lora": KITS, "full": {"method": "full"}}
    return {name: trained(space, "finetune", epochs=2, **values) for name, values in ways.items()}


def asked(space: Workspace, **values: Any) -> finetune.Parameters:
    data = str(space.asset("finetune_pairs"))
    return finetune.Parameters.model_validate({**EXACT, "data": data, **values})


def started(space: Workspace, **values: Any) -> dict[str, torch.Tensor]:
    """The weights that a training of these parameters starts from."""
    parameters = asked(space, **values)
    job = finetune.job(space, parameters)
    return build(space, parameters, CPU, lora=job.lora, start=job.start).model.state_dict()


def saved(folder: Path) -> dict[str, torch.Tensor]:
    """An adapter's tensors by the names that they have in the model."""
    return {
        name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
        if "lora_" in name
        else name.removeprefix("base_model.model."): value
        for name, value in weights(folder).items()
    }


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("whose", ["ours", "the kit's"])
def test_an_adapter_is_continued_from_exactly_its_weights(
    space: Workspace, first: dict[str, Run], method: str, whose: str
) -> None:
    run = first["lora"]
    folder = run.artifacts if whose == "ours" else KITS_RUN
    reference = run.id if whose == "ours" else str(KITS_RUN)
    found = started(space, **KITS | {"method": method, "continue_from": reference})
    wanted = saved(folder)
    assert sum("lora_" in name for name in wanted) == 2 * 3 * 7
    assert sum("projector" in name for name in wanted) == 16
    assert all(torch.equal(found[name], value.float()) for name, value in wanted.items())


def test_what_was_learned_is_there_at_the_start_and_goes_into_the_result(
    space: Workspace, first: dict[str, Run]
) -> None:
    run = trained(space, "finetune", **KITS, continue_from=first["lora"].id)
    assert losses(run)[0] < losses(first["lora"])[0] - 0.1
    codes = [event["code"] for event in run.events()]
    assert "training_continues" in codes
    assert "base_stands_in" not in codes
    again = checkpoints.load(run.artifacts).model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in saved(run.artifacts).items())


def test_a_full_checkpoint_is_continued_in_full_or_by_an_adapter_that_stands_on_it(
    space: Workspace, first: dict[str, Run], tmp_path: Path
) -> None:
    base = weights(first["full"].artifacts)
    found = started(space, method="full", continue_from=first["full"].id)
    assert all(torch.equal(found[name], value) for name, value in base.items())
    run = trained(space, "finetune", **KITS, continue_from=first["full"].id, max_steps=1)
    assert losses(run)[0] < losses(first["lora"])[0] - 0.1
    model = checkpoints.load(run.artifacts).model
    name = "model.layers.0.mlp.up_proj.{}weight"
    held = model.get_parameter(name.format("base_layer."))
    assert torch.equal(held, base[name.format("")])

    # Gemma itself has the right sizes, and would answer nonsense in its place.
    moved = shutil.copytree(run.artifacts, tmp_path / "adapter")
    file = moved / "adapter_config.json"
    values = {**json.loads(file.read_text()), "base_model_name_or_path": "/gone/artifacts"}
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="full checkpoint that this adapter stands on"):
        located(space, str(moved))


def test_a_continued_run_that_was_stopped_resumes_to_the_bit(
    space: Workspace, first: dict[str, Run]
) -> None:
    values = {**KITS, "continue_from": first["lora"].id, "lora_dropout": 0.3}
    whole, run = trained(space, "finetune", **values), new_run(space, "finetune", **values)
    assert not train(space, run, stop_at=3)
    assert train(space, run, attempt=2)
    assert losses(run) == losses(whole)
    one, two = weights(run.artifacts), weights(whole.artifacts)
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize(
    ("values", "code", "place"),
    [
        ({"method": "full"}, "continue_method", "method"),
        ({"lora_rank": 8}, "continue_mismatch", "lora_rank"),
        ({"lora_alpha": 16.0}, "continue_mismatch", "lora_alpha"),
        ({"lora_targets": ["q_proj"]}, "continue_mismatch", "lora_targets"),
        ({"projector": "x/mm_projector.bin"}, "continue_projector", "projector"),
        ({"continue_from": "nowhere"}, "checkpoint_missing", "nowhere"),
    ],
)
def test_a_contradiction_names_the_field_before_the_start(
    space: Workspace, values: dict[str, Any], code: str, place: str
) -> None:
    parameters = asked(space, **{**KITS, "continue_from": str(KITS_RUN), **values})
    found = [one for one in finetune.preflight(space, parameters) if one.code == code]
    assert [(one.level, one.place) for one in found] == [("error", place)]
    if code == "continue_mismatch":
        assert found[0].values["field"] == place
        # What it names as the remedy is right.
        right = {**KITS, "lora_targets": sorted(finetune.TARGETS)}[place]
        assert json.loads(found[0].values["wanted"]) == right


def test_what_agrees_has_no_problem(space: Workspace, first: dict[str, Run]) -> None:
    for reference in (str(KITS_RUN), first["lora"].id):
        problems = finetune.preflight(space, asked(space, **KITS, continue_from=reference))
        assert [one.code for one in problems if one.level == "error"] == []
