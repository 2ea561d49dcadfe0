from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.evaluation.textvqa import Reference, normalize, score_file
from backend.formats.textvqa import Annotation, question_of_prompt, write_annotations
from tests.oracles import oracle

ORACLE = json.loads(oracle("textvqa.json").read_text(encoding="utf-8"))


def test_textvqa_oracle_normalization_agrees_on_every_row():
    for case in ORACLE["cases"]:
        assert normalize(case["pred_answer"]) == case["pred_norm"]
        assert [normalize(answer) for answer in case["gt_answers"]] == case["gt_norm"]


def test_textvqa_oracle_scores_agree_to_the_last_bit():
    for case in ORACLE["cases"]:
        assert Reference(tuple(case["gt_answers"])).score(case["pred_answer"]) == case["score"]


@pytest.mark.parametrize("case", ORACLE["question_from_prompt"], ids=str)
def test_textvqa_oracle_questions_are_found_in_prompts(case):
    if case[1] is None:
        with pytest.raises(InputError):
            question_of_prompt(case[0])
    else:
        assert question_of_prompt(case[0]) == case[1]


def test_every_contraction_with_one_lost_apostrophe_is_completed():
    assert normalize("dont youd've y'alld've 'ows'at") == "don't you'd've y'all'd've 'ow's'at"
    assert normalize("somebody'd") == "somebodyd"
    # Two lost apostrophes, and words outside the table, stay as they are.
    assert normalize("couldntve shes lets") == "couldntve shes lets"


def test_only_the_first_32_periods_fall():
    assert normalize("." * 40 + "x") == "." * 8 + "x"


def test_a_reference_needs_exactly_ten_answers():
    with pytest.raises(InputError, match="exactly 10"):
        Reference(("yes",) * 9)


def write_answers(path: Path, *answers: tuple[str, str, str]) -> Path:
    lines = [
        {"question_id": image, "prompt": f"{question}\nAnswer shortly.", "text": text}
        for image, question, text in answers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    path = tmp_path / "annotations.json"
    write_annotations(
        path,
        [
            Annotation("aa", "What brand?", ("nike",) * 10, "1"),
            Annotation("aa", "What color?", ("red",) * 2 + ("blue",) * 8, "2"),
            Annotation("bb", "What brand?", ("none",) * 10, "3"),
        ],
    )
    return path


def test_answers_join_by_image_and_question_whatever_their_order(tmp_path, annotations):
    answers = write_answers(
        tmp_path / "answers.jsonl",
        ("bb", "What brand?", "0"),
        ("aa", "What color?", "Red."),
        ("aa", "WHAT BRAND?", "adidas"),
    )
    result = score_file(answers, annotations)
    assert result["score"] == pytest.approx(100 * (1 + 0.6 + 0) / 3)
    assert (result["n"], result["missing"]) == (3, 0)
    low, high = result["interval"]
    assert low <= result["score"] <= high


def test_unanswered_questions_are_counted_and_not_scored(tmp_path, annotations):
    answers = write_answers(tmp_path / "answers.jsonl", ("bb", "What brand?", "none"))
    result = score_file(answers, annotations)
    assert (result["score"], result["n"], result["missing"]) == (100.0, 1, 2)


def test_an_empty_answer_file_has_no_score_rather_than_zero(tmp_path, annotations):
    result = score_file(write_answers(tmp_path / "answers.jsonl"), annotations)
    assert (result["score"], result["interval"], result["missing"]) == (None, None, 3)


def test_an_answer_without_annotation_is_named(tmp_path, annotations):
    answers = write_answers(
        tmp_path / "answers.jsonl", ("bb", "What brand?", "x"), ("zz", "What brand?", "x")
    )
    with pytest.raises(InputError, match=r"answers.jsonl, line 2, field question_id \(zz\)"):
        score_file(answers, annotations)


def test_a_question_answered_twice_is_named(tmp_path, annotations):
    answers = write_answers(tmp_path / "answers.jsonl", *[("bb", "What brand?", "x")] * 2)
    with pytest.raises(InputError, match="line 2: this question is answered twice"):
        score_file(answers, annotations)


def test_five_thousand_questions_are_scored_in_a_second(tmp_path):
    import time

    said = ["nike", "coca cola", "12:30", "the stop sign", "unanswerable"]
    references = [
        Annotation(f"i{n}", f"What is {n}?", tuple(said[(n + k) % 5] for k in range(10)), str(n))
        for n in range(5000)
    ]
    write_annotations(tmp_path / "annotations.json", references)
    answers = write_answers(
        tmp_path / "answers.jsonl",
        *[(f"i{n}", f"What is {n}?", said[n % 5] + ".") for n in range(5000)],
    )
    start = time.perf_counter()
    result = score_file(answers, tmp_path / "annotations.json")
    assert result["score"] == pytest.approx(60.0)
    assert time.perf_counter() - start < 5
    assert Counter([result["missing"]]) == {0: 1}
