"""Will this training fit that card? The answer of `plan`, of the Memory page and of forms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from backend.memory.bindings import parameters_of, settings_of
from backend.memory.cards import usable
from backend.memory.fit import LEVERS, Lever, Option, Verdict, fit, remedies, verdict
from backend.memory.parts import GIB, Prediction
from backend.memory.predict import predict
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ModelShape
from backend.messages import message
from backend.workspace import Workspace

_NAMED = {
    "part": "memory.part",
    "lever": "memory.lever",
    "moment": "memory.moment",
    "module": "death.module",
}


@dataclass(frozen=True)
class Sentence:
    """A sentence of the catalogue and what fills it."""

    code: str
    values: dict[str, Any]

    def say(self, language: str = "en") -> str:
        """The sentence in words; parts, levers, moments and modules among its values are named."""
        named = {
            name: message(f"{_NAMED[name]}.{value}", language)
            for name, value in self.values.items()
            if name in _NAMED
        }
        return message(self.code, language, **{**self.values, **named})


@dataclass(frozen=True)
class Plan:
    """What a configuration needs, whether a card has it, and what else would fit."""

    stage: str
    settings: MemorySettings
    budget: int
    """Bytes on the box."""
    grade: Verdict
    verdict: Sentence
    prediction: Prediction
    advice: Sentence | None
    """How the largest part shrinks most cheaply; None when nothing helps."""
    options: tuple[Option, ...]

    def parameters(self, option: Option) -> dict[str, Any]:
        """An option's differences from what was asked, as parameters of the stage."""
        return parameters_of(option.changes(self.settings))


def plan(
    workspace: Workspace,
    stage: str,
    parameters: dict[str, Any],
    budget_gib: float,
    *,
    levers: tuple[Lever, ...] = LEVERS,
    positions: int | None = None,
    host_budget: int | None = None,
    factor: float = 1.0,
) -> Plan:
    """Predict a stage's memory and look for configurations that fit.

    Args:
        workspace: Whose model it is.
        stage: `pretrain` or `finetune`.
        parameters: Of the stage; what is not named has its default.
        budget_gib: Device memory, GiB on the box.
        levers: Those that options may pull.
        positions: Longest row, image tokens counted in; None is the longest allowed.
        host_budget: Bytes of main memory that options may take.
        factor: See `predict`.
    """
    settings = settings_of(stage, parameters)
    if positions is not None:
        settings = replace(settings, positions=positions)
    shape = ModelShape.of_workspace(workspace)
    return plan_settings(
        shape,
        stage,
        settings,
        round(budget_gib * GIB),
        levers=levers,
        host_budget=host_budget,
        factor=factor,
    )


def plan_settings(
    shape: ModelShape,
    stage: str,
    settings: MemorySettings,
    budget: int,
    *,
    levers: tuple[Lever, ...] = LEVERS,
    host_budget: int | None = None,
    factor: float = 1.0,
) -> Plan:
    """The same from sizes and settings; budgets in bytes."""
    prediction = replace(
        predict(shape, settings, factor=factor),
        remedies=remedies(shape, settings, factor=factor),
    )
    grade = verdict(prediction, budget)
    if stage == "pretrain":
        levers = tuple(lever for lever in levers if lever not in ("lora", "qlora"))
    return Plan(
        stage=stage,
        settings=settings,
        budget=budget,
        grade=grade,
        verdict=_verdict(grade, prediction, budget),
        prediction=prediction,
        advice=_advice(prediction),
        options=tuple(fit(shape, settings, budget, levers, host_budget=host_budget, factor=factor)),
    )


def _verdict(grade: Verdict, prediction: Prediction, budget: int) -> Sentence:
    room = usable(budget)
    over = prediction.peak_allocated > room
    need = prediction.peak_allocated if over else prediction.peak_reserved
    values = {
        "need": gib(need),
        "allocated": gib(prediction.peak_allocated),
        "room": gib(room),
        "spare": gib(abs(room - need)),
        "gaps": gib(prediction.peak_reserved - prediction.peak_allocated),
    }
    gaps = ".gaps" if grade == "no" and not over else ""
    return Sentence(f"memory.verdict.{grade}{gaps}", values)


def _advice(prediction: Prediction) -> Sentence | None:
    if not prediction.remedies:
        return None
    first = prediction.remedies[0]
    values = {
        "part": prediction.largest,
        "size": gib(prediction.parts[prediction.largest]),
        "lever": first.lever,
        "peak": gib(prediction.peak_allocated),
        "saved": gib(first.saved),
        "after": gib(prediction.peak_allocated - first.saved),
    }
    return Sentence("memory.advice", values)


def option_title(option: Option, language: str = "en") -> str:
    """What an option changes, in words."""
    names = []
    for lever in option.levers:
        key, values = f"memory.lever.{lever}", {}
        if lever == "optimizer":
            key = f"memory.optimizer.{option.settings.optimizer}"
        elif lever == "micro_batch":
            key, values = "memory.micro_batch.of", {"n": option.settings.micro_batch_size}
        names.append(message(key, language, **values))
    title = " + ".join(names) or message("memory.as_asked", language)
    return title[:1].upper() + title[1:]


def gib(count: float) -> str:
    """Bytes as GiB with three significant digits, without the unit."""
    value = count / GIB
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain values; bytes."""
    return {
        "stage": plan.stage,
        "settings": vars(plan.settings),
        "budget": plan.budget,
        "usable": usable(plan.budget),
        "verdict": plan.grade,
        "sentence": plan.verdict.say(),
        "prediction": plan.prediction.to_dict(),
        "options": [option_json(option, plan.parameters(option)) for option in plan.options],
    }


def option_json(option: Option, parameters: dict[str, Any]) -> dict[str, Any]:
    """An option as plain values; bytes."""
    return {
        "parameters": parameters,
        "levers": option.levers,
        "peak_allocated": option.prediction.peak_allocated,
        "peak_reserved": option.prediction.peak_reserved,
        "host": option.prediction.host,
        "headroom": option.headroom,
        "speed": option.speed,
        "speed_estimated": option.estimated,
        "exactness": option.exactness,
    }


def plan_text(plan: Plan, language: str = "en") -> str:
    """A plan as lines for a terminal."""
    prediction = plan.prediction
    lines = [plan.verdict.say(language)]
    if plan.advice is not None:
        lines.append(plan.advice.say(language))
    lines.append("")
    for name, size in sorted(prediction.parts.items(), key=lambda item: -item[1]):
        if size:
            lines.append(f"  {message(f'memory.part.{name}', language):<34}{gib(size):>7} GiB")
    gaps = prediction.peak_reserved - prediction.peak_allocated
    lines.append(f"  {message('memory.bar.gaps', language):<34}{gib(gaps):>7} GiB")
    moment = message(f"memory.moment.{prediction.peak_moment}", language)
    lines += [
        "",
        message("memory.peak_moment", language, moment=moment),
        message("memory.host", language, size=gib(prediction.host)),
        "",
    ]
    for number, option in enumerate(plan.options, start=1):
        lines.append(
            message(
                "memory.option",
                language,
                number=number,
                levers=option_title(option, language),
                peak=gib(option.prediction.peak_allocated),
                headroom=gib(option.headroom),
                speed=round(100 * option.speed),
            )
        )
        command = " ".join(f"-p {name}={value}" for name, value in plan.parameters(option).items())
        if command:
            lines.append(f"     {command}")
    if not plan.options:
        lines.append(message("memory.no_option", language))
    return "\n".join(lines)
