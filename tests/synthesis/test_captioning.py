"""Captions by a checkpoint of the workspace: for whom, which stays, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from backend.errors import InputError
from backend.formats.data_juicer import caption_of
from backend.runs import Run
from backend.synthesis.agreement import AgreementModel
from backend.synthesis.captioner import Caption, Wish
from backend.synthesis.captions import vagueness
from backend.synthesis.guard import guard_environment
from backend.workspace import Workspace
from tests.juicer import Juicer
from tests.starter.small import TOWER, UNREADABLE, small_starter, untrained_checkpoint
from tests.synthesis.recipes import funnel, lineage, samples, synthesize

COUNT = 32
READABLE = COUNT - UNREADABLE
OPERATOR = "checkpoint_captioning_mapper"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("captioning")
    untrained_checkpoint(root / "mgm-2b-nano")
    return small_starter(root / "workspace", COUNT)


def caption(juicer: Juicer, space: Workspace, *arguments: str, before: str = "") -> Run:
    """A run of the operator with arguments beside the checkpoint's and the tower's."""
    lines = ["checkpoint: ${captioner}", "model: ${vision_tower}", "max_new_tokens: 20", *arguments]
    recipe = f"process:\n  - image_readable_filter:\n{before}  - {OPERATOR}:\n"
    recipe += "".join(f"      {line}\n" for line in lines)
    captioner = str(space.root.parent / "mgm-2b-nano")
    return synthesize(juicer, space, recipe, captioner=captioner)


def scores(space: Workspace, texts: dict[str, str]) -> dict[str, float]:
    images = [str(space.asset("seed_images") / f"images/{key[:3]}/{key}.jpg") for key in texts]
    found = AgreementModel(TOWER).scores(images, list(texts.values()))
    return dict(zip(texts, map(float, found), strict=True))


def decisions(space: Workspace, run: Run) -> dict[str, tuple[Any, ...]]:
    """The operator's word on each sample that it saw: action, before, after, reason."""
    events = {key: events[-1] for key, events in lineage(space, run).items()}
    return {key: event[1:] for key, event in events.items() if event[0] == OPERATOR}


def test_the_caption_that_agrees_better_stays_and_the_figures_are_told(juicer, space):
    run = caption(juicer, space)
    found, rows = decisions(space, run), samples(space, run)
    rewritten = {key: value for key, value in found.items() if value[0] == "rewritten"}
    assert 0 < len(rewritten) < len(found) == READABLE
    before = scores(space, {key: value[1] for key, value in rewritten.items()})
    after = scores(space, {key: value[2] for key, value in rewritten.items()})
    for key, (_, _, text, reason) in rewritten.items():
        assert after[key] > before[key]
        _, old, _, new = reason.split()
        assert (float(old), float(new)) == pytest.approx((before[key], after[key]), abs=1e-3)
        assert (rows[key]["text"], rows[key]["answer"]) == (text, text)
        assert (rows[key]["origin"], rows[key]["operator"]) == ("synthesized", OPERATOR)
        assert rows[key]["source_id"] == rows[key]["sample_id"] == key
    for key in found.keys() - rewritten.keys():
        assert found[key][0] == "kept"
        assert "image_text_agreement" in found[key][3]
        assert " stays, " in found[key][3]
        assert rows[key]["origin"] == "seed"


def test_only_samples_below_the_limit_are_asked(juicer, space):
    run = caption(juicer, space, "max_agreement: 0.3", "keep_better: false")
    old = scores(space, {key: row["text"] for key, row in _seed(space).items() if row["width"]})
    found = decisions(space, run)
    assert {key for key, value in found.items() if value[0] == "rewritten"} == {
        key for key, score in old.items() if score < 0.3
    }
    for key, (action, _, _, reason) in found.items():
        figure, _, limit = reason.removeprefix("image_text_agreement ").partition(" < ")
        assert float(figure) == pytest.approx(old[key], abs=1e-3)
        assert limit == ("0.3" if action == "rewritten" else "")


def _seed(space: Workspace) -> dict[str, dict[str, Any]]:
    from backend.synthesis.datasets import read

    return {row["sample_id"]: row for row in read(space, "seed/v1").to_pylist()}


def test_only_vague_samples_are_asked(juicer, space):
    run = caption(juicer, space, "min_vagueness: 0.99", "keep_better: false")
    vague = {key for key, row in _seed(space).items() if (vagueness(row["text"]) or 0) >= 0.99}
    found = decisions(space, run)
    assert {key for key, value in found.items() if value[0] == "rewritten"} == vague & found.keys()
    assert {found[key][3] for key in vague & found.keys()} == {"caption_vagueness 1 >= 0.99"}


