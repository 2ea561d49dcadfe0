"""One benchmark question with its picture, what was answered, and what is right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from backend.evaluation.examples import gold_answers, gold_text
from backend.evaluation.scores import category_name
from pages.widgets.gallery import badge, picture
from pages.widgets.text import language, t
from store.thumbnails import Thumbnail

_OUTCOMES = {"right": "check", "partly": "contrast", "wrong": "close"}


def question_card(row: Mapping[str, Any], shown: Thumbnail) -> str:
    """A row of questions.parquet."""
    outcome = outcome_of(row["score"])
    facts = [
        (t("evaluation.answer"), row["answer"]),
        (t("evaluation.prediction"), row["prediction"]),
        (t("evaluation.gold"), gold_text(row["gold"])),
    ]
    marks = [badge(t(f"evaluation.outcome.{outcome}"), _OUTCOMES[outcome], f"sl-{outcome}")]
    # TextVQA has one category only: on each card it would be noise.
    if row["category"] not in (None, "", "default"):
        marks.append(badge(category_name(row["category"], language())))
    return _card(row, shown, marks, facts) + prompt_html(row["prompt"])


def pair_card(row: Mapping[str, Any], shown: Thumbnail, names: Sequence[str]) -> str:
    """A row of `store.answers.paired_answers`; names of the candidate and the baseline."""
    facts = [
        (names[0], row["candidate_answer"]),
        (names[1], row["baseline_answer"]),
        (t("evaluation.gold"), gold_text(row["gold"])),
    ]
    marks = [
        badge(f"{name} {100 * row[which]:.0f}", _OUTCOMES[outcome], f"sl-{outcome}")
        for name, which in zip(names, ("candidate", "baseline"), strict=True)
        if (outcome := outcome_of(row[which]))
    ]
    return _card(row, shown, marks, facts)


def live_card(line: Mapping[str, Any], shown: Thumbnail) -> str:
    """A line of an answer file, while the run still works."""
    prompt = str(line.get("prompt") or "")
    question = prompt.split("\n", 1)[0]
    facts = [(t("evaluation.answer"), str(line.get("text") or ""))]
    mark = badge(t(f"parameter.benchmarks.{line['benchmark']}"))
    return _card({"question": question, "options": None}, shown, [mark], facts)


def outcome_of(score: float) -> str:
    """right, partly or wrong."""
    return "right" if score >= 1 else "wrong" if score <= 0 else "partly"


def answer_words(row: Mapping[str, Any]) -> str:
    """The right answer as text: of a choice, its words and not its letter."""
    gold = gold_answers(row["gold"])[0][0]
    options = json.loads(row["options"]) if row["options"] else {}
    return str(options.get(gold, gold))


def prompt_html(prompt: str | None) -> str:
    """The prompt, folded."""
    if not prompt:
        return ""
    return (
        f'<details class="sl-quiet"><summary>{escape(t("evaluation.prompt"))}</summary>'
        f'<p class="sl-text">{escape(prompt)}</p></details>'
    )


def _card(
    row: Mapping[str, Any],
    shown: Thumbnail,
    marks: Iterable[str],
    facts: Iterable[tuple[str, str | None]],
) -> str:
    options = ""
    if row["options"]:
        listed = json.loads(row["options"]).items()
        lines = "\n".join(f"{letter}. {text}" for letter, text in listed)
        options = f'<p class="sl-text sl-quiet">{escape(lines)}</p>'
    lines = "".join(
        f'<div><div class="sl-label">{escape(name)}</div>'
        f'<p class="sl-text sl-clip">{escape(_said(value))}</p></div>'
        for name, value in facts
    )
    return (
        f'<div class="sl-card">{picture(shown, row["question"])}'
        f'<div class="sl-badges">{"".join(marks)}</div>'
        f'<p class="sl-text"><strong>{escape(row["question"])}</strong></p>{options}{lines}</div>'
    )


def _said(value: str | None) -> str:
    return value if value and value.strip() else t("evaluation.nothing_said")
