"""Recipes run by the real Data-Juicer: what becomes of every sample, and why."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.files import read_json
from backend.runs import Run
from backend.stages.synthesize import Parameters, preflight
from backend.synthesis.datasets import describe, read
from backend.synthesis.importing import import_seed
from backend.workspace import Workspace
from tests.clip import write_clip
from tests.juicer import Juicer
from tests.seeds import caption, make_workspace, pair
from tests.synthesis.recipes import (
    funnel,
    lineage,
    made,
    samples,
    synthesize,
    write_recipe,
)

FILTERS = """\
process:
  - image_readable_filter:
  - words_num_filter:
      min_num: 4
  - whitespace_normalization_mapper:
  - image_perceptual_deduplicator:
  - document_deduplicator:
  - caption_vagueness_filter:
  - image_text_agreement_filter:
      model: ${vision_tower}
  - range_specified_field_selector:
      field_key: __dj__stats__.image_text_agreement
      lower_percentile: 0.5
      upper_percentile: 1.0
"""
BROKEN, TWIN, SHORT, SPACED, SAME, VAGUE, COUNT = 1, 2, 3, 4, 6, 7, 12


def name(number: int) -> str:
    return f"{number:09d}"


def faulty_workspace(root: Path) -> Workspace:
    """Twelve pairs, some with one fault each."""
    pairs = [pair(number) for number in range(COUNT)]
    pairs[SHORT] = pair(SHORT, "dog")
    pairs[SPACED] = pair(SPACED, "a blue\u3000square number 4")
    pairs[SAME] = pair(SAME, caption(0))
    pairs[VAGUE] = pair(VAGUE, "this is a photo of something")
    workspace = make_workspace(root, COUNT, pairs)
    images = workspace.asset("seed_images") / "images"
    (images / f"{name(BROKEN)}.png").write_bytes(b"\x89PNG and no more")
    shutil.copy(images / f"{name(0)}.png", images / f"{name(TWIN)}.png")
    write_clip(workspace.asset("vision_tower"))
    return workspace


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return faulty_workspace(tmp_path_factory.mktemp("fault*y[1]"))


@pytest.fixture(scope="module")
def run(juicer: Juicer, space: Workspace) -> Run:
    return synthesize(juicer, space, FILTERS, output="clean")


def test_each_sample_tells_who_dropped_it_and_by_which_statistic(space, run):
    found = {key: events[-1] for key, events in lineage(space, run).items()}
    dropped = {
        BROKEN: ("image_readable_filter", "image_readable 0"),
        SHORT: ("words_num_filter", "num_words 3 < 4"),
        TWIN: ("image_perceptual_deduplicator", f"= {name(0)}"),
        SAME: ("document_deduplicator", f"= {name(0)}"),
        VAGUE: ("caption_vagueness_filter", "caption_vagueness 1 > 0.99"),
    }
    rows = samples(space, run)
    for number, (operator, reason) in dropped.items():
        text = rows[name(number)]["text"]
        assert found[name(number)] == (operator, "dropped", text, None, reason)
        assert (rows[name(number)]["kept"], rows[name(number)]["dropped_by"]) == (False, operator)


def test_a_rewritten_sample_tells_what_it_was(space, run):
    events = {event[0]: event for event in lineage(space, run)[name(SPACED)]}
    before, after = "a blue\u3000square number 4", "a blue square number 4"
    assert events["whitespace_normalization_mapper"][1:4] == ("rewritten", before, after)
    row = samples(space, run)[name(SPACED)]
    assert (row["text"], row["answer"], row["n_words"]) == (after, after, 5)
    assert row["origin"] == "seed"  # putting blanks in order is no synthesis


def test_the_selector_keeps_the_better_half_and_tells_the_value(space, run):
    rows = samples(space, run)
    living = [row for row in rows.values() if row["dropped_by"] in (None, SELECTOR)]
    scores = {row["sample_id"]: row["stat_image_text_agreement"] for row in living}
    assert len(living) == COUNT - 5
    kept = {row["sample_id"] for row in living if row["kept"]}
    worst_kept = min(scores[key] for key in kept)
    assert all(score < worst_kept for key, score in scores.items() if key not in kept)
    for key, score in scores.items():
        reason = lineage(space, run)[key][-1][-1]
        assert reason.startswith(f"image_text_agreement {score:.4g} (")
    assert 0 < len(kept) < len(living)


SELECTOR = "range_specified_field_selector"


def test_every_living_sample_has_one_line_an_operator(space, run):
    steps = len(funnel(run))
    for key, events in lineage(space, run).items():
        actions = [event[1] for event in events]
        assert "dropped" not in actions[:-1]
        assert len(actions) == steps or actions[-1] == "dropped", key


def test_the_version_says_what_made_it(space, run):
    info = describe(space, made(run))
    assert (info.reference, info.parent, info.run_id) == ("clean/v1", "seed/v1", run.id)
    assert info.recipe == FILTERS
    assert info.source_hash == describe(space, "seed/v1").content_hash
    assert info.image_root == str(space.asset("seed_images"))
    bars = [(bar["operator"], bar["before"], bar["after"]) for bar in funnel(run)]
    assert [(record.name, record.before, record.after) for record in info.operators] == bars
    assert [bar["dropped"] for bar in funnel(run)][:6] == [1, 1, 0, 1, 1, 1]
    assert info.counts.kept == funnel(run)[-1]["after"]
    assert info.counts.samples == COUNT


def test_the_same_recipe_gives_the_same_content_and_a_new_version(juicer, space, run):
    before = {path: path.read_bytes() for path in space.dataset(made(run)).rglob("*.*")}
    again = synthesize(juicer, space, FILTERS, output="clean")
    assert made(again) == "clean/v2"
    assert describe(space, "clean/v2").content_hash == describe(space, "clean/v1").content_hash
    assert {path: path.read_bytes() for path in before} == before
    other = synthesize(juicer, space, FILTERS.replace("0.5", "0.2"), output="clean")
    assert describe(space, made(other)).content_hash != describe(space, "clean/v1").content_hash


def test_the_recipe_as_data_juicer_reads_it_lies_beside_the_result(space, run):
    text = (run.artifacts / "data-juicer.yaml").read_text()
    assert "${" not in text
    assert str(space.asset("vision_tower")) in text
    assert "image_text_agreement_filter.py" in text
    assert (run.artifacts / "recipe" / "test.yaml").read_text() == FILTERS
    assert not (run.path / "work").exists()


def test_a_stopped_run_goes_on_at_the_operator(juicer, space, run):
    write_recipe(space, FILTERS)
    stopped = juicer.start(space, "synthesize", recipe="test", output="stopped")
    juicer.again(space, stopped, stop_in="document_deduplicator")
    states = [bar["state"] for bar in funnel(stopped)]
    assert states == ["finished"] * 4 + ["running"] + ["waiting"] * 3
    assert not (stopped.artifacts / "dataset.json").exists()
    seconds = [bar["seconds"] for bar in funnel(stopped)[:4]]
    # What was decided stays decided: the recipe of the run is the one it began with.
    write_recipe(space, FILTERS.replace("min_num: 4", "min_num: 30"))
    juicer.again(space, stopped)
    assert [bar["seconds"] for bar in funnel(stopped)[:4]] == seconds
    assert describe(space, made(stopped)).content_hash == describe(space, made(run)).content_hash
    assert lineage(space, stopped) == lineage(space, run)


def test_a_failing_operator_names_the_sample(juicer, space):
    with pytest.raises(InputError, match="UnidentifiedImageError") as error:
        synthesize(juicer, space, "process:\n  - words_num_filter: {min_num: 1}\n"
                   "  - image_shape_filter: {min_width: 2}\n")  # fmt: skip
    expected = f"test.yaml, line 3, image_shape_filter, sample {name(BROKEN)}"
    assert error.value.place.endswith(expected)
    assert "image_readable_filter" in error.value.remedy


def test_what_an_operator_swallows_is_counted_and_costs_one_sample(juicer, space):
    recipe = "process:\n  - image_shape_filter: {min_width: 2, skip_op_error: true}\n"
    run = synthesize(juicer, space, recipe)
    (bar,) = funnel(run)
    assert (bar["failures"], bar["dropped"]) == (1, 1)
    assert f"{name(BROKEN)}.png" in bar["examples"][0]
    assert lineage(space, run)[name(BROKEN)][0][1::3] == ("dropped", "not returned")
    warning = next(e for e in run.events() if e["code"] == "operator_failures")
    assert (warning["level"], warning["values"]["count"]) == ("warning", 1)


def test_a_service_that_is_down_is_counted_and_its_key_is_not_told(juicer, space, capfd):
    recipe = (
        "process:\n  - extract_keyword_mapper:\n      api_model: x\n      try_num: 1\n"
        "      model_params: {base_url: 'http://127.0.0.1:9', api_key: my-secret, max_retries: 0}\n"
    )
    run = synthesize(juicer, space, recipe)
    (bar,) = funnel(run)
    assert (bar["failures"], bar["after"]) == (COUNT, COUNT)
    assert bar["examples"][0] == "APIConnectionError: Connection error."
    assert "my-secret" not in json.dumps(run.events()) + capfd.readouterr().err


@pytest.mark.parametrize(
    ("step", "problem", "remedy"),
    [
        ("image_shape_filtr:", "Unknown operator 'image_shape_filtr'", "image_shape_filter"),
        ("words_num_filter: {min_nm: 3}", "Unknown parameter 'min_nm'", "min_num"),
        ("words_num_filter: {min_num: many}", "expects type 'int'", "documentation"),
        ("naive_grouper:", "joins samples", "Leave it out"),
        ("image_text_agreement_filter: {model: /none}", "no CLIP model", "Fetch"),
    ],
)  # fmt: skip
def test_a_wrong_operator_or_argument_is_named_with_its_line(juicer, space, step, problem, remedy):
    recipe = f"# A comment.\nprocess:\n  - image_readable_filter:\n  - {step}\n"
    with pytest.raises(InputError) as error:
        synthesize(juicer, space, recipe)
    assert problem in error.value.problem
    assert remedy in error.value.remedy
    place = "/none" if "/none" in step else f"{space.recipes / 'test.yaml'}, line 4, "
    assert error.value.place.startswith(place)


def test_a_mapper_that_cuts_the_tokens_makes_no_captions_of_the_pieces(juicer, space):
    chunks = "process:\n  - words_num_filter: {min_num: 3}\n  - text_chunk_mapper: {max_len: 10}\n"
    with pytest.raises(InputError, match="dropped every sample") as error:
        synthesize(juicer, space, chunks)
    assert error.value.place.endswith("text_chunk_mapper")


def test_new_images_come_into_the_version(juicer, space):
    recipe = "process:\n  - image_readable_filter:\n  - image_blur_mapper: {p: 1.0}\n"
    run = synthesize(juicer, space, recipe, output="blurred")
    folder = space.dataset(made(run))
    info = describe(space, made(run))
    assert info.image_root == str(folder / "images")
    for key, row in samples(space, run).items():
        if not row["kept"]:
            continue
        image = folder / "images" / row["images"][0]
        assert hashlib.sha256(image.read_bytes()).hexdigest() == row["image_sha256"]
        assert lineage(space, run)[key][-1][1::3] == ("rewritten", "new image")
    old = samples(space, run)[name(BROKEN)]["images"][0]
    assert (folder / "images" / old).exists()


def test_nothing_left_is_an_error_that_names_the_operator(juicer, space):
    with pytest.raises(InputError, match="dropped every sample") as error:
        synthesize(juicer, space, "process:\n  - words_num_filter: {min_num: 50}\n")
    assert error.value.place.endswith("test.yaml, words_num_filter")
    assert "12 of 12" in error.value.remedy


def test_a_preview_shows_some_samples_and_makes_no_version(juicer, space):
    known = space.dataset_references()
    run = synthesize(juicer, space, FILTERS, preview=8)
    assert space.dataset_references() == known
    entries = read_json(run.artifacts / "preview.json")["samples"]
    assert len(entries) == 8
    chosen = {entry["sample_id"] for entry in entries}
    again = read_json(synthesize(juicer, space, FILTERS, preview=8).artifacts / "preview.json")
    assert {entry["sample_id"] for entry in again["samples"]} == chosen
    for entry in entries:
        last = [event for event in entry["events"] if event["action"] != "kept"][-1:]
        state = last[0]["action"] if last else "kept"
        assert (entry["state"], entry["kept"]) == (state, state != "dropped")
        assert entry["reason"] == (last[0]["reason"] if last else "")


def test_work_is_spread_over_processes_with_the_same_result(juicer, tmp_path):
    few = make_workspace(tmp_path / "few", 8, [pair(n % 8, f"caption {n}") for n in range(1200)])
    recipe = (
        "np: {}\nprocess:\n  - words_num_filter: {{min_num: 2}}\n"
        "  - random_selector: {{select_num: 50}}\n"
    )
    alone = synthesize(juicer, few, recipe.format(1))
    spread = synthesize(juicer, few, recipe.format(os.cpu_count()))
    assert describe(few, made(alone)).content_hash == describe(few, made(spread)).content_hash
    assert describe(few, made(alone)).counts.kept == 50


def test_preflight_names_what_the_recipe_lacks(tmp_path):
    workspace = make_workspace(tmp_path, 2)
    import_seed(workspace)

    def codes(**parameters):
        return [(p.level, p.code) for p in preflight(workspace, Parameters(**parameters))]

    assert codes(recipe="none") == [("error", "recipe_invalid")]
    assert codes(recipe="clean") == [
        ("warning", "recipe_without_synthesis"), ("error", "asset_missing")
    ]  # fmt: skip
    found = preflight(workspace, Parameters(recipe="synthesis"))
    assert [p.code for p in found] == ["captioner_missing", "asset_missing"]
    assert codes(recipe="synthesis", captioner="nowhere") == [("error", "recipe_invalid")]
    assert codes(recipe="clean", output="a/b")[0] == ("error", "recipe_invalid")
    assert ("error", "dataset_missing") in codes(dataset="none/v1")


def test_dropped_samples_do_not_come_back_in_the_next_version(juicer, space, run):
    recipe = "process:\n  - words_num_filter: {min_num: 1}\n"
    second = synthesize(juicer, space, recipe, dataset=made(run), output="second")
    kept = read(space, made(run), ["sample_id"], kept_only=True)["sample_id"].to_pylist()
    assert list(samples(space, second)) == kept
    assert describe(space, made(second)).parent == made(run)
