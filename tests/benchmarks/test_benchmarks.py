"""The benchmarks measure what they say, and the committed tables hold what is claimed of them."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import measured, predictions
from tests.benchmarks.configurations import Job, all_jobs, memory_jobs
from tests.benchmarks.gate import Gate
from tests.benchmarks.gpu import run
from tests.benchmarks.measured import Row
from tests.benchmarks.processor import page_once
from tests.benchmarks.render import accuracy, brief, final_loss, render
from tests.benchmarks.texts import Length, tokenizer_of, write_samples
from tests.benchmarks.texts import measured as sizes
from tests.explored import explored

GIB = 2**30
README = Path(__file__).with_name("README.md")
ZOO = Path(__file__).parents[2] / "backend" / "starter" / "zoo" / "llm"
RECORDS = [
    {
        "image": f"{number}.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": f"a horse and {number} birds on the wall of a red house"},
        ],
    }
    for number in range(3)
]


@pytest.mark.parametrize(
    "length",
    [
        Length(120, 24),
        Length(1024, 200),
        Length(300, 60, shortest=200),
        Length(90, 30, None, False),
    ],
)
def test_samples_have_the_lengths_that_were_asked_for(tmp_path: Path, length: Length):
    tokenize = tokenizer_of(ZOO)
    write_samples(tmp_path / "x.json", RECORDS, length, tokenize, image_tokens=16, count=4)
    found = {
        sizes(sample, tokenize, 16) for sample in json.loads((tmp_path / "x.json").read_text())
    }
    wanted = {(length.positions, length.labels)}
    if length.shortest:
        wanted.add((length.shortest, length.labels // 2))
    assert found == wanted


def test_nobody_works_beside_one_who_is_alone(tmp_path: Path):
    told: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def alone():
        with Gate(tmp_path).alone():
            inside.set()
            leave.wait(5)
            told.append("alone")

    def beside():
        with Gate(tmp_path).shared("slot"):
            told.append("beside")

    threads = [threading.Thread(target=alone), threading.Thread(target=beside)]
    threads[0].start()
    assert inside.wait(5)
    threads[1].start()
    threads[1].join(0.2)
    assert told == []
    leave.set()
    for thread in threads:
        thread.join(5)
    assert told == ["alone", "beside"]


def test_jobs_survive_their_file_and_have_names_of_their_own():
    jobs = all_jobs(80)
    assert [Job.from_dict(json.loads(json.dumps(job.to_dict()))) for job in jobs] == jobs
    assert len({job.name for job in jobs}) == len(jobs)


def _row(job: Job, allocated: float | None, predicted: float) -> Row:
    state = "oom" if allocated is None else "done"
    peak = None if allocated is None else int(allocated * GIB)
    result = {"state": state, "peak": {"allocated": peak, "reserved": peak}}
    said = {str(size): "fits" if predicted <= size - 1 else "no" for size in (8, 12, 16, 24)}
    said |= dict.fromkeys(("32", "40", "48", "80"), "fits")
    foreseen = {"peak_allocated": int(predicted * GIB), "verdicts": said}
    return Row(job, result, foreseen)


def test_accuracy_counts_errors_and_what_was_said_to_fit_and_did_not():
    job = memory_jobs()[0]
    near = accuracy([_row(job, 10.0, 10.2), _row(job, 12.0, 11.4), _row(job, 5.0, 5.0)])
    assert (near.count, near.false_fits) == (3, ())
    assert near.median == pytest.approx(0.02)
    assert near.worst == pytest.approx(0.05)
    too_low = accuracy([_row(job, 11.5, 10.9)])
    assert too_low.false_fits == ((job.name, 12),)
    on_a_card = replace(job, group="border", card_gib=8, cap_gib=7.0)
    died = accuracy([_row(on_a_card, None, 6.5)])
    assert died.false_fits == ((job.name, 8),)
    assert died.count == 0


def test_every_memory_configuration_has_a_prediction_of_this_code():
    jobs = [job for job in all_jobs(80) if job.length.positions]
    for job in jobs:
        assert predictions.predict_job(job).peak_allocated > 0


class TestCommittedTable:
    """What README says of the measurements, recomputed from the data."""

    def test_predictions_were_made_before(self):
        for call in measured.calls():
            assert call["predicted"]["made_at"] < call["environment"]["time"]

    def test_as_many_were_measured_as_is_said(self):
        found = accuracy(measured.rows())
        assert (found.count, found.distinct) == (71, 61)

    @pytest.mark.parametrize("now", [False, True])
    def test_predictions_are_as_close_as_claimed(self, now: bool):
        found = accuracy(measured.rows(), now=now)
        assert found.median <= 0.005
        assert found.worst <= 0.065
        assert found.false_fits == ()

    @pytest.mark.parametrize("card", [8, 12, 16, 24])
    def test_of_each_card_what_was_said_to_fit_ran_and_what_was_said_not_to_died(self, card: int):
        rows = [row for row in measured.rows() if row.job.card_gib == card]
        said = {row.foreseen["verdicts"][str(card)]: row.result["state"] for row in rows}
        assert (said["fits"], said["no"]) == ("done", "oom")

    @pytest.mark.parametrize(
        ("name", "steps", "most"),
        [("fit-16gb-full", 20, 12.0), ("fit-12gb-lora", 4, 9.0), ("fit-8gb-qlora", 4, 6.5)],
    )
    def test_presets_stay_below_their_targets(self, name: str, steps: int, most: float):
        [row] = [row for row in measured.rows() if row.job.name == name]
        assert (row.steps, row.done) == (steps, True)
        assert row.allocated <= most * GIB
        assert row.result["host"]["rss"] + row.result["paged_bytes"] < 24 * GIB

    def test_fastest_is_as_fast_as_is_said(self):
        speeds = {row.job.name: row.result.get("speed") for row in measured.rows()}
        for method in ("full", "lora"):
            fast = speeds[f"fastest-{method}"]["samples_per_second"]
            assert fast >= 24
            assert fast > 1.25 * speeds[f"naive-{method}"]["samples_per_second"]

    def test_the_tables_tell_what_was_measured_again_and_what_was_not(self):
        text = render()
        assert "`full-zero3-offload-all` 10.32 foreseen, 6.21 measured (+66.2 %)" in text
        for name in ("full-zero1", "full-zero3", "two-zero2"):
            assert name in measured.never_measured() and f"`{name}`" in text

    def test_every_preset_learns_as_well_as_its_reference(self):
        finals = {row.job.name: final_loss(row) for row in measured.rows()}
        master, adapters = finals["learn-master"], finals["learn-lora-fp32"]
        for name in ("kit", "fastest", "stochastic-8bit", "stochastic-paged8"):
            assert finals[f"learn-{name}"] < 1.01 * master
        for name in ("lora", "qlora"):
            assert finals[f"learn-{name}"] < 1.01 * adapters

    def test_readme_shows_the_measured_peaks(self):
        assert brief(measured.rows()) in README.read_text()


def test_a_peak_counts_from_the_step_on_that_has_every_state():
    row = _row(memory_jobs()[0], 10.0, 10.0)
    cut = {**row.result, "state": "deadline"}
    begun, settled = (replace(row, result={**cut, "steps": steps}) for steps in (1, 2))
    assert (begun.allocated, settled.allocated) == (None, 10 * GIB)
    assert settled.ended == "cut off after 2 of 2 steps"


def test_the_pages_process_is_small_and_trains_nothing(tmp_path: Path):
    told = page_once(str(explored(tmp_path).root))
    assert told["heavy"] == []
    assert told["megabytes_of_all"] < 250


def test_a_dry_run_trains_keeps_and_shows_what_it_found(tmp_path: Path):
    out, file = tmp_path / "out", tmp_path / "measured.json"
    run(out, None, tmp_path / "work", seconds=150, tiny=True, only=("fit-12gb-lora",), at_once=1)
    measured.collect([out], file)
    [row] = measured.rows(file)
    assert (row.job.name, row.done, row.steps) == ("fit-12gb-lora", True, 4)
    assert row.foreseen is not None and row.allocated is None
    text = render(file)
    assert "No peak was measured" in text and "23.0 | 4 steps of 8 | – | – |" in text
    assert "### Learning" not in text
