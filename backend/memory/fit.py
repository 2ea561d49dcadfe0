"""Making a configuration fit: the levers, what each costs, and the best combinations of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from backend.memory.cards import usable
from backend.memory.parts import Prediction, Remedy
from backend.memory.predict import predict
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ModelShape
from backend.memory.speed import is_estimated, seconds_per_sample

Lever = Literal[
    "loss_chunk",
    "activation_checkpointing",
    "mining_checkpointing",
    "tower_chunk",
    "mlp_chunk",
    "micro_batch",
    "optimizer",
    "offload",
    "lora",
    "qlora",
]
LEVERS: tuple[Lever, ...] = (
    "loss_chunk",
    "activation_checkpointing",
    "mining_checkpointing",
    "tower_chunk",
    "mlp_chunk",
    "micro_batch",
    "optimizer",
    "offload",
    "lora",
    "qlora",
)
"""In the order of their cost; `memory.lever.<name>` names, `.cost` tells what one pays."""

Verdict = Literal["fits", "tight", "no"]
CHUNK, MLP_CHUNK = 256, 1024
SHOWN = 6
SQUEEZE = 0.05
"""Share of the card by which gaps may exceed it and still be squeezed out, perhaps."""
MARGIN = 0.08
"""Share of the card above which more headroom is worth nothing: the worst error so far."""
FIDELITY = {"exact": 1.0, "rounding": 0.9, "adapters": 0.55, "quantized": 0.45}
"""How much a person gives up against the recipe; ranks options beside their speed."""


@dataclass(frozen=True)
class Option:
    """One configuration that fits.

    Attributes:
        settings: The whole configuration.
        prediction: Its memory.
        headroom: Bytes left of what torch can have, after `peak_reserved`.
        speed: Samples a second relative to the fastest configuration considered, 0 to 1.
        levers: Levers pulled against the configuration asked about.
        exactness: How it differs from the recipe: `exact`, `rounding` of the optimizer's
            numbers, `adapters` instead of all weights, or `quantized` weights below them.
        estimated: Whether the speed rests on ratios that were not measured.
    """

    settings: MemorySettings
    prediction: Prediction
    headroom: int
    speed: float
    levers: tuple[Lever, ...]
    exactness: str
    estimated: bool

    @property
    def rank(self) -> float:
        """Speed, weighed by what is given up and by a margin that is too thin."""
        room = self.headroom + self.prediction.peak_reserved
        margin = min(1.0, self.headroom / (MARGIN * room))
        simple = 1 - 0.01 * len(self.levers)
        return self.speed * FIDELITY[self.exactness] * simple * (0.85 + 0.15 * margin)

    def changes(self, asked: MemorySettings) -> dict[str, Any]:
        """The fields that differ from the configuration asked about."""
        return differences(asked, self.settings)


def differences(before: MemorySettings, after: MemorySettings) -> dict[str, Any]:
    """Fields of `after` that differ from `before`."""
    return {name: value for name, value in vars(after).items() if value != getattr(before, name)}


def verdict(prediction: Prediction, budget: int) -> Verdict:
    """Whether it fits: surely, only if gaps between torch's blocks can be squeezed, or not."""
    room = usable(budget)
    if prediction.peak_reserved <= room:
        return "fits"
    squeezed = prediction.peak_reserved <= (1 + SQUEEZE) * room
    return "tight" if squeezed and prediction.peak_allocated <= room else "no"


def fit(
    shape: ModelShape,
    settings: MemorySettings,
    budget: int,
    allowed: Iterable[Lever] = LEVERS,
    *,
    host_budget: int | None = None,
    factor: float = 1.0,
) -> list[Option]:
    """The best configurations that fit, best first; empty when none does.

    Every combination of the allowed levers is predicted. Of those that fit, the fastest of each
    way to train (method and optimizer) stays.

    Args:
        shape: Sizes of the model.
        settings: The configuration asked about.
        budget: Bytes of device memory, as on the box.
        allowed: Levers that may be pulled.
        host_budget: Bytes of main memory; None does not look at it.
        factor: See `predict`.
    """
    allowed = tuple(allowed)
    best: dict[tuple[Any, ...], Option] = {}
    fastest = float("inf")
    for candidate in _candidates(settings, allowed):
        seconds = seconds_per_sample(candidate)
        fastest = min(fastest, seconds)
        prediction = predict(shape, candidate, factor=factor)
        if verdict(prediction, budget) != "fits":
            continue
        if host_budget is not None and prediction.host > host_budget:
            continue
        key = _way(candidate)
        option = _option(settings, candidate, prediction, budget, seconds)
        if key not in best or option.rank > best[key].rank:
            best[key] = option
    scaled = (replace(option, speed=option.speed * fastest) for option in best.values())
    return sorted(scaled, key=lambda option: -option.rank)[:SHOWN]


def _way(settings: MemorySettings) -> tuple[str, ...]:
    """What makes two configurations the same kind; few trained weights need no lean optimizer."""
    if settings.method != "full":
        return (settings.method,)
    return (settings.method, settings.optimizer, settings.precision, settings.offload)


