from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import InputError, UsageError
from backend.evaluation.mmbench import extract, extract_option, extract_text, score_file
from backend.formats.mmbench import Row, write_rows
from tests.oracles import oracle

ORACLE = json.loads(oracle("mmbench.json").read_text(encoding="utf-8"))


def value(letter: str | None) -> str | bool:
    return letter or False


def test_mmbench_oracle_extraction_agrees_on_every_row():
    for case in ORACLE["can_infer"]:
        said, choices = case["prediction"], case["choices"]
        assert value(extract(said, choices)) == case["can_infer"], said
        assert value(extract_option(said, choices)) == case["option"], said
        assert value(extract_text(said, choices)) == case["text"], said


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The oracle's table as an answer file and a benchmark file."""
    rows = [
        Row(
            index=entry["index"],
            question=entry["question"],
            options={letter: entry[letter] for letter in "ABCD" if entry.get(letter)},
            answer=entry["answer"],
            image="aW1hZ2U=",
            category=entry["category"],
            l2_category=entry["l2-category"],
        )
        for entry in ORACLE["table"]
    ]
    write_rows(tmp_path / "questions.tsv", rows)
    lines = [{"question_id": e["index"], "text": e["prediction"]} for e in ORACLE["table"]]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return answers, tmp_path / "questions.tsv"


@pytest.mark.parametrize(
    ("contract", "groups"), [("kit", "kit_strict_circular"), ("vlmeval", "vlmeval_exact_circular")]
)
def test_mmbench_oracle_groups_agree_under_both_contracts(files, contract, groups):
    from backend.evaluation.mmbench import predictions_of, score_groups
    from backend.formats.mmbench import read_answers, read_rows

    rows = list(read_rows(files[1]))
    predictions = predictions_of(read_answers(files[0]), [row.index for row in rows])
    scored = score_groups(rows, predictions, contract)
    assert {str(group.base): int(group.hit) for group in scored} == ORACLE[groups]
    if contract == "kit":
        first = {str(group.base): int(group.first) for group in scored}
        assert first == ORACLE["first_round_strict"]


def test_mmbench_oracle_overall_scores_agree(files):
    kit, vlmeval = score_file(*files, "kit"), score_file(*files, "vlmeval")
    assert kit["score"] == ORACLE["kit_strict_circular_overall"]
    assert kit["vanilla_score"] == ORACLE["first_round_strict_overall"]
    assert vlmeval["score"] == ORACLE["vlmeval_exact_circular_overall"]
    assert (kit["n"], kit["missing"]) == (50, 0)
    assert kit["interval"][0] < kit["score"] < kit["interval"][1]


def test_categories_add_up_to_the_whole(files):
    result = score_file(*files, "vlmeval")
    for table in (result["categories"], result["l2"]):
        assert sum(entry["n"] for entry in table.values()) == result["n"]
        hits = sum(entry["score"] * entry["n"] / 100 for entry in table.values())
        assert hits == pytest.approx(result["hits"])


def test_a_group_with_an_unanswered_row_is_missing_not_wrong(files):
    answers, questions = files
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[1:]))
    result = score_file(answers, questions, "kit")
    assert (result["n"], result["missing"]) == (49, 1)


def test_an_answer_to_an_unknown_question_is_named(files):
    answers, questions = files
    with answers.open("a") as file:
        file.write('{"question_id": 999999, "text": "A"}\n')
    with pytest.raises(InputError, match=r"line 170, field question_id \(999999\)"):
        score_file(answers, questions, "kit")


def test_an_unknown_contract_is_refused(files):
    with pytest.raises(UsageError, match="kit, vlmeval"):
        score_file(*files, "lenient")


def test_a_letter_with_a_period_counts_only_under_the_rules():
    options = {"A": "red", "B": "blue"}
    assert extract("A.", options) == "A"
    assert extract("The answer is **b**", options) == "B"
    assert extract("A dog, I would say, stands near the house", options) is None
