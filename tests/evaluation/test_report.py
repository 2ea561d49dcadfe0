from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from backend.errors import InputError, UsageError
from backend.evaluation.evidence import gather
from backend.evaluation.report import PARTS, make_report
from tests.evaluation.samples import make_benchmarks, make_evaluated, make_run, make_workspace

HOSTILE = "<script>alert('x')</script> | `code` [a](http://evil.example) <img src=x onerror=a>"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    workspace = make_workspace(root / "w", make_benchmarks(root / "b", count=12))
    colors = ("red", "blue", "green")
    losses = np.linspace(5, 2, 900)
    losses[450] = 9.0
    make_evaluated(
        workspace,
        "clean",
        lambda task: next(color for color in colors if color in task.prompt),
        lambda task: task.record.answer,
        losses=losses.tolist(),
        counts={"samples": 50, "kept": 42, "dropped": 8, "synthesized": 12},
    )
    make_evaluated(
        workspace, "seed", lambda task: HOSTILE, lambda task: "A", losses=np.linspace(5, 3, 900)
    )
    return workspace


@pytest.fixture(scope="module")
def runs(workspace):
    return [gather(workspace, f"20261124-000000-evaluate-{name}") for name in ("seed", "clean")]


def report(workspace, runs, **changes):
    return make_report(workspace, runs, baseline=runs[0].run_id, date="today", **changes)


def test_evidence_follows_a_run_back_to_its_data(runs):
    clean = runs[1]
    stages = [spec.stage for spec in clean.trail]
    assert stages == ["prepare", "pretrain", "finetune", "evaluate"]
    assert (clean.label, clean.datasets[0].reference) == ("clean", "clean/v1")
    [pretrain, _] = clean.trainings
    assert (pretrain.seconds, pretrain.peak_host_memory, pretrain.peak_memory) == (75, 2**30, None)
    assert pretrain.final_loss == pytest.approx(2.15, abs=0.01)


def test_the_page_says_what_was_found(workspace, runs):
    made = report(workspace, runs)
    for text in (made.html, made.markdown):
        assert "better than seed (95% interval" in text
        assert "Challenge score of clean" not in text  # the baseline's TextVQA is zero
        assert "42" in text
        assert "learning" in text
    assert "MMBench, abilities" not in made.html  # a single ability is no table
    assert made.html.count("<svg") >= 5
    assert made.html.count('src="data:image/jpeg;base64,') >= 6


def test_the_page_needs_nothing_beside_itself(workspace, runs):
    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag not in ("script", "link", "iframe", "object")
            found.extend(value for name, value in attrs if name in ("src", "href") and value)
            assert not [name for name, _ in attrs if name.startswith("on")]

    links = Links()
    links.feed(report(workspace, runs).html)
    assert found
    assert all(link.startswith("data:image/jpeg;base64,") for link in found)


def test_hostile_text_is_shown_and_never_run(workspace, runs):
    made = report(workspace, runs, title=HOSTILE, commands={runs[0].run_id: [f"run {HOSTILE}"]})
    assert "<script" not in made.html
    assert "&lt;script&gt;alert(&#39;x&#39;)" in made.html
    assert "<img src=x" not in made.html
    prose = "\n".join(line for line in made.markdown.splitlines() if not line.startswith("    "))
    assert re.search(r"(?<!\\)<", prose) is None
    assert "\\[a\\](http" in prose


def test_chinese_is_complete(workspace, runs):
    made = report(workspace, runs, language="zh")
    assert '<html lang="zh-CN">' in made.html
    assert "clean 比 seed 高" in made.html
    assert "胜负题目" in made.markdown
    assert "Questions won" not in made.html


@pytest.mark.parametrize("part", PARTS)
def test_each_part_can_be_left_out(workspace, runs, part):
    commands = {run.run_id: ["python -m backend run"] for run in runs}
    whole = report(workspace, runs, commands=commands)
    less = report(workspace, runs, commands=commands, parts=tuple(set(PARTS) - {part}))
    assert f'id="{part}"' in whole.html
    assert f'id="{part}"' not in less.html


def test_a_difference_in_contract_or_missing_answers_is_said(workspace, runs):
    seed, clean = runs
    scores = {**clean.scores, "textvqa": {**clean.scores["textvqa"], "missing": 3}}
    scores["textvqa"]["contract"] = {**scores["textvqa"]["contract"], "ocr_tokens": False}
    changed = type(clean)(**{**{f: getattr(clean, f) for f in clean.__slots__}, "scores": scores})
    html = report(workspace, [seed, changed]).html
    assert "clean left 3 of textvqa unanswered" in html
    assert "measured differently on textvqa (ocr_tokens)" in html


def test_a_report_of_one_run_compares_nothing(workspace, runs):
    made = make_report(workspace, runs[:1])
    assert "better than" not in made.html
    assert 'id="scores"' in made.html


def test_what_cannot_be_reported_is_refused(workspace, runs):
    with pytest.raises(UsageError, match="at least one"):
        make_report(workspace, [])
    with pytest.raises(UsageError, match="none of the runs"):
        make_report(workspace, runs[:1], baseline="other")
    with pytest.raises(UsageError, match="not an evaluation"):
        gather(workspace, "20261124-000000-pretrain-seed")
    make_run(workspace, "evaluate", "20261124-000000-evaluate-none")
    with pytest.raises(InputError, match="no scores"):
        gather(workspace, "20261124-000000-evaluate-none")
