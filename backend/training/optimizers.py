"""AdamW over weights of any precision: fp32, bf16 with an fp32 master, bf16 rounded at random.

The update rules are torch's and bitsandbytes' own. What is added here is only where the numbers
live: weights are updated bundle by bundle in fp32, so that what a step needs besides weights,
gradients and states is as large as one bundle, not as the model.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backend.errors import InputError

BUNDLE = 1 << 25
"""Values that are updated together; a multiple of the 8-bit optimizers' blocks."""
BETAS, EPS = (0.9, 0.999), 1e-8


class LeanAdamW:
    """AdamW (Loshchilov and Hutter, 2019) with betas 0.9 and 0.999.

    Args:
        parameters: What is trained, in a fixed order.
        kind: `adamw`; `adamw_bf16` keeps its states in bf16, rounded at random; `adamw_8bit`
            and `paged_adamw_8bit` keep them in 8 bits (Dettmers et al., "8-bit Optimizers via
            Block-wise Quantization", 2022), the latter in memory that moves to the host.
        precision: `fp32_master` keeps an fp32 copy of each bf16 weight; `bf16` rounds each
            updated weight to the nearest, `bf16_stochastic` up or down at random so that the
            expected update is exact. fp32 weights are updated as they are.
        weight_decay: Per unit of learning rate.
        seed: Of rounding at random. Processes that train together give the same one: their
            copies of the weights stay alike only when all round alike (cards of one kind do).

    Attributes:
        updates: Steps done. Their number and the seed decide what a step draws, so a run that
            goes on needs no more than the number.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        kind: str,
        precision: str,
        weight_decay: float,
        seed: int,
    ) -> None:
        self.parameters = list(parameters)
        self.seed, self.updates = seed, 0
        # Not torch's own stream: from that one, every process draws what it drops.
        self.noise = torch.Generator(self.parameters[0].device)
        self.bundles = [
            _Bundle(pieces, kind, precision, weight_decay, self.noise)
            for pieces in _bundles(self.parameters)
        ]

    def step(self, learning_rate: float) -> None:
        """Update the weights by their gradients, and let the gradients go."""
        # A checksum, so that the steps of neighboring seeds have nothing in common.
        self.noise.manual_seed(zlib.crc32(f"{self.seed} {self.updates}".encode()))
        self.updates += 1
        with torch.no_grad():
            for bundle in self.bundles:
                bundle.step(learning_rate)
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> list[dict[str, Any]]:
        """States and master copies, bundle by bundle."""
        return [bundle.state_dict() for bundle in self.bundles]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Continue from `state_dict` of the same weights in the same order.

        Raises:
            InputError: The states belong to other weights.
        """
        if len(states) != len(self.bundles):
            raise InputError(
                f"the states are of {len(states)} bundles where this model has "
                f"{len(self.bundles)}.",
                remedy="Resume with the parameters that the run started with.",
            )
        for bundle, state in zip(self.bundles, states, strict=True):
            bundle.load_state_dict(state)


class _Piece:
    """A stretch of one parameter's values."""

    def __init__(self, parameter: nn.Parameter, start: int, stop: int) -> None:
        self.parameter, self.start, self.stop = parameter, start, stop

    @property
    def values(self) -> Tensor:
        return self.parameter.data.view(-1)[self.start : self.stop]

    @property
    def gradient(self) -> Tensor | None:
        gradient = self.parameter.grad
        return None if gradient is None else gradient.reshape(-1)[self.start : self.stop]


def _bundles(parameters: Iterable[nn.Parameter]) -> list[list[_Piece]]:
    bundles: list[list[_Piece]] = [[]]
    room = BUNDLE
    for parameter in parameters:
        for start in range(0, parameter.numel(), BUNDLE):
            stop = min(start + BUNDLE, parameter.numel())
            if stop - start > room:
                bundles.append([])
                room = BUNDLE
            bundles[-1].append(_Piece(parameter, start, stop))
            room -= stop - start
    return [bundle for bundle in bundles if bundle]


