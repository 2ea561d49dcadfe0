"""A sample as a card, and all that is known of it when the card is open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from backend.workspace import Workspace
from pages.widgets.diff import marked
from pages.widgets.gallery import badge, picture
from pages.widgets.inputs import run_label
from pages.widgets.lineage_view import lineage_html
from pages.widgets.states import switch_link
from pages.widgets.text import number, t
from pages.widgets.words import known_text
from store.batches import trained_on
from store.datasets import STATISTIC_PREFIX, dataset_row
from store.lineage import LineageStep, lineage
from store.samples import similar_samples
from store.thumbnails import Thumbnail, thumbnail, thumbnails
from store.verdicts import VERDICTS, Verdict, add_verdict, verdicts

VERDICT_ICONS: dict[Verdict, str] = {"good": "thumb_up", "bad": "thumb_down", "unsure": "help"}
_KEYS: dict[Verdict, str] = {"good": "G", "bad": "B", "unsure": "U"}
_LARGE = 900
_STEPS = 6
_REASON = re.compile(r"(\S+) (-?[\d.e+-]+|nan) (<=|>=|<|>|in) (.+)")

Row = Mapping[str, Any]


def pictures(workspace: Workspace, root: Path | None, rows: Iterable[Row]) -> list[Thumbnail]:
    """The first picture of each sample, small."""
    wanted = [((row["images"] or [""])[0], row.get("image_sha256")) for row in rows]
    if root is None:
        return [Thumbnail(None, "image_missing")] * len(wanted)
    return thumbnails(workspace, root, wanted)


def card_html(row: Row, shown: Thumbnail, figures: Iterable[tuple[str, float]] = ()) -> str:
    """Picture, question, caption, badges, and the figures given."""
    question = escape(question_text(row))
    asked = f'<div class="sl-quiet sl-clip">{question}</div>' if question else ""
    numbers = " · ".join(f"{escape(statistic_name(n))} {figure(v)}" for n, v in figures)
    return (
        f'<div class="sl-card">{picture(shown, row["text"] or "")}'
        f'<div class="sl-badges">{badges(row)}</div>{asked}'
        f'<p class="sl-text sl-clip">{escape(row["text"] or "")}</p>'
        f'<div class="sl-quiet">{numbers}</div></div>'
    )


def badges(row: Row) -> str:
    """Fate, origin, operator and verdict."""
    kept = row.get("kept")
    found = []
    if kept is not None:
        fate = "kept" if kept else "dropped"
        found.append(badge(t(f"lineage.{fate}"), "check" if kept else "block", f"sl-{fate}"))
    if row.get("origin") == "synthesized":
        found.append(badge(t("samples.origin.synthesized"), "auto_awesome", "sl-created"))
    if operator := row.get("dropped_by") or row.get("operator"):
        found.append(badge(operator))
    if verdict := row.get("verdict"):
        found.append(badge(t(f"samples.verdict.{verdict}"), VERDICT_ICONS[verdict]))
    return "".join(found)


def question_text(row: Row) -> str:
    """The question without its image token."""
    return str(row.get("question") or "").replace("<image>", "").strip()


def statistic_name(column: str) -> str:
    """The statistic's name as a person reads it."""
    bare = _bare(column)
    return known_text(f"synthesis.statistic.{bare}", bare.replace("_", " "))


def figure(value: float) -> str:
    """A statistic's value; counts without a fraction."""
    return number(int(value) if value.is_integer() else value)


def detail(workspace: Workspace, reference: str, row: Row) -> None:
    """Picture, texts with differences, lineage, statistics, verdict."""
    root = dataset_row(workspace, reference).image_root
    image = (row["images"] or [""])[0]
    large = (
        thumbnail(workspace, root, image, row["image_sha256"], _LARGE)
        if root
        else Thumbnail(None, "image_missing")
    )
    steps = lineage(workspace, reference, row["sample_id"])
    verdict = verdicts(workspace, reference).get(row["sample_id"])
    left, right = st.container(key="sides-detail").columns([5, 6], gap="medium")
    with left:
        st.html(picture(large, row["text"] or "", "sl-large"))
        verdict_buttons(workspace, reference, row["sample_id"], verdict)
        st.html(_facts(row))
    with right:
        st.html(
            f'<div class="sl-badges">{badges({**row, "verdict": verdict})}</div>'
            + texts_html(row, steps)
        )
        st.html(
            f'<div class="sl-label">{escape(t("samples.lineage"))}</div>'
            + (lineage_html(steps) if steps else _quiet(t("samples.untouched")))
        )
        if table := statistics_html(row, steps):
            st.html(table)
        training(workspace, reference, row["sample_id"])


