"""Decoder layers through torch.compile, where there is a compiler."""

from __future__ import annotations

from collections.abc import Callable

import torch

from backend.mgm.modeling import MGMGemmaForCausalLM

RECOMPILATIONS = 64
"""Forms of one function: shapes, with and without gradients, with and without adapters."""


def compile_layers(
    model: MGMGemmaForCausalLM, device: torch.device, tell: Callable[..., None]
) -> None:
    """Fuse what the decoder layers do between their matrix products.

    Args:
        model: Changed in place, unless nothing can be compiled here.
        device: Where it runs.
        tell: Called with `compile_unavailable` and the reason when it stays as it is.
    """
    try:
        _try_out(device)
    except Exception as error:  # a missing compiler shows in as many ways as there are compilers
        lines = str(error).strip().splitlines() or [""]
        tell("compile_unavailable", error=f"{type(error).__name__}: {lines[0]}")
        return
    # A form that cannot be compiled runs as it is, and torch says so in the log.
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    model.model.compile_layers()


def left_as_they_are() -> int:
    """How many forms could not be compiled so far, and run as they are."""
    frames = torch._dynamo.utils.counters["frames"]
    return int(frames["total"] - frames["ok"])


def _try_out(device: torch.device) -> None:
    torch.compile(_small)(torch.ones(8, device=device))


def _small(values: torch.Tensor) -> torch.Tensor:
    return values * 2 + 1
