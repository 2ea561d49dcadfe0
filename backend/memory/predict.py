"""Predicted memory of a training step: a timeline of moments, and the worst of them.

Each moment of a step holds other things at once: the loss holds logits but (in plain training)
no gradients yet, the end of the backward pass holds all gradients but one layer's activations,
the optimizer holds no activations at all. The peak is the largest moment, never the sum.
"""

from __future__ import annotations

from backend.memory import costs
from backend.memory.costs import SYNTHLOOP, Implementation
from backend.memory.host import host_bytes
from backend.memory.parts import GIB, PARTS, STATIC, Moment, Prediction
from backend.memory.settings import MemorySettings
from backend.memory.shapes import ModelShape

CONTEXT = GIB // 2
"""CUDA context and kernels of one process (measured: about 0.5 GiB)."""
LEAST_GAPS, FULL_GAPS = 0.3 * GIB, 0.3 * GIB
LOGIT_GAPS, OTHER_GAPS, MOST_OTHER = 0.55, 0.2, 10 * GIB
"""What torch holds above the peak: never nothing, more when all weights have gradients; half of
what logits and their copies take (blocks so large fit into no other's place); and a fifth of what
else comes and goes, up to a size. Chosen from 71 jobs on an H100, of which nine held more: LoRA
with ZeRO-3 by 0.8 GiB, the others by at most 0.2."""
FLAT_COPIES, OFFLOADED_COPIES, OFFLOADED_COPIES_OF_ZERO_3 = 2.5, 0.5, 1.5
"""Flat copies of the trained weights in half precision that DeepSpeed makes and frees in pieces,
with states on the device and in main memory; from seven jobs."""

Bytes = dict[str, float]


def predict(
    shape: ModelShape,
    settings: MemorySettings,
    *,
    how: Implementation = SYNTHLOOP,
    factor: float = 1.0,
) -> Prediction:
    """Memory of one training step, per device.

    Args:
        shape: Sizes of the model.
        settings: How it is trained.
        how: The program that does it; other than this one's only to compare measurements.
        factor: Measured over predicted on this device, from its probes. It scales what grows
            with the batch; weights, gradients and states are known exactly.
    """
    timeline = _Timeline(shape, settings, how).moments()
    worst: dict[Moment, Bytes] = {
        name: max(points, key=lambda point: sum(point.values()))
        for name, points in timeline.items()
    }
    worst = {name: _corrected(point, factor) for name, point in worst.items()}
    moments: dict[Moment, int] = {name: round(sum(point.values())) for name, point in worst.items()}
    peak = max(moments, key=lambda name: moments[name])
    reserved = max(sum(point.values()) + _gaps(point, settings) for point in worst.values())
    if settings.zero_stage:
        reserved += _flat_copies(settings) * costs.HALF * costs.trained_parameters(shape, settings)
    parts = {name: round(worst[peak].get(name, 0.0)) for name in PARTS}
    parts["context"] = CONTEXT
    allocated = sum(parts[name] for name in PARTS) - CONTEXT
    return Prediction(
        parts=parts,
        moments=moments,
        peak_moment=peak,
        peak_allocated=allocated,
        peak_reserved=max(allocated, round(reserved)),
        host=round(host_bytes(shape, settings)),
        factor=factor,
        held={
            name: {part: round(point.get(part, 0.0)) for part in PARTS}
            for name, point in worst.items()
        },
    )


def _flat_copies(settings: MemorySettings) -> float:
    if settings.offload == "none":
        return FLAT_COPIES
    return OFFLOADED_COPIES_OF_ZERO_3 if settings.zero_stage == 3 else OFFLOADED_COPIES


def _gaps(point: Bytes, settings: MemorySettings) -> float:
    """What lies between torch's blocks at a point of the step."""
    logits = point.get("logits", 0.0)
    others = sum(value for name, value in point.items() if name not in (*STATIC, "logits"))
    least = LEAST_GAPS + (FULL_GAPS if settings.method == "full" else 0.0)
    return least + LOGIT_GAPS * logits + OTHER_GAPS * min(others, MOST_OTHER)


