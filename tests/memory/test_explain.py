"""Deaths explained from logs that somebody else wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.memory.cards import usable
from backend.memory.explain import explain_log, explanation_text
from backend.memory.parts import GIB
from backend.memory.settings import MemorySettings
from backend.messages import LANGUAGES

LOGS = Path(__file__).parents[1] / "data" / "logs"
FULL = MemorySettings(positions=1024, precision="bf16_stochastic", optimizer="adamw_8bit")


def explained(name: str, settings: MemorySettings | None = FULL):
    found = explain_log(LOGS / f"{name}.log", settings=settings)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "moment", "part", "again", "shortage", "tensor"),
    [
        ("kit_logits", "loss", "logits", False, "need", "logits"),
        ("logits_fp32", "loss", "logits", False, "need", "logits"),
        ("limited", "loss", "logits", False, "need", "logits"),
        ("backward_recomputed", "backward", "mlp", True, "need", "mlp"),
        ("optimizer_states", "optimizer", "states", False, "need", "bundle"),
        ("loading", "loading", None, False, "others", "embedding"),
        ("fragmented", "forward", "attention", False, "fragmentation", None),
    ],
)
def test_where_it_failed_and_why_there_was_no_room(
    name: str, moment: str, part: str | None, again: bool, shortage: str, tensor: str | None
):
    wide = replace(FULL, micro_batch_size=8) if name == "backward_recomputed" else FULL
    found = explained(name, wide)
    assert found.code == "device_memory"
    assert (found.place.moment, found.place.part, found.place.again) == (moment, part, again)
    assert found.allocation.shortage == shortage
    assert (found.tensor.code if found.tensor else None) == tensor


def test_the_famous_500_mib_are_the_logits_and_their_cure_comes_first():
    found = explained("kit_logits", None)
    assert found.tensor.values == {"positions": 1024, "vocabulary": 256_000, "bits": 16}
    assert found.prediction.largest == "logits"
    assert found.settings.offload == "optimizer"
    assert found.held["logits"] == max(found.held.values())
    assert "loss_chunk" in found.ways[0].levers
    assert found.parameters(found.ways[0])["loss_chunk"]
    assert "logits of 1,024 positions" in explanation_text(found)


def test_logits_tell_how_many_positions_there_were_when_it_failed():
    found = explained("kit_logits", None)
    assert found.held["logits"] > 15 * GIB
    # They were the first: not one copy of them was there.
    assert found.until_then["logits"] == 0
    assert found.until_then["activations"] < found.held["activations"]
    assert 0 < explained("logits_fp32").until_then["logits"] < 2 * GIB
    assert sum(found.until_then.values()) <= found.allocation.allocated
    assert found.to_dict()["held"] == found.until_then


@pytest.mark.parametrize("name", [path.stem for path in sorted(LOGS.glob("*.log"))])
def test_ways_out_fit_where_it_died(name: str):
    found = explained(name, None if name.startswith("kit") else FULL)
    assert len(found.ways) <= 3
    if found.allocation is None or not found.allocation.total:
        return
    room = usable(found.allocation.total - found.allocation.by_others)
    assert all(way.prediction.peak_reserved <= room for way in found.ways)


def test_a_kill_of_the_kits_offload_points_at_main_memory():
    found = explained("kit_killed", None)
    assert found.code == "killed"
    assert found.prediction.host > 30 * GIB
    assert found.ways
    assert all(way.prediction.host < found.prediction.host for way in found.ways)


def test_the_first_failure_counts_not_what_it_did_to_others():
    found = explained("backward_recomputed")
    assert found.line.startswith("[rank0]: torch.OutOfMemoryError")


def test_a_log_without_settings_predicts_nothing():
    found = explained("fragmented", None)
    assert (found.prediction, found.held, found.ways) == (None, None, ())
    assert found.sentences()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", [path.stem for path in sorted(LOGS.glob("*.log"))])
def test_every_explanation_can_be_said(name: str, language: str):
    assert explanation_text(explained(name), language)


def test_a_log_that_ends_well_is_no_death(tmp_path: Path):
    path = tmp_path / "train.log"
    path.write_text("{'loss': 2.1, 'learning_rate': 1e-3, 'epoch': 0.5}\n100%|##| 93/93\n")
    assert explain_log(path) is None
    with pytest.raises(InputError, match="does not exist"):
        explain_log(tmp_path / "none.log")


def test_another_error_is_shown_as_it_is(tmp_path: Path):
    path = tmp_path / "train.log"
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\nValueError: odd\n'
    path.write_text(f"fine\n{trace}")
    found = explain_log(path)
    assert (found.code, found.line) == ("unknown", "ValueError: odd")
    assert found.evidence[-1] == "ValueError: odd"
