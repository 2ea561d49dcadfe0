"""Why a training died of memory: what was asked for, by whom, what else was held, the ways out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.errors import InputError, SynthLoopError
from backend.files import read_json, read_lines, tail_lines
from backend.memory.allocation import FailedAllocation, Shortage, failed_allocation
from backend.memory.bindings import parameters_of, settings_of
from backend.memory.cards import box, usable
from backend.memory.costs import KIT, SYNTHLOOP, Implementation
from backend.memory.deaths import FINISHED, Sign, death_sign, last_attempt, sign_of
from backend.memory.expectation import FILE
from backend.memory.fit import LEVERS, Option, fit
from backend.memory.frames import NOWHERE, Place, Trace, place_of, traces
from backend.memory.kit_command import kit_configuration
from backend.memory.parts import GIB, PARTS, Moment, Prediction
from backend.memory.plan import Sentence, gib, option_json, option_title
from backend.memory.predict import predict
from backend.memory.settings import MemorySettings
from backend.memory.shapes import MGM_2B, ModelShape
from backend.memory.tensors import Tensor, recognized
from backend.messages import message
from backend.runs import Reason, Run
from backend.workspace import Workspace

MEMORY = ("device_memory", "host_memory")
TAIL_BYTES = 1 << 20
EVIDENCE = 12
WAYS = 3
USUAL_CARD = 24 * GIB
"""What the ways out have to fit when nobody knows the card."""
COMES_LAST: dict[Moment, tuple[str, ...]] = {
    "loading": ("temporary", "weights"),
    "vision": ("temporary", "vision"),
    "forward": ("temporary", "activations", "vision"),
    "loss": ("gradients", "logits", "temporary", "activations"),
    "backward": ("gradients", "temporary", "activations"),
    "optimizer": ("temporary", "optimizer", "gradients"),
}
"""What a moment of a step makes, the last first: before its worst point not all of it is there."""
MUCH_HOST = 16 * GIB
"""Predicted main memory below which a kill is not held for the kernel's want of memory."""
LESS_HOST = 0.8
"""Of the main memory that was too much, what the ways out may take."""


