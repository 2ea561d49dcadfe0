"""The language model's linear layers in four bits (NF4), for adapters on a small card."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from backend.errors import InputError, UsageError
from backend.mgm.modeling import MGMGemmaForCausalLM

KINDS = ("nf4",)


def quantize_language_model(model: MGMGemmaForCausalLM, kind: str) -> None:
    """Replace every linear layer of the decoder by its NF4 form, in place.

    Embeddings, norms, towers, projector and mining layers keep their dtype, which is also the
    one that the quantized layers compute in. Scales are quantized once more (Dettmers et al.,
    "QLoRA", 2023).

    Args:
        model: On its final device: quantization happens where the weights are.
        kind: `nf4`.

    Raises:
        UsageError: The kind is unknown.
        InputError: bitsandbytes is not installed.
    """
    if kind not in KINDS:
        raise UsageError(f"the quantization {kind!r} is not one of {', '.join(KINDS)}.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "quantization needs the package bitsandbytes, which is not installed.",
            place="bitsandbytes",
            remedy="Install it on the Environment page, or train without quantization.",
        )
    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, module in list(block.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(block, name, _quantized(module))


def _quantized(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight = linear.weight
    layer: Any = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    values = Params4bit(
        weight.data,
        requires_grad=False,
        compress_statistics=True,
        quant_type="nf4",
        module=layer,
    )
    # Moving to a device is what packs the values, also where they are already there.
    layer.weight = values._quantize(weight.device)
    if linear.bias is not None:
        layer.bias = linear.bias
    # On CPUs evaluation would repack the weights into a form that takes only multiples of 32 rows
    # and has no gradient: a backward pass after it loses the gradient without a word.
    layer.support_avx512bf16_for_cpu = False
    module: nn.Module = layer
    return module


def is_quantized(model: nn.Module) -> bool:
    """Whether any parameter holds packed integers."""
    return any(parameter.dtype in (torch.uint8, torch.int8) for parameter in model.parameters())