def test_the_share_that_agrees_least_is_asked(juicer, space):
    score = "  - image_text_agreement_filter:\n      model: ${vision_tower}\n"
    run = caption(juicer, space, "lowest_share: 0.25", "keep_better: false", before=score)
    found, old = decisions(space, run), scores(
        space, {key: row["text"] for key, row in _seed(space).items() if row["width"]}
    )  # fmt: skip
    asked = {key for key, value in found.items() if value[0] == "rewritten"}
    assert asked == set(sorted(old, key=old.__getitem__)[: READABLE // 4])


def test_a_share_of_unmeasured_samples_is_refused(juicer, space):
    with pytest.raises(InputError, match="was not measured") as error:
        caption(juicer, space, "lowest_share: 0.25")
    assert error.value.place.endswith(f"test.yaml, line 3, {OPERATOR}")
    assert "image_text_agreement_filter" in error.value.remedy


def test_new_captions_can_stand_beside_the_old_ones(juicer, space):
    run = caption(juicer, space, "keep_original_sample: true", "keep_better: false")
    rows = samples(space, run)
    created = {key: row for key, row in rows.items() if "~" in key}
    assert len(created) == READABLE == funnel(run)[-1]["created"]
    for key, row in created.items():
        original = rows[row["source_id"]]
        assert key == f"{original['sample_id']}~2"
        assert (row["origin"], original["origin"]) == ("synthesized", "seed")
        assert (row["images"], row["question"]) == (original["images"], original["question"])
        assert decisions(space, run)[key][0] == "created"
        assert decisions(space, run)[original["sample_id"]][0] == "kept"


def test_a_picture_that_cannot_be_read_is_counted_and_its_sample_stays(juicer, space):
    recipe = f"process:\n  - {OPERATOR}: {{checkpoint: '${{captioner}}', keep_better: false}}\n"
    run = synthesize(juicer, space, recipe, captioner=str(space.root.parent / "mgm-2b-nano"))
    (bar,) = funnel(run)
    assert (bar["failures"], bar["after"]) == (UNREADABLE, COUNT)
    assert bar["rewritten"] == READABLE
    broken = f"{READABLE:06d}"
    assert bar["examples"][0].startswith(f"{broken}: the picture cannot be read")
    assert samples(space, run)[broken]["text"] == _seed(space)[broken]["text"]


def test_an_answer_that_is_no_caption_is_a_failure(juicer, space):
    assert juicer(_failures, str(space.asset("seed_images"))) == [
        ("the answer is no caption: ''", True),
        ("the answer is no caption: 'a <__dj__image> dog'", True),
        ("", False),
    ]


def _failures(images: str) -> list[tuple[str, bool]]:
    """What the operator notes of given answers (in the child)."""
    from backend.synthesis.guard import guarded_operators
    from backend.synthesis.operators import checkpoint_captioning_mapper as module

    kind = guarded_operators(Path(images))[OPERATOR]
    answers = [Caption(""), Caption("a <__dj__image> dog"), Caption("a cat")]

    class Mute:
        def captions(self, wishes: list[Wish], _max_new_tokens: int) -> list[Caption]:
            assert [wish.sent for wish in wishes] == ["What?"] * 3
            return answers

    module.captioner, kept = lambda *_: Mute(), module.captioner
    try:
        rows: dict[str, list[Any]] = {
            "id": ["a", "b", "c"],
            "text": ["<__dj__image>\nold <|__dj__eoc|>"] * 3,
            "images": [["none.jpg"]] * 3,
            "question": ["<image>\nWhat?"] * 3,
        }
        done = kind(checkpoint="here", keep_better=False).process_batched(rows)
    finally:
        module.captioner = kept
    assert [text == rows["text"][0] for text in done["text"]] == [True, True, False]
    notes = [meta["synthloop"] for meta in done["__dj__meta__"]]
    return [(note["reason"], note["failed"]) for note in notes]


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("lowest_share: 1.5", "lowest_share is more than 0"),
        ("model: ''", "model, which names no folder"),
        ("checkpoint: ''", "checkpoint names no folder"),
    ],
)
def test_impossible_arguments_are_named(juicer, space, argument, problem):
    recipe = f"process:\n  - {OPERATOR}:\n      {argument}\n"
    for name in {"checkpoint", "model"} - {argument.partition(":")[0]}:
        recipe += f"      {name}: /somewhere\n"
    with pytest.raises(InputError, match=problem) as error:
        synthesize(juicer, space, recipe)
    assert error.value.place.endswith(f"line 2, {OPERATOR}")


def test_data_juicer_by_itself_comes_to_the_same(juicer, space, tmp_path):
    score = "  - image_text_agreement_filter:\n      model: ${vision_tower}\n"
    lines = ["lowest_share: 0.5", "prompt: Tell what is seen.", "keep_better: false"]
    run = caption(juicer, space, *lines, before=score)
    argv = {
        "--config": str(run.artifacts / "data-juicer.yaml"),
        "--dataset_path": str(space.asset("seed_pairs")),
        "--export_path": str(tmp_path / "out.jsonl"),
        "--work_dir": str(tmp_path / "work"),
        "--np": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "data_juicer.tools.process_data", *chain(*argv.items())],
        env=os.environ | guard_environment(tmp_path / "cache") | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    kept = {key: row["text"] for key, row in samples(space, run).items() if row["kept"]}
    assert {row["id"]: caption_of(row["text"]) for row in rows} == kept
    assert any(row["origin"] == "synthesized" for row in samples(space, run).values())
