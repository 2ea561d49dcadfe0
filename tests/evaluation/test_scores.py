"""What scores.json says, in words."""

from __future__ import annotations

import pytest

from backend.evaluation.scores import category_name, contract_text, metric_entry
from backend.messages import message

CONTRACT = {
    "file": "dev.tsv", "sha256": "a" * 64, "prompt": "kit", "ocr_tokens": True, "scorer": "s",
    "limit": None, "dtype": "float32", "max_new_tokens": 128,
}  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_a_contract_does_not_tell_is_unknown_and_not_a_no(language):
    yes, no = message("document.yes", language), message("document.no", language)
    told = [contract_text(CONTRACT | {"ocr_tokens": value}, language) for value in (True, False)]
    assert told[0].replace(yes, no) == told[1]
    unknown = contract_text(CONTRACT | {"ocr_tokens": None}, language)
    assert unknown == told[1].replace(no, "–")
    assert contract_text({}, language).count("–") >= 8


def test_both_scorers_of_mmbench_are_entries_of_their_own():
    scores = {"mmbench": {"score": 40.0, "vlmeval_score": 35.0, "contract": {"scorer": "kit"}}}
    kit, vlmeval = (metric_entry(scores, name) for name in ("mmbench", "mmbench_vlmeval"))
    assert kit and vlmeval
    assert (kit["score"], vlmeval["score"]) == (40.0, 35.0)
    assert vlmeval["contract"]["scorer"] == "mmbench-vlmeval-circular"
    assert metric_entry({"mmbench": {"score": None}}, "mmbench") is None


def test_categories_have_names_and_an_unheard_of_one_keeps_its_own():
    assert category_name("image_scene") == "Image scene"
    assert category_name("image_scene", "zh") == "图像场景"
    assert category_name("new_one") == "new_one"