@dataclass(frozen=True)
class Explanation:
    """Why a run died; None and empty where nobody can tell.

    Attributes:
        code: A reason's code (`reason.<code>` says it, `.remedy` what to do).
        line: The line that says it.
        values: What fills the reason's sentences.
        allocation: The allocation that failed.
        place: Where in a training step.
        tensor: What the allocation was for.
        held: Bytes of each part at the worst point of that moment, as predicted for the run's
            parameters.
        until_then: What of this was there already when the allocation failed.
        stage: `pretrain` or `finetune`, where it trained.
        settings: How it was trained.
        prediction: Of these settings.
        measured: Highest allocated bytes before its death.
        measured_host: Highest main memory of its processes before its death.
        ways: The cheapest ways out, cheapest first.
        evidence: Lines of the log.
    """

    code: str
    line: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    allocation: FailedAllocation | None = None
    place: Place = NOWHERE
    tensor: Tensor | None = None
    held: dict[str, int] | None = None
    until_then: dict[str, int] | None = None
    stage: str | None = None
    settings: MemorySettings | None = None
    prediction: Prediction | None = None
    measured: int | None = None
    measured_host: int | None = None
    ways: tuple[Option, ...] = ()
    evidence: tuple[str, ...] = ()

    @property
    def shortage(self) -> Shortage | None:
        """Why there was no room; gaps and other processes are no cause where even all of the room
        would have been too little for what is predicted.
        """
        if self.allocation is None or self.prediction is None or self.allocation.total is None:
            return self.allocation.shortage if self.allocation else None
        room = min(usable(self.allocation.total), self.allocation.limit or self.allocation.total)
        return "need" if self.prediction.peak_allocated > room else self.allocation.shortage

    @property
    def reason(self) -> Sentence:
        """The cause in a sentence."""
        known = {"error": self.line, "signal": "SIGKILL", **self.values}
        return Sentence(f"reason.{self.code}", known)

    def sentences(self) -> list[Sentence]:
        """What is known, the most telling first."""
        found = [*_where(self), *_asked(self), *_room(self), *_predicted(self)]
        return [one for one in found if one is not None]

    def parameters(self, way: Option) -> dict[str, Any]:
        """What a way out changes, as parameters of the stage."""
        return parameters_of(way.changes(self.settings)) if self.settings else {}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; bytes."""
        allocation, prediction = self.allocation, self.prediction
        return {
            "code": self.code,
            "line": self.line,
            "moment": self.place.moment,
            "module": self.place.part,
            "recomputed": self.place.again,
            "allocation": allocation.to_dict() if allocation else None,
            "tensor": self.tensor._asdict() if self.tensor else None,
            "held": self.until_then,
            "predicted_peak": prediction.peak_allocated if prediction else None,
            "predicted_host": prediction.host if prediction else None,
            "measured_peak": self.measured,
            "measured_host": self.measured_host,
            "ways": [option_json(way, self.parameters(way)) for way in self.ways],
            "text": [one.say() for one in self.sentences()],
            "evidence": list(self.evidence),
        }


def explain_run(workspace: Workspace, run: Run) -> Explanation | None:
    """Why a run of this studio died; None when it lives or ended well.

    Raises:
        InputError: The run's own files are broken.
    """
    reason = run.status().reason
    if reason is None or reason.code in ("completed", "stopped_by_person", "stopped_by_force"):
        return None
    lines = tail(run.log_path)
    configuration = None
    spec = run.spec
    try:
        settings = run_settings(run)
        stage = str(spec.parameters.get("trains", spec.stage))
        configuration = (stage, settings, ModelShape.of_workspace(workspace), SYNTHLOOP)
    except SynthLoopError:
        # Not a training stage, or its model is gone: then nothing is predicted.
        configuration = None
    peaks, card = _measured(run), _card(run)
    sign = Sign(reason.code, str(reason.values.get("error", "")))
    return _explain(lines, sign, configuration, reason=reason, peaks=peaks, card=card)


def explain_log(
    path: Path, *, shape: ModelShape = MGM_2B, settings: MemorySettings | None = None
) -> Explanation | None:
    """Why the training behind a log died; None when no line says that it did.

    Args:
        path: What a training printed, the kit's included.
        shape: Sizes of its model.
        settings: Its configuration; None takes it from the kit's command line, where one is.

    Raises:
        InputError: The file is missing.
    """
    if not path.is_file():
        raise InputError("the file does not exist.", place=str(path))
    lines = tail(path)
    sign = death_sign(lines)
    if sign is None:
        return None
    configuration = None
    if settings is not None:
        configuration = ("finetune", settings, shape, SYNTHLOOP)
    elif (asked := kit_configuration(_command(path))) is not None:
        configuration = (*asked, shape, KIT)
    return _explain(lines, sign, configuration, shape=shape)


def _command(path: Path) -> str:
    """The first command line of the last training in a log; "" when there is none."""
    found, finished = "", False
    with path.open("rb") as file:
        for line in file:
            if b"--model_name_or_path " in line and (finished or not found):
                found, finished = line.decode(errors="replace"), False
            finished = finished or FINISHED.encode() in line
    return found


def tail(path: Path, size: int = TAIL_BYTES) -> list[str]:
    """The last attempt's lines in the last `size` bytes of a log."""
    return last_attempt(tail_lines(path, size))


def run_settings(run: Run) -> MemorySettings:
    """The settings of a training run, with the longest batch as far as the run measured it.

    Raises:
        UsageError: The stage does not train.
    """
    spec = run.spec
    parameters = dict(spec.parameters)
    settings = settings_of(str(parameters.get("trains", spec.stage)), parameters)
    path = run.artifacts / FILE
    known = read_json(path) if path.is_file() else {}
    changes = {
        name: known[name]
        for name in ("positions", "label_fraction", "images_per_sample")
        if isinstance(known.get(name), int | float)
    }
    return replace(settings, **changes)


