"""The report: a page that needs nothing beside itself, and the same as Markdown."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from backend.errors import UsageError
from backend.evaluation.comparison import Pair, compare, pairs, sentence
from backend.evaluation.evidence import (
    Evaluated,
    distinct_labels,
    parameter_differences,
)
from backend.evaluation.examples import make_cards, spread_out
from backend.evaluation.figures import (
    COLORS,
    Dot,
    Line,
    bar_chart,
    dot_chart,
    line_chart,
    swatch,
)
from backend.evaluation.scores import (
    METRICS,
    Metric,
    category_name,
    contract_differences,
    contract_text,
    metric_entry,
)
from backend.evaluation.statistics import relative_score
from backend.messages import message
from backend.workspace import Workspace

Part = Literal[
    "scores", "categories", "losses", "data", "configuration", "examples", "environment", "commands"
]
PARTS: tuple[Part, ...] = (
    "scores", "categories", "losses", "data", "configuration", "examples", "environment",
    "commands",
)  # fmt: skip
TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!&])")


@dataclass(frozen=True, slots=True)
class Report:
    """Both forms of a report."""

    html: str
    markdown: str


def make_report(
    workspace: Workspace,
    runs: list[Evaluated],
    *,
    baseline: str | None = None,
    language: str = "en",
    title: str = "",
    parts: tuple[Part, ...] = PARTS,
    examples: int = 6,
    commands: dict[str, list[str]] | None = None,
    date: str = "",
) -> Report:
    """Compare evaluated runs in a self-contained page and in Markdown.

    Args:
        workspace: Where pictures are read from.
        runs: What is compared; the baseline among them or not.
        baseline: Run id that the others are compared with; None compares nothing.
        language: `en` or `zh`.
        title: Headline; empty for the usual one.
        parts: What to include.
        examples: Questions won and lost to show, at most, for each benchmark and run.
        commands: Shell commands that lead to each run, by run id.
        date: When it is made, as people read it.

    Raises:
        UsageError: There are no runs, or the baseline is none of them.
    """
    writer = _Writer(workspace, runs, baseline, language)
    content = {
        "title": title or writer.t("document.title"),
        "workspace": workspace.settings.name,
        "date": date,
        "language": {"en": "en", "zh": "zh-CN"}[language],
        "t": writer.t,
        "labels": list(writer.labels.values()),
        **writer.summary(),
        **(writer.scores() if "scores" in parts else {"scores": []}),
        "categories": writer.categories() if "categories" in parts else [],
        **(writer.losses() if "losses" in parts else {"losses": []}),
        "data": writer.data() if "data" in parts else [],
        "differences": writer.differences() if "configuration" in parts else [],
        "examples": writer.examples(examples) if "examples" in parts else [],
        "environment": writer.environment() if "environment" in parts else [],
        "commands": writer.commands(commands or {}) if "commands" in parts else [],
    }
    return Report(_render("report.html.j2", content), _render("report.md.j2", content))


def _render(name: str, content: dict[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        # Answers and captions are whatever a model or a stranger wrote.
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _escape_markdown
    environment.filters["oneline"] = lambda value: " ".join(str(value).split())
    return environment.get_template(name).render(content)


def _escape_markdown(value: Any) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


class _Writer:
    """Turns evidence into what the templates show."""

    def __init__(
        self, workspace: Workspace, runs: list[Evaluated], baseline: str | None, language: str
    ):
        if not runs:
            raise UsageError("a report needs at least one evaluated run.")
        if baseline is not None and baseline not in {run.run_id for run in runs}:
            raise UsageError("the baseline is none of the runs of the report.", place=baseline)
        self.workspace, self.runs, self.language = workspace, runs, language
        self.labels = distinct_labels(runs)
        self.colors = {run.run_id: COLORS[n % len(COLORS)] for n, run in enumerate(runs)}
        self.baseline = next((run for run in runs if run.run_id == baseline), None)
        self.others = [run for run in runs if self.baseline and run is not self.baseline]
        self.paired: dict[tuple[str, Metric], list[Pair]] = {
            (run.run_id, metric): found
            for run in self.others
            for metric in METRICS
            if self.baseline and (found := pairs(run.questions, self.baseline.questions, metric))
        }

    def t(self, key: str, **values: object) -> str:
        """The sentence `key` in the report's language."""
        return message(key, self.language, **values)

    def summary(self) -> dict[str, Any]:
        """Verdicts in words, the challenge's score, and why scores may not compare."""
        verdicts, warnings, relative = [], [], []
        for run in self.others:
            verdicts += self._verdicts(run)
            warnings += self._contract_warnings(run)
            ratio = self._relative(run)
            relative += [ratio] if ratio else []
        for run in self.runs:
            warnings += [
                self.t("document.unanswered", run=self.labels[run.run_id], benchmark=name,
                       missing=entry["missing"])
                for name, entry in run.scores.items() if entry.get("missing")
            ]  # fmt: skip
        return {
            "verdicts": verdicts,
            "warnings": warnings,
            "relative": " ".join(relative),
            "legend": [swatch(self.colors[run], label) for run, label in self.labels.items()],
        }

    def _verdicts(self, run: Evaluated) -> list[dict[str, str]]:
        assert self.baseline is not None
        names = self.labels[run.run_id], self.labels[self.baseline.run_id]
        found = []
        for metric in METRICS:
            if paired := self.paired.get((run.run_id, metric)):
                result = compare(paired, metric)
                text = sentence(result, metric, *names, self.language)
                found.append({"kind": result.verdict, "text": text})
        return found

    def _contract_warnings(self, run: Evaluated) -> list[str]:
        assert self.baseline is not None
        found = []
        for name in run.scores.keys() & self.baseline.scores.keys():
            fields = contract_differences(
                run.scores[name]["contract"], self.baseline.scores[name]["contract"]
            )
            if fields:
                found.append(
                    self.t("document.contracts_differ", run=self.labels[run.run_id],
                           benchmark=name, fields=", ".join(fields))
                )  # fmt: skip
        return found

    def _relative(self, run: Evaluated) -> str:
        assert self.baseline is not None
        ours, theirs = (
            {name: entry["score"] for name, entry in member.scores.items() if entry["score"]}
            for member in (run, self.baseline)
        )
        if not {"textvqa", "mmbench"} <= ours.keys() & theirs.keys():
            return ""
        value = f"{relative_score(ours, theirs):.3f}"
        return self.t("document.relative", run=self.labels[run.run_id], value=value)

    def scores(self) -> dict[str, Any]:
        """A row for each run and metric, and the figure of them."""
        rows, dots = [], []
        for metric in METRICS:
            row_dots = []
            for run in self.runs:
                entry = metric_entry(run.scores, metric)
                if entry is None:
                    continue
                low, high = entry["interval"]
                row_dots.append(Dot(self.colors[run.run_id], entry["score"], low, high))
                rows.append(
                    {
                        "run": self.labels[run.run_id],
                        "metric": self.t(f"evaluation.metric.{metric}"),
                        "score": f"{entry['score']:.1f}",
                        "interval": f"{low:.1f} – {high:.1f}",
                        "n": f"{entry['n']:,}",
                        "missing": f"{entry['missing']:,}",
                        "contract": contract_text(entry["contract"], self.language),
                    }
                )
            if row_dots:
                dots.append((self.t(f"evaluation.metric.{metric}"), row_dots))
        return {"scores": rows, "scores_figure": dot_chart(dots, self.t("document.scores"))}

    def categories(self) -> list[dict[str, Any]]:
        """Tables of accuracy by category, one a benchmark and level."""
        levels = (
            ("textvqa", "categories", "textvqa"),
            ("mmbench", "l2", "mmbench_l2"),
            ("mmbench", "categories", "mmbench_leaf"),
        )
        tables = []
        for benchmark, level, key in levels:
            entries = [run.scores.get(benchmark, {}).get(level, {}) for run in self.runs]
            names = sorted({name for entry in entries for name in entry})
            if len(names) < 2:
                continue
            rows, dots = [], []
            for name in names:
                known = [entry.get(name) for entry in entries]
                rows.append(
                    {
                        "name": category_name(name, self.language),
                        "n": max(value["n"] for value in known if value),
                        "cells": [f"{value['score']:.1f}" if value else "–" for value in known],
                    }
                )
                row_dots = [
                    Dot(self.colors[run.run_id], value["score"])
                    for run, value in zip(self.runs, known, strict=True)
                    if value
                ]
                dots.append((category_name(name, self.language), row_dots))
            title = self.t(f"document.categories.{key}")
            tables.append({"name": title, "rows": rows, "figure": dot_chart(dots, title)})
        return tables

    def losses(self) -> dict[str, Any]:
        """The loss curves over each other, one figure a stage, and a row for each training."""
        figures, rows = [], []
        for stage in ("pretrain", "finetune"):
            lines = []
            for run in self.runs:
                for training in run.trainings:
                    if training.stage != stage:
                        continue
                    label = self.labels[run.run_id]
                    lines.append(Line(label, self.colors[run.run_id], training.loss))
                    rows.append(
                        {
                            "run": label,
                            "stage": self.t(f"stage.{stage}"),
                            "steps": f"{int(training.loss.steps[-1]):,}" if training.loss else "–",
                            "loss": _number(training.final_loss),
                            "duration": _duration(training.seconds),
                            "memory": _gib(training.peak_memory),
                            "host_memory": _gib(training.peak_host_memory),
                        }
                    )
            chart = line_chart(lines, self.t("document.step"), self.t("document.loss"))
            if chart:
                figures.append({"name": self.t(f"stage.{stage}"), "figure": chart})
        return {"losses": figures, "trainings": rows}

    def data(self) -> list[dict[str, Any]]:
        """The funnel of each dataset version."""
        found = {}
        for run in self.runs:
            for dataset in run.datasets:
                rows = [(step["name"], float(step["after"])) for step in dataset.operators]
                if dataset.operators:
                    rows.insert(0, (self.t("document.data.start"), dataset.operators[0]["before"]))
                counts = ", ".join(
                    f"{self.t(f'document.count.{name}')} {count:,}"
                    for name, count in dataset.counts.items()
                    if name in ("samples", "kept", "dropped", "synthesized")
                )
                found[dataset.reference] = {
                    "reference": dataset.reference,
                    "counts": counts,
                    "rows": [(name, f"{value:,.0f}") for name, value in rows],
                    "figure": bar_chart(rows, dataset.reference),
                }
        return list(found.values())

    def differences(self) -> list[dict[str, Any]]:
        """Parameters in which the runs' stages differ."""
        return [
            {
                "stage": self.t(f"stage.{stage}"),
                "parameter": parameter,
                "cells": ["–" if value is None else json.dumps(value, ensure_ascii=False)
                          for value in values],
            }
            for stage, parameter, values in parameter_differences(self.runs)
        ]  # fmt: skip

    def examples(self, most: int) -> list[dict[str, Any]]:
        """Questions that a run won and lost against the baseline, with their pictures."""
        groups = []
        for (run_id, metric), paired in self.paired.items():
            assert self.baseline is not None
            if metric == "mmbench_vlmeval" or most == 0:
                continue
            for outcome, sign in (("won", 1), ("lost", -1)):
                decided = [p for p in paired if sign * (p.candidate - p.baseline) > 1e-9]
                if decided:
                    title = self.t(
                        f"document.examples.{outcome}",
                        run=self.labels[run_id],
                        metric=self.t(f"evaluation.metric.{metric}"),
                        shown=min(most, len(decided)),
                        count=len(decided),
                    )
                    names = self.labels[run_id], self.labels[self.baseline.run_id]
                    shown = spread_out(decided, most)
                    cards = make_cards(self.workspace, shown, *names, self.language)
                    groups.append({"title": title, "cards": cards})
        return groups

    def environment(self) -> list[tuple[str, list[str]]]:
        """Versions and machine, a column a run; only rows that some run knows."""
        tables: list[dict[str, str]] = [
            {
                **run.spec.environment,
                **run.spec.versions,
                self.t("document.commit"): run.spec.git or "–",
            }
            for run in self.runs
        ]
        names = dict.fromkeys(name for table in tables for name in table)
        return [(name, [table.get(name, "–") for table in tables]) for name in names]

    def commands(self, commands: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
        """The commands that lead to each run."""
        return [
            (self.labels[run.run_id], commands[run.run_id])
            for run in self.runs
            if commands.get(run.run_id)
        ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _gib(value: float | None) -> str:
    return "–" if value is None else f"{value / 1024**3:.3g} GiB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