def _corrected(point: Bytes, factor: float) -> Bytes:
    return {name: value * (1.0 if name in STATIC else factor) for name, value in point.items()}


class _Timeline:
    """The points of a step at which memory can be at its highest."""

    def __init__(self, shape: ModelShape, settings: MemorySettings, how: Implementation):
        self.shape, self.settings, self.how = shape, settings, how
        self.layers = shape.language.layers
        self.gradients = costs.gradient_bytes(shape, settings, how)
        self.vision = costs.vision_bytes(shape, settings, how)
        self.full = settings.method == "full"
        # DeepSpeed watches every gradient, so it is made as a tensor of its own.
        self.in_place = how.in_place and not settings.zero_stage
        width = costs.FULL if settings.precision == "fp32" else costs.HALF
        self.head_gradient = float(shape.language.embedding_parameters * width) if self.full else 0
        self.held_weights = costs.weight_bytes(shape, settings, how)
        self.base = self._base()

    def _base(self) -> Bytes:
        """What is there all the time, on one device."""
        settings, shape = self.settings, self.shape
        weights = self.held_weights
        # A paged state is touched in the optimizer step alone; torch does not count it.
        optimizer, _ = costs.optimizer_bytes(shape, settings, self.how)
        if settings.zero_stage:
            # DeepSpeed updates an fp32 master, whatever the optimizer's states are.
            if settings.precision not in ("fp32_master", "fp32"):
                optimizer += costs.FULL * costs.trained_parameters(shape, settings)
            optimizer /= settings.devices
            if settings.offload != "none":
                optimizer = 0.0
        if settings.zero_stage == 3:
            weights = min(weights, self._own_weights(weights) + self._gathered)
        base = {"weights": weights, "optimizer": optimizer}
        base["temporary"] = settings.images * self.vision.pixels
        return base

    def _own_weights(self, weights: float) -> float:
        """What a process of ZeRO-3 keeps on the device of these weights."""
        settings = self.settings
        return 0.0 if settings.offload == "optimizer_parameters" else weights / settings.devices

    @property
    def _gathered(self) -> float:
        """Weights that ZeRO-3 gathers from other processes, or from the host, for their use."""
        layer = self.shape.language.linear_parameters / self.layers
        return costs.HALF * (costs.MAX_LIVE + costs.PREFETCH + layer)

    def _gradients(self, share: float) -> float:
        """Gradients on the device when this share of the backward pass is done."""
        settings = self.settings
        if settings.zero_stage:
            return self._own_gradients + self._buckets
        carried = settings.gradient_accumulation > 1
        return self.gradients if carried else self.gradients * share

    @property
    def _own_gradients(self) -> float:
        """What a process of ZeRO keeps on the device, all devices' gradients added up."""
        settings = self.settings
        if settings.zero_stage == 1:
            return self.gradients
        return 0.0 if settings.offload != "none" else self.gradients / settings.devices

    @property
    def _buckets(self) -> float:
        """Where ZeRO adds gradients up: two in turn, of which ZeRO-3 has one."""
        count = 1 if self.settings.zero_stage == 3 else 2
        return float(count * costs.HALF * min(costs.BUCKET, self.gradients / costs.HALF))

    def _point(self, gradients: float = 0.0, **more: float) -> Bytes:
        """A point of the timeline: what is always there, gradients, and more."""
        point = dict(self.base)
        point["gradients"] = self._gradients(gradients)
        for name, value in more.items():
            point[name] = point.get(name, 0.0) + value
        return point

    def moments(self) -> dict[Moment, list[Bytes]]:
        """Every moment's candidates for its worst point."""
        return {
            "loading": [self._loading()],
            "vision": self._vision_forward(),
            "forward": [self._forward_end()],
            "loss": self._loss(),
            "backward": self._backward(),
            "optimizer": [self._optimizer()],
        }

    def _loading(self) -> Bytes:
        """All weights in bf16; QLoRA packs them afterwards, where they are."""
        weights = float(costs.HALF * self.shape.parameters)
        if self.how.untied_loading:
            weights += costs.HALF * self.shape.language.embedding_parameters
        packing = self._one_linear if self.settings.method == "qlora" else 0.0
        trained = costs.trained_parameters(self.shape, self.settings)
        if self.settings.zero_stage and self.settings.offload != "optimizer_parameters":
            packing += costs.HALF * trained
        if self.settings.zero_stage and self.settings.offload == "none":
            packing += (costs.HALF + costs.FULL) * trained / self.settings.devices
        return {"weights": weights, "temporary": packing}

    @property
    def _one_linear(self) -> float:
        """The largest linear layer of the language model in bf16."""
        return float(costs.HALF * max(i * o for i, o in self.shape.language.linear_inputs_outputs))

    @property
    def _cast(self) -> float:
        """Copies in bf16 that autocast keeps of the fp32 weights in one decoder layer."""
        if self.settings.precision != "fp32":
            return 0.0
        adapted = self.shape.language.adapted(self.settings.lora_targets)
        rank = self.settings.lora_rank
        values = sum(
            i * o if self.full else rank * (i + o)
            for i, o in (self.shape.language.linear_inputs_outputs if self.full else adapted)
        )
        return float(costs.HALF * values) if self.settings.method != "projector" else 0.0

    @property
    def _cast_head(self) -> float:
        """The output layer in bf16, made anew where it is used."""
        wide = self.settings.precision == "fp32" and self.full
        return float(costs.HALF * self.shape.language.embedding_parameters) if wide else 0.0

    @property
    def _chunk(self) -> int:
        """Pictures that pass the towers at once."""
        return min(self.settings.tower_chunk or self.settings.images, self.settings.images)

    def _vision_forward(self) -> list[Bytes]:
        """The last chunk of pictures passes the towers; the others are kept already."""
        vision, chunk = self.vision, self._chunk
        kept = (self.settings.images - chunk) * vision.kept
        return [self._point(vision=kept, temporary=chunk * vision.forward)]

    @property
    def _kept_vision(self) -> float:
        return self.settings.images * self.vision.kept

    @property
    def _per_token(self) -> tuple[float, float]:
        """Bytes of a token that each half of a decoder layer keeps until the backward pass."""
        shape, settings, how = self.shape, self.settings, self.how
        one = costs.checkpoint_bytes_per_token(shape, settings)
        first = costs.attention_bytes_per_token(shape, settings, how)
        second = costs.mlp_bytes_per_token(shape, settings, how)
        if settings.activation_checkpointing:
            return one, one if settings.mlp_chunk else 0.0
        return first, one if settings.mlp_chunk else second

    @property
    def _kept_layers(self) -> float:
        casts = 0.0 if self.settings.activation_checkpointing else self.layers * self._cast
        return self.layers * self.settings.tokens * sum(self._per_token) + casts

    @property
    def _head(self) -> float:
        return self.settings.tokens * costs.head_bytes_per_token(self.shape)

    def _again(self) -> tuple[float, float]:
        """One layer in its backward pass: (what is computed again, gradients beside it).

        With the MLP in chunks its halves are computed again one after the other, and of the
        second a chunk at a time.
        """
        shape, settings, how = self.shape, self.settings, self.how
        first = settings.tokens * costs.attention_bytes_per_token(shape, settings, how)
        rows = min(settings.mlp_chunk or settings.tokens, settings.tokens)
        second = rows * costs.mlp_bytes_per_token(shape, settings, how)
        slopes = rows * costs.layer_backward_temporary(shape, settings, how)
        # The layer's own gradient, and two of its width on their way.
        flow = 3 * settings.tokens * costs.HALF * shape.language.hidden
        again = self._cast if settings.activation_checkpointing else 0.0
        if settings.mlp_chunk:
            half = second + slopes
            if settings.activation_checkpointing:
                half = max(half, first + flow)
            return again + half, flow
        if settings.activation_checkpointing:
            again += first + second
        return again, slopes + flow / 3

    def _forward_end(self) -> Bytes:
        """The last layer is done: everything kept, and a layer's own temporaries."""
        settings = self.settings
        one = 0.0
        if settings.activation_checkpointing or settings.mlp_chunk:
            rows = min(settings.mlp_chunk or settings.tokens, settings.tokens)
            one = rows * costs.layer_forward_temporary(self.shape)
        casts = self._cast * self.layers
        return self._point(
            vision=self._kept_vision,
            activations=self._kept_layers + one,
            temporary=casts if settings.activation_checkpointing else 0.0,
        )

    def _loss(self) -> list[Bytes]:
        """Logits, their copies and their gradient: before and after the backward pass begins."""
        settings = self.settings
        logits = costs.logits_bytes(self.shape, settings, self.how)
        kept = {"vision": self._kept_vision, "activations": self._kept_layers + self._head}
        casts = self._cast * self.layers if settings.activation_checkpointing else 0.0
        share = self.head_gradient / self.gradients
        first = self._point(0.0, temporary=self._cast_head + casts, logits=logits, **kept)
        if settings.loss_chunk:
            # The matrix's gradient grows chunk by chunk.
            one_more = 0.0 if self.in_place else self.head_gradient
            if settings.zero_stage > 1:
                # Its sum is not among the gradients before it is added up with other devices'.
                one_more += self.head_gradient
            slopes = logits * min(1.0, 8 / self.how.chunk_bytes)
        else:
            one_more = self.head_gradient
            slopes = settings.tokens * self.shape.language.vocabulary * costs.HALF
        carried = settings.gradient_accumulation > 1 or settings.zero_stage > 0
        if not settings.loss_chunk and not carried:
            one_more = 0.0
        second = self._point(share, temporary=self._cast_head + one_more, logits=slopes, **kept)
        return [first, second]

    def _backward(self) -> list[Bytes]:
        """Its first layer, its last layer, the embedding, and the mining block."""
        settings = self.settings
        again, slopes = self._again()
        if settings.method == "qlora":
            slopes += self._one_linear
        if self.full:
            # The gradient of one matrix before it is added; with the MLP in portions those of
            # its three matrices, each summed over the portions first.
            count = 3 if settings.mlp_chunk else 1
            slopes += count * self._one_linear * (2 if settings.precision == "fp32" else 1)
        kept = self._kept_layers
        one_layer = kept / self.layers
        embedding = 0.0 if self.in_place else self.head_gradient
        return [
            self._point(
                self.head_gradient / self.gradients,
                vision=self._kept_vision,
                activations=kept + again,
                temporary=slopes,
            ),
            self._point(
                self._before_first_layer,
                vision=self._kept_vision,
                activations=one_layer + again,
                temporary=slopes,
            ),
            self._point(
                1.0,
                vision=self._kept_vision,
                temporary=embedding,
            ),
            self._point(
                1.0,
                vision=self._kept_vision,
                temporary=self._chunk * self.vision.backward,
            ),
        ]

    @property
    def _before_first_layer(self) -> float:
        """Share of the gradients that are there when the model's first layer needs most: those of
        its own matrices and of the projector come later.
        """
        language = self.shape.language
        later = float(self.shape.projector_parameters)
        if self.full:
            later += language.linear_parameters / self.layers
        width = costs.FULL if self.settings.precision == "fp32" else costs.HALF
        return max(0.0, 1 - width * later / self.gradients)

    def _optimizer(self) -> Bytes:
        """No activations; an update in fp32 of what is updated at once."""
        point = self._point(1.0)
        if self.settings.zero_stage in (1, 2):
            point["gradients"] = self._own_gradients
        if self.settings.zero_stage == 3:
            point["weights"] = self._own_weights(self.held_weights)
        point["temporary"] = 0.0
        if self.settings.offload == "none":
            point["temporary"] = costs.update_bytes(self.shape, self.settings)
        return point