Configuration = tuple[str, MemorySettings, ModelShape, Implementation]


def _explain(
    lines: Sequence[str],
    sign: Sign,
    configuration: Configuration | None,
    *,
    shape: ModelShape | None = None,
    reason: Reason | None = None,
    peaks: tuple[int | None, int | None] = (None, None),
    card: int | None = None,
) -> Explanation:
    trace = _deadly(traces(lines), sign.code)
    allocation, place = _recorded(reason)
    said = trace.error if trace else sign.line
    allocation = allocation or failed_allocation(said) or failed_allocation(sign.line)
    if place == NOWHERE and trace is not None:
        place = place_of(trace.frames)
    evidence = reason.evidence if reason else _around(lines, sign.line)
    explanation = Explanation(
        sign.code,
        sign.line,
        _plain(reason),
        allocation,
        place,
        measured=peaks[0],
        measured_host=peaks[1],
        evidence=tuple(evidence),
    )
    if sign.code not in (*MEMORY, "killed"):
        return explanation
    settings = configuration[1] if configuration else None
    shape = configuration[2] if configuration else shape
    if allocation is not None and allocation.on_device and shape is not None:
        tensor = recognized(allocation.asked, shape, place, settings)
        explanation = replace(explanation, tensor=tensor)
        if tensor is not None and tensor.code == "logits" and place.part is None:
            explanation = replace(explanation, place=replace(place, part="logits"))
    if configuration is None:
        return explanation
    first = trace is not None and any("lm_head(" in frame.source for frame in trace.frames)
    return _with_prediction(explanation, configuration, card, first_logits=first)


def _with_prediction(
    explanation: Explanation,
    configuration: Configuration,
    card: int | None,
    *,
    first_logits: bool,
) -> Explanation:
    stage, settings, shape, how = configuration
    prediction = predict(shape, settings, how=how)
    if explanation.code == "killed" and prediction.host < MUCH_HOST:
        return explanation
    moment = explanation.place.moment
    held = prediction.held[moment] if moment else None
    if explanation.tensor is not None and explanation.tensor.code == "logits":
        # Who asked for logits was at the loss, whatever the traceback leaves open.
        held = prediction.held["loss"]
    if explanation.code != "device_memory":
        held = None
    return replace(
        explanation,
        stage=stage,
        settings=settings,
        prediction=prediction,
        held=held,
        until_then=_until_then(explanation, held, configuration, first_logits=first_logits),
        ways=ways_out(stage, settings, shape, explanation, card),
    )


def _until_then(
    explanation: Explanation,
    held: dict[str, int] | None,
    configuration: Configuration,
    *,
    first_logits: bool,
) -> dict[str, int] | None:
    """What was there of `held` when the allocation failed: no more than torch says.

    Logits tell by their size how many positions the batch had; what was asked for is not there,
    nor are copies of the first logits.
    """
    if held is None:
        return None
    _, settings, shape, how = configuration
    allocation, moment, tensor = (
        explanation.allocation,
        explanation.place.moment,
        explanation.tensor,
    )
    if tensor is not None and tensor.code == "logits":
        moment = "loss"
        positions = tensor.values["positions"] // settings.micro_batch_size
        if not settings.loss_chunk and 0 < positions < settings.positions:
            held = predict(shape, replace(settings, positions=positions), how=how).held["loss"]
    there = dict(held)
    if tensor is not None and tensor.code == "logits" and allocation is not None:
        there["logits"] = 0 if first_logits else max(0, there["logits"] - allocation.asked)
    if allocation is None or allocation.allocated is None or moment is None:
        return there
    excess = sum(there.values()) - allocation.allocated
    for part in dict.fromkeys((*COMES_LAST[moment], *reversed(PARTS))):
        less = max(0, min(excess, there[part]))
        there[part] -= less
        excess -= less
    return there


