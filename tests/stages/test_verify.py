"""`verify`: a good version passes, and each check fails for its own fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from backend.files import read_json
from backend.messages import message
from backend.stages import verify
from backend.synthesis.datasets import read, samples_schema, write_dataset
from backend.synthesis.importing import import_seed
from backend.workspace import Workspace
from tests.seeds import make_workspace, stage_context
from tests.starter.small import TOWER, small_starter, truth

COUNT = 8


def verified(workspace: Workspace, reference: str = "seed/v1", **parameters: Any) -> dict[str, Any]:
    """The checks by name."""
    values = {"dataset": reference, **parameters}
    context = stage_context(workspace, "verify", **values)
    verify.main(context, verify.Parameters(**values))
    found = read_json(context.artifacts / "verification.json")
    failed = sum(check["state"] == "failed" for check in found)
    event = context.run.events()[-1]
    assert event["code"] == ("verification_failed" if failed else "verified")
    assert event["values"]["checks"] == (failed or len(found))
    return {check["name"]: check for check in found}


def changed(workspace: Workspace, *rows: dict[str, Any], parent: str | None = "seed/v1") -> str:
    """A version made of the seed with some columns of its first rows changed."""
    import_seed(workspace)
    seed = read(workspace, "seed/v1").to_pylist()
    for row, changes in zip(seed, rows, strict=False):
        row.update(changes)
    table = pa.Table.from_pylist(seed, schema=samples_schema())
    return write_dataset(
        workspace, "changed", [table], image_root=workspace.asset("seed_images"),
        source="seed/v1", source_hash="", parent=parent,
    )  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path, COUNT)


def test_a_sound_seed_passes_everything(workspace):
    found = verified(workspace)
    assert {check["state"] for check in found.values()} == {"passed"}
    assert set(found) == {
        "data_one_image", "data_images", "data_form", "data_cap", "data_repeated",
        "data_ids", "data_questions",
    }  # fmt: skip


def test_every_check_can_be_explained(workspace):
    for name in [*verified(workspace), "data_synthesized", "data_agreement"]:
        for part in ("title", "why", "remedy"):
            key = f"check.{name}.{part}"
            assert message(key) != key


@pytest.mark.parametrize(
    ("check", "state", "change", "detail"),
    [
        ("data_ids", "failed", {"source_id": "invented"}, "invented"),
        ("data_questions", "failed", {"question": "<image>\nWhat else?"}, "What else?"),
        ("data_one_image", "failed", {"question": "What is in the photo?"}, "1 : 0"),
        ("data_one_image", "failed", {"images": ["images/000000000.png", "b.png"]}, "2 : 1"),
        ("data_images", "failed", {"images": ["images/gone.png"]}, "images/gone.png"),
        ("data_form", "failed", {"text": ""}, ""),
        ("data_form", "failed", {"text": "a <__dj__image> b"}, "inside the caption"),
        ("data_repeated", "warning", {"images": ["images/000000001.png"], "image_sha256": None,
                                      "text": "a green circle number 1"}, "number 1"),
    ],
)  # fmt: skip
def test_a_fault_is_counted_and_named(workspace, check, state, change, detail):
    if check == "data_repeated":
        rows = [change, {"image_sha256": None}]
        named = "000000001"
    else:
        rows, named = [change], "000000000"
    found = verified(workspace, changed(workspace, *rows))[check]
    assert (found["state"], found["count"], found["total"]) == (state, 1, COUNT)
    assert found["examples"][0]["sample_id"] == named
    assert detail in found["examples"][0]["detail"]


def test_more_than_the_cap_is_a_warning(workspace):
    found = verified(workspace, sample_cap=5)["data_cap"]
    assert (found["state"], found["count"], found["values"]) == ("warning", 3, {"cap": 5})


def test_a_version_without_synthesis_is_warned_about(workspace):
    found = verified(workspace, changed(workspace))
    assert found["data_synthesized"]["state"] == "warning"
    rewritten = changed(workspace, {"origin": "synthesized", "text": "a dog"})
    assert verified(workspace, rewritten)["data_synthesized"]["state"] == "passed"
    assert found["data_agreement"]["state"] == "unknown"


def test_agreement_is_held_against_the_parent(tmp_path):
    workspace = small_starter(tmp_path / "small", 40)
    import_seed(workspace)
    faults = {key: record["fault"] for key, record in truth(workspace).items()}
    for name, keep in (("better", ("none",)), ("worse", ("swapped", "vague"))):
        rows = read(workspace, "seed/v1").to_pylist()
        for row in rows:
            row["kept"] = faults[row["sample_id"]] in keep
        table = pa.Table.from_pylist(rows, schema=samples_schema())
        write_dataset(
            workspace, name, [table], image_root=workspace.asset("seed_images"),
            source="seed/v1", source_hash="", parent="seed/v1",
        )  # fmt: skip
    assert workspace.asset("vision_tower") == TOWER
    better = verified(workspace, "better/v1")["data_agreement"]
    worse = verified(workspace, "worse/v1")["data_agreement"]
    assert (better["state"], worse["state"]) == ("passed", "warning")
    assert better["values"]["median"] > better["values"]["parent_median"]
    assert worse["values"]["median"] < worse["values"]["parent_median"]


def test_without_originals_ids_are_not_judged(workspace):
    import_seed(workspace)
    workspace.asset("seed_originals").unlink()
    assert not {"data_ids", "data_questions"} & set(verified(workspace))


def test_a_version_whose_pictures_were_moved_is_told(workspace):
    import_seed(workspace)
    images = workspace.asset("seed_images") / "images"
    shutil.move(images, images.with_name("elsewhere"))
    found = verified(workspace)["data_images"]
    assert (found["state"], found["count"]) == ("failed", COUNT)
    assert len(found["examples"]) == COUNT
    assert json.dumps(found)


def test_preflight_knows_the_version(workspace):
    (problem,) = verify.preflight(workspace, verify.Parameters(dataset="none/v1"))
    assert problem.code == "dataset_missing"
