"""A training step of the real code on tensors without values, its memory counted byte by byte.

Everything runs on torch's `meta` device: shapes are computed, storages have sizes, nothing is
stored. What a GPU's kernels need inside (workspaces) is not seen; attention, which `meta` would
compute step by step, is told what FlashAttention keeps. Optimizers are not run: their update is
in closed form in `backend.memory.costs`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import CLIPVisionConfig

from backend.memory.settings import MemorySettings
from backend.memory.shapes import ModelShape
from backend.mgm import adapters
from backend.mgm.assembly import empty_model
from backend.mgm.configuration import MGMConfig
from backend.mgm.convnext import ConvNextConfig
from backend.mgm.multimodal import IGNORE, IMAGE_TOKEN
from backend.training.engine import LossModel
from backend.training.model import STAGE_OF_METHOD
from backend.training.parameters import TrainingParameters

META = torch.device("meta")


class Counter(TorchDispatchMode):
    """Counts the bytes of living storages on the `meta` device."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.moment = "start"
        self.peaks: dict[str, int] = {}
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self.add(value)
        return result

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once."""
        if tensor.device.type != "meta":
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._seen:
            return
        size = -(-storage.nbytes() // 512) * 512
        self._seen[key] = weakref.ref(storage, lambda _: self._drop(key, size))
        self.now += size
        self.peaks[self.moment] = max(self.peaks.get(self.moment, 0), self.now)

    def _drop(self, key: int, size: int) -> None:
        self.now -= size
        del self._seen[key]

    def enter(self, moment: str) -> None:
        """From now on peaks belong to this moment."""
        self.moment = moment
        self.peaks[moment] = max(self.peaks.get(moment, 0), self.now)


class _Flash(torch.autograd.Function):
    """What FlashAttention keeps: its inputs, its output, and one number a row and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # The kernels write rows of all heads, so the heads are joined again without a copy.
        batch, heads, length, size = query.shape
        out = query.new_empty((batch, length, heads, size)).transpose(1, 2)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        wide = query.new_empty(query.shape, dtype=torch.float32)
        del wide
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Attention as FlashAttention does it, and no autocast, which `meta` does not know."""
    attention, autocast = functional.scaled_dot_product_attention, torch.is_autocast_enabled
    plain_dropout = functional.dropout

    def flash(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return _Flash.apply(query, key, value)

    def dropout(values: Tensor, p: float = 0.5, training: bool = True, *_: Any) -> Tensor:
        return torch.native_dropout(values, p, training)[0]

    functional.scaled_dot_product_attention = flash
    functional.dropout = dropout
    torch.is_autocast_enabled = lambda *_: False
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attention
        functional.dropout = plain_dropout
        torch.is_autocast_enabled = autocast


def make_model(shape: ModelShape, settings: MemorySettings) -> Any:
    """The model of these sizes, in bf16 on `meta`, ready to train."""
    language, clip = shape.language, shape.clip
    size = settings.image_size_aux or shape.image_aux
    config = MGMConfig(
        vocab_size=language.vocabulary,
        hidden_size=language.hidden,
        num_hidden_layers=language.layers,
        intermediate_size=language.intermediate,
        num_attention_heads=language.heads,
        num_key_value_heads=language.key_value_heads,
        head_dim=language.head_dim,
        hidden_act="gelu",
        image_size_aux=size,
        image_grid=settings.image_grid,
        image_global=settings.image_global,
        tokenizer_model_max_length=1 << 20,
        dtype=torch.bfloat16,
    )
    config.set_towers(
        CLIPVisionConfig(
            hidden_size=clip.hidden,
            intermediate_size=clip.intermediate,
            num_hidden_layers=clip.layers,
            num_attention_heads=clip.heads,
            image_size=clip.image,
            patch_size=clip.patch,
        ),
        ConvNextConfig(shape.convnext.depths, shape.convnext.dims),
    )
    attention = "sdpa" if settings.attention == "auto" else settings.attention
    model = empty_model(config, attention=attention).to(torch.bfloat16)
    model.to(META)
    model.tie_weights()
    if settings.adapters:
        adapters.inject(
            model,
            adapters.Lora(settings.lora_rank, 16, settings.lora_dropout, settings.lora_targets),
        )
    model.select_trainable(STAGE_OF_METHOD[settings.method])
    model.set_activation_checkpointing(settings.activation_checkpointing)
    inner = model.model
    inner.mining_checkpointing = settings.mining_checkpointing
    inner.tower_chunk = settings.tower_chunk
    inner.mlp_chunk = settings.mlp_chunk
    return model.train()


def make_batch(shape: ModelShape, settings: MemorySettings) -> dict[str, Tensor]:
    """A micro-batch whose rows are all as long as allowed; ids and labels lie on the host."""
    rows = settings.micro_batch_size
    pictures = settings.views * shape.image_tokens * settings.images_per_sample
    text = settings.positions - pictures
    ids = torch.randint(5, 100, (rows, text + settings.images_per_sample))
    ids[:, : settings.images_per_sample] = IMAGE_TOKEN
    labels = torch.full_like(ids, IGNORE)
    labeled = max(1, round(settings.label_fraction * settings.positions))
    labels[:, -labeled:] = 7
    low = (settings.images, 3, shape.clip.image, shape.clip.image)
    if settings.views > 1:
        low = (settings.images, settings.views, *low[1:])
    side = settings.image_size_aux or shape.image_aux
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": torch.ones_like(ids),
        "images": torch.empty(low, device=META),
        "images_aux": torch.empty((settings.images, 3, side, side), device=META),
    }


def simulate(shape: ModelShape, settings: MemorySettings) -> dict[str, int]:
    """Peak bytes of each moment of the second micro-batch of a step, optimizer states left out."""
    model = make_model(shape, settings)
    parameters = TrainingParameters(
        loss_chunk=settings.loss_chunk, micro_batch_size=settings.micro_batch_size
    )
    loss_model = LossModel(model, parameters, META, in_place=True)
    counter = Counter()
    for value in [*model.parameters(), *model.buffers()]:
        counter.add(value)
    counter.peaks = {"weights": counter.now}
    with counter, _as_on_a_gpu():
        for _ in range(1 if settings.gradient_accumulation == 1 else 2):
            batch = make_batch(shape, settings)
            for name in ("images", "images_aux"):
                counter.add(batch[name])
            counter.peaks = {"weights": counter.peaks["weights"]}
            watch = _moments(model, counter)
            counter.enter("vision")
            loss = loss_model(**batch)
            loss.total.backward()
            counter.enter("vision")
            watch()
            del loss
    counter.peaks["end"] = counter.now
    return counter.peaks


def _moments(model: nn.Module, counter: Counter) -> Any:
    """Let the counter know what the step is about to do; returns what undoes it."""
    inner = model.model
    decode, tokens = inner.decode, inner._tokens

    def decoded(*arguments: Any) -> Tensor:
        counter.enter("forward")
        value: Tensor = decode(*arguments)
        counter.enter("loss")
        counter.peaks["kept"] = counter.now
        value.register_hook(lambda _: counter.enter("backward"))
        return value

    def mined(*arguments: Any) -> Tensor:
        if counter.moment == "backward":
            counter.enter("mining")
        value: Tensor = tokens(*arguments)
        return value

    inner.decode, inner._tokens = decoded, mined

    def undo() -> None:
        inner.decode, inner._tokens = decode, tokens

    return undo