def ways_out(
    stage: str,
    settings: MemorySettings,
    shape: ModelShape,
    explanation: Explanation,
    card: int | None = None,
) -> tuple[Option, ...]:
    """The best configurations that would have lived where this one died.

    Args:
        stage: `pretrain` or `finetune`.
        settings: How it was trained.
        shape: Sizes of the model.
        explanation: Of its death.
        card: Bytes of the device, where its size is known otherwise than from the death itself.
    """
    levers = tuple(one for one in LEVERS if stage != "pretrain" or "lora" not in one)
    allocation = explanation.allocation
    budget, host = card or USUAL_CARD, None
    if allocation is not None and allocation.total is not None:
        budget = allocation.total - allocation.by_others
        if allocation.limit is not None:
            budget = min(budget, box(allocation.limit))
    if explanation.code != "device_memory":
        host = round(LESS_HOST * predict(shape, settings).host)
    options = fit(shape, settings, budget, levers, host_budget=host)
    return tuple(option for option in options if option.levers)[:WAYS]


def _plain(reason: Reason | None) -> dict[str, Any]:
    """What fills the reason's sentence; where it was is said by sentences of its own."""
    own = ("moment", "module", "recomputed", "allocation")
    values = reason.values if reason else {}
    return {name: value for name, value in values.items() if name not in own}


def _deadly(found: Sequence[Trace], code: str) -> Trace | None:
    """The last traceback that ends in this cause; of other causes none."""
    return next(
        (
            trace
            for trace in reversed(found)
            if (sign := sign_of(trace.error)) is not None and sign.code == code
        ),
        None,
    )


def _recorded(reason: Reason | None) -> tuple[FailedAllocation | None, Place]:
    """What the stage itself noted when it died (`backend.memory.moments`)."""
    values = reason.values.get("allocation") if reason else None
    if reason is None or not isinstance(values, dict):
        return None, NOWHERE
    known = {name: values[name] for name in FailedAllocation.__dataclass_fields__ if name in values}
    if "others" in known:
        known["others"] = tuple((int(pid), int(size)) for pid, size in known["others"])
    place = Place(
        reason.values.get("moment"),
        reason.values.get("module"),
        bool(reason.values.get("recomputed")),
    )
    return (FailedAllocation(**known) if "asked" in known else None), place


def _measured(run: Run) -> tuple[int | None, int | None]:
    """Highest allocated device memory and highest main memory that the run told, bytes."""
    device = host = 0
    for row in read_lines(run.metrics_path):
        device = max(device, int(row.get("memory_allocated_peak") or 0))
        host = max(host, int(row.get("host_memory") or 0))
    for row in read_lines(run.gpu_path):
        host = max(host, int((row.get("process") or {}).get("rss") or 0))
    return device or None, host or None


def _card(run: Run) -> int | None:
    """Size of the smallest device that the run's readings show, bytes."""
    sizes = [
        int(device["total"])
        for row in read_lines(run.gpu_path)
        for device in row.get("devices") or ()
        if device.get("total")
    ]
    return min(sizes, default=None)


def _around(lines: Sequence[str], line: str) -> list[str]:
    """The line and what stands before it, or the last lines."""
    said = [text for text in lines if text.strip()]
    end = next((i + 1 for i in reversed(range(len(said))) if line and line in said[i]), len(said))
    return list(said[max(0, end - EVIDENCE) : end])


def _where(found: Explanation) -> list[Sentence]:
    place = found.place
    if place.moment is None and place.part is None:
        return [Sentence("death.where.unknown", {})] if found.code in MEMORY else []
    key = "death.where"
    values: dict[str, Any] = {}
    if place.moment is not None:
        values["moment"] = place.moment
        key += ".again" if place.again else ".moment"
    if place.part is not None:
        values["module"] = place.part
        key += ".module"
    return [Sentence(key, values)]


