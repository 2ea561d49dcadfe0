"""Closed forms against what autograd really keeps, counted tensor by tensor on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM

from backend.memory.costs import layer_bytes_per_token, vision_bytes
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ClipShape, ConvNextShape, LanguageShape, ModelShape
from backend.mgm.mining import KeyProjection, QueryProjection, ValueProjection, join_maps, mine
from backend.mgm.projector import mm_projector

POSITIONS, ROWS = 64, 2
SHAPE = ModelShape(
    language=LanguageShape(512, 128, 2, 1024, 4, 1, 32),
    clip=ClipShape(64, 128, 2, 2, 56, 14),
    convnext=ConvNextShape((16, 32, 64, 128), (1, 1, 1, 1)),
    image_aux=128,
)


def kept_bytes(run: Callable[[], object], ignored: list[torch.Tensor]) -> int:
    """Bytes of the distinct storages that autograd keeps while `run` computes."""
    known = {tensor.untyped_storage().data_ptr() for tensor in ignored}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def decoder(layers: int, method: str) -> GemmaForCausalLM:
    language = SHAPE.language
    config = GemmaConfig(
        vocab_size=language.vocabulary,
        hidden_size=language.hidden,
        intermediate_size=language.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=language.heads,
        num_key_value_heads=language.key_value_heads,
        head_dim=language.head_dim,
        attn_implementation="sdpa",
    )
    model = GemmaForCausalLM(config).to(torch.bfloat16)
    model.requires_grad_(method == "full")
    if method == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        settings = LoraConfig(
            r=8, lora_dropout=0.05, target_modules=r"model\.layers\.\d+\.(self_attn|mlp)\..*_proj"
        )
        inject_adapter_in_model(settings, model)
        model.to(torch.bfloat16)
    return model.train()


def layer_kept(method: str) -> float:
    """Bytes that one more layer keeps, for one token."""

    def of(layers: int) -> int:
        torch.manual_seed(0)
        model = decoder(layers, method)
        embeddings = torch.randn(ROWS, POSITIONS, SHAPE.language.hidden, dtype=torch.bfloat16)
        embeddings.requires_grad_()
        ignored = [*model.parameters(), *model.buffers()]
        return kept_bytes(
            lambda: model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state,
            ignored,
        )

    return (of(3) - of(2)) / (ROWS * POSITIONS)


@pytest.mark.parametrize("method", ["full", "projector", "lora"])
def test_a_decoder_layer_keeps_what_is_predicted(method: str):
    settings = MemorySettings(
        method=method, positions=POSITIONS, micro_batch_size=ROWS, lora_rank=8, lora_dropout=0.05
    )
    predicted = layer_bytes_per_token(SHAPE, settings)
    if method == "lora":
        # The mask of dropout takes one byte on a GPU, and the input's two on a CPU.
        predicted += sum(inputs for inputs, _ in SHAPE.language.linear_inputs_outputs)
    assert predicted == pytest.approx(layer_kept(method), rel=0.04)


def test_the_mining_block_keeps_what_is_predicted():
    width, channels = SHAPE.clip.hidden, SHAPE.convnext.channels
    side, tokens = SHAPE.image_aux // 4, SHAPE.image_tokens
    query, key = QueryProjection(width), KeyProjection(channels, width)
    value, projector = (
        ValueProjection(channels, width),
        mm_projector("mlp2x_gelu", width, SHAPE.language.hidden),
    )
    parts = [part.to(torch.bfloat16) for part in (query, key, value, projector)]
    low = torch.randn(1, tokens, width, dtype=torch.bfloat16)
    maps = [
        torch.randn(1, dim, side // 2**stage, side // 2**stage, dtype=torch.bfloat16)
        for stage, dim in enumerate(SHAPE.convnext.dims)
    ]
    ignored = [parameter for part in parts for parameter in part.parameters()]

    def run() -> torch.Tensor:
        mined: torch.Tensor = low + mine(low, join_maps(maps), query, key, value)
        tokens_out: torch.Tensor = projector(mined)
        return tokens_out

    kept = kept_bytes(run, ignored)
    predicted = vision_bytes(SHAPE, MemorySettings()).kept
    assert predicted == pytest.approx(kept, rel=0.05)