class _Bundle:
    """Pieces with an optimizer of their own, over what stands for them in fp32."""

    def __init__(
        self,
        pieces: list[_Piece],
        kind: str,
        precision: str,
        weight_decay: float,
        noise: torch.Generator,
    ) -> None:
        self.pieces = pieces
        self.noise = noise
        self.stochastic = precision == "bf16_stochastic"
        self.narrow_states = kind == "adamw_bf16"
        self.direct = [piece.parameter.dtype == torch.float32 for piece in pieces]
        self.kept = precision == "fp32_master"
        self.masters = [
            nn.Parameter(self._master(piece, direct))
            for piece, direct in zip(pieces, self.direct, strict=True)
        ]
        self.inner = _make(kind, self.masters, weight_decay)

    def _master(self, piece: _Piece, direct: bool) -> Tensor:
        if direct:
            return piece.values
        return piece.values.float() if self.kept else piece.values.new_empty(0, dtype=torch.float32)

    def step(self, learning_rate: float) -> None:
        for piece, master, direct in zip(self.pieces, self.masters, self.direct, strict=True):
            gradient = piece.gradient
            if gradient is None:
                continue
            if not direct and not self.kept:
                master.data = piece.values.float()
            master.grad = gradient.to(master.dtype)
        self.inner.param_groups[0]["lr"] = learning_rate
        if self.narrow_states:
            self._cast_states(torch.float32)
        self.inner.step()
        if self.narrow_states:
            self._cast_states(torch.bfloat16)
        for piece, master, direct in zip(self.pieces, self.masters, self.direct, strict=True):
            if master.grad is None:
                continue
            master.grad = None
            if not direct:
                value = master.data
                piece.values.copy_(self._rounded(value) if self.stochastic else value)
                if not self.kept:
                    master.data = master.data.new_empty(0)

    def _cast_states(self, dtype: torch.dtype) -> None:
        for state in self.inner.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                wide = dtype == torch.float32
                state[name] = state[name].float() if wide else self._rounded(state[name])

    def _rounded(self, values: Tensor) -> Tensor:
        return round_at_random(values, self.noise)

    def state_dict(self) -> dict[str, Any]:
        states = [dict(self.inner.state.get(master, {})) for master in self.masters]
        return {"states": states, "masters": [m.data for m in self.masters] if self.kept else []}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        with torch.no_grad():
            for master, value in zip(self.masters, saved["masters"], strict=False):
                master.copy_(value)
        for index, (master, state) in enumerate(zip(self.masters, saved["states"], strict=True)):
            if state:
                self._load_state(index, master, state)

    def _load_state(self, index: int, master: nn.Parameter, saved: dict[str, Any]) -> None:
        start = getattr(self.inner, "init_state", None)
        if start is None:
            # Of torch's optimizers the step count stays on the host unless it is fused.
            self.inner.state[master] = {
                name: value.to(master.device) for name, value in saved.items()
            }
            return
        # bitsandbytes makes its states itself: paged ones must stay where it puts them.
        if not master.numel():
            master.data = self.pieces[index].values.float()
        start(self.inner.param_groups[0], master, 0, index)
        state = self.inner.state[master]
        for name, value in saved.items():
            if isinstance(value, Tensor):
                state[name].copy_(value)
            else:
                state[name] = value
        if not self.kept and not self.direct[index]:
            master.data = master.data.new_empty(0)


def _make(kind: str, masters: list[nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"betas": BETAS, "eps": EPS, "weight_decay": weight_decay}
    if kind in ("adamw", "adamw_bf16"):
        return torch.optim.AdamW(masters, fused=True, **settings)
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise InputError(
            f"the optimizer {kind} needs the package bitsandbytes: {error}.",
            place="optimizer",
            remedy="Install it on the Environment page, or choose adamw.",
        ) from error
    made = {"adamw_8bit": optim.AdamW8bit, "paged_adamw_8bit": optim.PagedAdamW8bit}[kind]
    optimizer: torch.optim.Optimizer = made(masters, **settings)
    return optimizer


def round_at_random(values: Tensor, noise_of: torch.Generator) -> Tensor:
    """fp32 to bf16, up or down with the probability that makes the expectation exact.

    Args:
        values: fp32.
        noise_of: Draws the noise; of the same device.
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.empty_like(bits).random_(0, 1 << 16, generator=noise_of)
    # bf16 is the upper half of fp32: a carry out of the lower half rounds up.
    return noise.add_(bits).bitwise_and_(-(1 << 16)).view(torch.float32).to(torch.bfloat16)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale all gradients down to a total norm of at most `limit` (0: leave them).

    Returns:
        The norm before, computed in fp32.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return 0.0
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    if limit:
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)
    return float(norm)