def _asked(found: Explanation) -> list[Sentence]:
    if found.allocation is None:
        return []
    size = amount(found.allocation.asked)
    if found.tensor is None:
        return [Sentence("death.asked", {"size": size})]
    values = dict(found.tensor.values)
    for name in ("positions", "vocabulary"):
        if name in values:
            values[name] = f"{values[name]:,}"
    return [Sentence(f"death.tensor.{found.tensor.code}", {"size": size, **values})]


def _room(found: Explanation) -> list[Sentence]:
    """Fragmentation, other processes, or a true need; and what torch had."""
    allocation = found.allocation
    if allocation is None or not allocation.on_device:
        return []
    said = []
    shown = {
        name: amount(value)
        for name in ("total", "free", "allocated", "unallocated", "limit")
        if (value := getattr(allocation, name)) is not None
    }
    if {"total", "free", "allocated", "unallocated"} <= shown.keys():
        key = "death.card.limited" if allocation.limit is not None else "death.card"
        said.append(Sentence(key, shown))
    if found.shortage is not None:
        values = {
            "missing": amount(allocation.missing or 0),
            "gaps": amount(allocation.unallocated or 0),
            "others": amount(allocation.by_others),
            "count": len(allocation.others),
        }
        said.append(Sentence(f"death.shortage.{found.shortage}", values))
    if allocation.by_others and found.shortage != "others" and not allocation.stopped_by_limit:
        values = {"others": amount(allocation.by_others), "count": len(allocation.others)}
        said.append(Sentence("death.others", values))
    return said


def _predicted(found: Explanation) -> list[Sentence]:
    prediction = found.prediction
    if prediction is None:
        return []
    if found.code == "device_memory":
        values: dict[str, Any] = {
            "predicted": gib(prediction.peak_allocated),
            "moment": prediction.peak_moment,
            "part": prediction.largest,
        }
        if found.measured is not None:
            key = "death.predicted.measured"
            values["measured"] = gib(found.measured)
        else:
            key = "death.predicted"
        return [Sentence(key, values)]
    values = {"predicted": gib(prediction.host)}
    if found.measured_host is None:
        return [Sentence("death.host", values)]
    return [Sentence("death.host.measured", {**values, "measured": gib(found.measured_host)})]


def explanation_text(found: Explanation, language: str = "en") -> str:
    """An explanation as lines for a terminal."""
    memory = found.code in MEMORY
    lines = [
        message(f"death.title.{found.code}", language) if memory else found.reason.say(language)
    ]
    lines += [sentence.say(language) for sentence in found.sentences()]
    if found.until_then:
        lines += ["", message("death.held", language)]
        for name, size in sorted(found.until_then.items(), key=lambda item: -item[1]):
            if size:
                lines.append(f"  {message(f'memory.part.{name}', language):<34}{gib(size):>7} GiB")
    if found.ways:
        lines += ["", message("death.ways", language)]
    elif found.settings is not None:
        lines += ["", message("death.ways.none", language)]
    for way in found.ways:
        lines.append("  " + way_words(way, language))
        changes = " ".join(f"-p {name}={value}" for name, value in found.parameters(way).items())
        lines.append(f"     {changes}")
    if found.ways or found.settings is None:
        lines += ["", Sentence(f"{found.reason.code}.remedy", found.reason.values).say(language)]
    if found.evidence:
        lines += ["", *(f"  | {line}" for line in found.evidence)]
    return "\n".join(lines)


def way_words(way: Option, language: str = "en") -> str:
    """A way out with its predicted peaks."""
    values = {
        "levers": option_title(way, language),
        "peak": gib(way.prediction.peak_allocated),
        "host": gib(way.prediction.host),
    }
    return message("death.way", language, **values)


def amount(size: int) -> str:
    """Bytes with a unit that suits them."""
    if size >= 1 << 30:
        return f"{gib(size)} GiB"
    return f"{size / (1 << 20):.4g} MiB" if size >= 1 << 20 else f"{size / 1024:.4g} KiB"