def training(workspace: Workspace, reference: str, sample_id: str) -> None:
    """The steps that trained on the sample, each a click away from its batch."""
    st.html(f'<div class="sl-label">{escape(t("samples.trained"))}</div>')
    found = trained_on(workspace, reference, sample_id)
    if not found:
        st.html(_quiet(t("samples.trained.none")))
    for run, steps in found:
        st.html(escape(run_label(run)))
        with st.container(horizontal=True, key=f"trained-{run.id}"):
            for step in steps[:_STEPS]:
                switch_link(
                    "pages/runs.py",
                    t("samples.trained.step", step=number(step["step"]), loss=number(step["loss"])),
                    ":material/show_chart:",
                    {"run": run.id, "view": "samples", "step": str(step["step"])},
                )
        if len(steps) > _STEPS:
            st.caption(t("samples.trained.more", n=len(steps) - _STEPS))


def texts_html(row: Row, steps: list[LineageStep]) -> str:
    """The question, and the caption; where it was rewritten, before and after with marks."""
    question = question_text(row)
    asked = _labelled(t("samples.question"), escape(question)) if question else ""
    rewritten = [step for step in steps if step.action == "rewritten" and step.before is not None]
    if not rewritten:
        return asked + _labelled(t("samples.caption"), escape(row["text"] or ""))
    old, new = marked(rewritten[0].before or "", row["text"] or "")
    pair = _labelled(t("samples.before"), old) + _labelled(t("samples.after"), new)
    return f'{asked}<div class="sl-pair">{pair}</div>'


def statistics_html(row: Row, steps: list[LineageStep]) -> str:
    """Every statistic of the sample beside the limit that an operator set for it."""
    limits = limits_of(steps)
    values = {
        _bare(name): value
        for name, value in row.items()
        if name.startswith(STATISTIC_PREFIX) and isinstance(value, float)
    }
    if not values:
        return ""
    lines = [
        f'<tr><td>{escape(statistic_name(name))}</td><td class="sl-number">{figure(value)}</td>'
        f'<td class="sl-number">{escape(limits[name][0]) if name in limits else "–"}</td>'
        f"<td>{escape(limits[name][1]) if name in limits else ''}</td></tr>"
        for name, value in values.items()
    ]
    heads = "".join(
        f'<th class="{css}">{escape(t(key))}</th>'
        for key, css in (
            ("samples.statistic", ""),
            ("samples.value", "sl-number"),
            ("samples.limit", "sl-number"),
            ("samples.operator", ""),
        )
    )
    return f'<table class="sl-table"><tr>{heads}</tr>{"".join(lines)}</table>'


def limits_of(steps: Iterable[LineageStep]) -> dict[str, tuple[str, str]]:
    """Statistic to the limit that it was held against and the operator that did; the latest."""
    found: dict[str, tuple[str, str]] = {}
    for step in steps:
        for part in step.reason.split("; "):
            if match := _REASON.fullmatch(part):
                name, _, sign, limit = match.groups()
                # A sample is dropped for being below what it should reach.
                needed = {"<": "≥", ">": "≤", ">=": "≥", "<=": "≤", "in": ""}[sign]
                found[name] = (f"{needed} {limit}".strip(), step.operator)
    return found


def verdict_buttons(
    workspace: Workspace, reference: str, sample_id: str, current: str | None
) -> None:
    """What a person thinks of the sample; the same button again takes it back."""
    row = st.container(horizontal=True, key="verdict")
    for verdict in VERDICTS:
        chosen = verdict == current
        row.button(
            t(f"samples.verdict.{verdict}"),
            key=f"verdict-{verdict}",
            icon=f":material/{VERDICT_ICONS[verdict]}:",
            shortcut=_KEYS[verdict],
            type="primary" if chosen else "secondary",
            on_click=add_verdict,
            args=(workspace, reference, sample_id, None if chosen else verdict),
        )


def similar(workspace: Workspace, reference: str, sample_id: str) -> list[tuple[Row, Thumbnail]]:
    """Samples with the same picture, source or words, with their pictures."""
    rows = similar_samples(workspace, reference, sample_id)
    root = dataset_row(workspace, reference).image_root
    return list(zip(rows, pictures(workspace, root, rows), strict=True))


def _facts(row: Row) -> str:
    size = f"{row['width']} × {row['height']}" if row["width"] else t("samples.unknown")
    facts = {
        t("samples.id"): row["sample_id"],
        t("samples.source"): row["source_id"],
        t("samples.file"): ", ".join(row["images"] or []),
        t("samples.size"): size,
        statistic_name("n_words"): row["n_words"],
    }
    lines = [
        f"<tr><td class='sl-label'>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    ]
    return f'<table class="sl-table">{"".join(lines)}</table>'


def _labelled(label: str, html: str) -> str:
    return f'<div><div class="sl-label">{escape(label)}</div><p class="sl-text">{html}</p></div>'


def _quiet(text: str) -> str:
    return f'<div class="sl-quiet">{escape(text)}</div>'


def _bare(column: str) -> str:
    return column.removeprefix(STATISTIC_PREFIX)