def _option(
    asked: MemorySettings,
    candidate: MemorySettings,
    prediction: Prediction,
    budget: int,
    seconds: float,
) -> Option:
    return Option(
        settings=candidate,
        prediction=prediction,
        headroom=usable(budget) - prediction.peak_reserved,
        speed=1 / seconds,
        levers=pulled(asked, candidate),
        exactness=_exactness(asked, candidate),
        estimated=is_estimated(candidate),
    )


def pulled(asked: MemorySettings, candidate: MemorySettings) -> tuple[Lever, ...]:
    """Which levers lead from one configuration to the other."""
    changed = differences(asked, candidate)
    levers: set[Lever] = set()
    names: dict[str, Lever] = {
        "loss_chunk": "loss_chunk",
        "activation_checkpointing": "activation_checkpointing",
        "mining_checkpointing": "mining_checkpointing",
        "tower_chunk": "tower_chunk",
        "mlp_chunk": "mlp_chunk",
        "micro_batch_size": "micro_batch",
        "optimizer": "optimizer",
        "precision": "optimizer",
    }
    levers.update(lever for name, lever in names.items() if name in changed)
    if "offload" in changed:
        levers.add("offload" if candidate.offload != "none" else "optimizer")
    if "method" in changed:
        levers.add("qlora" if candidate.method == "qlora" else "lora")
    return tuple(lever for lever in LEVERS if lever in levers)


def _exactness(asked: MemorySettings, candidate: MemorySettings) -> str:
    if candidate.method != asked.method:
        return "quantized" if candidate.method == "qlora" else "adapters"
    same = candidate.optimizer == asked.optimizer and candidate.precision == asked.precision
    return "exact" if same else "rounding"


def _candidates(settings: MemorySettings, allowed: tuple[Lever, ...]) -> Iterator[MemorySettings]:
    """Every combination of the allowed levers."""

    def choices(lever: Lever, *values: Any, now: Any) -> list[Any]:
        return list(dict.fromkeys((now, *values))) if lever in allowed else [now]

    micro = choices(
        "micro_batch", *_smaller(settings.micro_batch_size), now=settings.micro_batch_size
    )
    combinations = product(
        choices("loss_chunk", CHUNK, now=settings.loss_chunk),
        choices("activation_checkpointing", True, now=settings.activation_checkpointing),
        choices("mining_checkpointing", True, now=settings.mining_checkpointing),
        choices("tower_chunk", 1, now=settings.tower_chunk),
        choices("mlp_chunk", MLP_CHUNK, now=settings.mlp_chunk),
        micro,
        _methods(settings, allowed),
        _updates(settings, allowed),
    )
    for loss, layers, mining, chunk, rows, size, method, update in combinations:
        accumulation = settings.gradient_accumulation * settings.micro_batch_size // size
        yield replace(
            settings,
            loss_chunk=loss,
            activation_checkpointing=layers,
            mining_checkpointing=mining,
            tower_chunk=chunk,
            mlp_chunk=rows,
            micro_batch_size=size,
            gradient_accumulation=accumulation,
            method=method,
            **update,
        )


def _smaller(size: int) -> list[int]:
    """Halves of a micro-batch, down to one."""
    return [size // 2**n for n in range(1, size.bit_length()) if size % 2**n == 0]


def _methods(settings: MemorySettings, allowed: tuple[Lever, ...]) -> list[str]:
    methods: list[str] = [settings.method]
    if settings.method == "full" and "lora" in allowed:
        methods.append("lora")
    if settings.method in ("full", "lora") and "qlora" in allowed:
        methods.append("qlora")
    return methods


def _updates(settings: MemorySettings, allowed: tuple[Lever, ...]) -> list[dict[str, Any]]:
    """Ways to hold and update the trained weights."""
    ways: list[dict[str, Any]] = [{}]
    if "optimizer" in allowed:
        ways += [
            {
                "optimizer": optimizer,
                "precision": "bf16_stochastic",
                "zero_stage": 0,
                "offload": "none",
            }
            for optimizer in ("adamw_bf16", "adamw_8bit", "paged_adamw_8bit")
        ]
        if settings.offload != "none" and settings.optimizer == "adamw":
            ways.append({"zero_stage": 0, "offload": "none"})
    if "offload" in allowed and settings.offload == "none":
        ways.append(
            {
                "optimizer": "adamw",
                "precision": "fp32_master",
                "zero_stage": max(2, settings.zero_stage),
                "offload": "optimizer",
            }
        )
    return ways


def remedies(
    shape: ModelShape, settings: MemorySettings, *, factor: float = 1.0
) -> tuple[Remedy, ...]:
    """Single levers that lower the peak, the cheapest for what they save first."""
    before = predict(shape, settings, factor=factor).peak_allocated
    found: list[Remedy] = []
    for lever in LEVERS:
        best: Remedy | None = None
        for candidate in _candidates(settings, (lever,)):
            saved = before - predict(shape, candidate, factor=factor).peak_allocated
            smaller = lever == "micro_batch" and best is not None
            if saved > before // 100 and not smaller and (best is None or saved > best.saved):
                best = Remedy(lever, differences(settings, candidate), saved)
        if best is not None:
            found.append(best)
    return tuple(found)
