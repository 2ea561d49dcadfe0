"""From a traceback to where in a training step it happened: which moment, which part."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backend.memory.parts import Moment

RANK = re.compile(r"^(\[rank\d+\]:|\[default\d+\]:|\d+:|[\w.-]+: (?=\s|\[rank|Traceback)) ?")
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<name>\S.*)$')
_ERROR = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit)\b")
_MENTIONED = ("Exception ignored in", "--- Logging error ---")
_MARKS = re.compile(r"^\s*[\^~]+[\^~\s]*$")


class Frame(NamedTuple):
    """A line of a traceback; `source` is the line of code that ran, where it is known."""

    file: str
    name: str
    source: str = ""


@dataclass(frozen=True)
class Trace:
    """A traceback, outermost frame first, and the error that it ends in."""

    frames: tuple[Frame, ...]
    error: str


@dataclass(frozen=True)
class Place:
    """Where in the training a traceback points; None where nothing tells.

    Attributes:
        moment: Of the step.
        part: Key below `death.module.`.
        again: Whether a forward pass was computed again inside the backward pass.
    """

    moment: Moment | None = None
    part: str | None = None
    again: bool = False


NOWHERE = Place()
"""What is said of a place that nothing tells."""


def _rule(file: str, name: str = "", source: str = "") -> tuple[re.Pattern[str], ...]:
    return re.compile(file), re.compile(name), re.compile(source)


# The outermost frame that matches tells what the step was about to do.
_MOMENTS: tuple[tuple[Moment, tuple[re.Pattern[str], ...]], ...] = (
    ("backward", _rule(r"torch/(_tensor|autograd/__init__)\.py$", r"^backward$")),
    ("backward", _rule(r"deepspeed/runtime/.*\.py$", r"backward|reduce_|_epilogue|average_tensor")),
    ("backward", _rule(r"training/engine\w*\.py$", r"^micro_batch$", r"\.backward\(")),
    ("backward", _rule(r"accelerate/accelerator\.py$", r"^backward$")),
    ("optimizer", _rule(r"torch/optim/.*\.py$")),
    ("optimizer", _rule(r"bitsandbytes/optim/.*\.py$")),
    ("optimizer", _rule(r"deepspeed/ops/(adam|lion)/.*\.py$", r"^step$")),
    (
        "optimizer",
        _rule(r"deepspeed/runtime/.*\.py$", r"^(_take_model_step|step|_optimizer_step)$"),
    ),
    ("optimizer", _rule(r"training/optimizers\.py$", r"step|clip_gradients|round_at_random")),
    ("optimizer", _rule(r"training/engine\w*\.py$", r"^step$")),
    # DeepSpeed makes its fp32 copies and states when it starts: they are the optimizer's.
    ("optimizer", _rule(r"deepspeed/runtime/zero/.*\.py$", r"^(__init__|initialize_optimizer)")),
    ("optimizer", _rule(r"training/optimizers\.py$", r"_master|__init__")),
    ("loading", _rule(r"training/model\.py$", r"^build$")),
    ("loading", _rule(r"mgm/(checkpoints|assembly|towers|weights|quantization)\.py$")),
    ("loading", _rule(r"mgm/model/(builder|mgm_arch)\.py$", r"load_pretrained|initialize_")),
    ("loading", _rule(r"transformers/modeling_utils\.py$", r"from_pretrained|_load_")),
    ("loading", _rule(r"transformers/trainer\.py$", r"^(_move_model_to_device|_wrap_model)$")),
    ("loading", _rule(r"torch/nn/modules/module\.py$", r"^(_apply|to|cuda|convert)$")),
    ("loading", _rule(r"(torch/serialization|safetensors/\w+)\.py$")),
    ("vision", _rule(r"mgm/(decoder|convnext|vision|mining)\.py$", r"encode|tower|mine|resize")),
    ("vision", _rule(r"multimodal_encoder/.*\.py$")),
    ("vision", _rule(r"mgm_arch\.py$", r"encode_images|unified_resampler|prepare_inputs")),
    ("vision", _rule(r"clip/modeling_clip\.py$")),
    ("loss", _rule(r"training/loss\.py$")),
    ("loss", _rule(r"", r"", r"cross_entropy\(|loss_fct\(|self\.lm_head\(|logits\.float\(\)")),
    ("loss", _rule(r"transformers/loss/.*\.py$")),
    ("loss", _rule(r"torch/nn/functional\.py$", r"^(cross_entropy|nll_loss|log_softmax)$")),
    ("forward", _rule(r"gemma/modeling_gemma\.py$")),
    ("forward", _rule(r"(mgm_gemma|mgm/modeling|mgm/decoder)\.py$", r"^(forward|embed_batch)$")),
    ("forward", _rule(r"(training/engine\w*|deepspeed/runtime/engine)\.py$", r"^forward$")),
)
_BEFORE = ("loading", "optimizer", "backward")
"""Moments that whatever happens inside them belongs to."""

# The innermost frame that matches tells which part of the model it was.
_PARTS: tuple[tuple[str, tuple[re.Pattern[str], ...]], ...] = (
    ("logits", _rule(r"training/loss\.py$")),
    ("logits", _rule(r"", r"", r"cross_entropy\(|loss_fct\(|self\.lm_head\(|logits\.float\(\)")),
    ("logits", _rule(r"transformers/loss/.*\.py$")),
    ("adapter", _rule(r"peft/tuners/lora/.*\.py$")),
    ("quantized", _rule(r"bitsandbytes/(nn|autograd|functional)\b.*\.py$")),
    ("clip", _rule(r"(mgm/vision|clip/modeling_clip|multimodal_encoder/clip_encoder)\.py$")),
    ("convnext", _rule(r"(mgm/convnext|openclip_encoder|models/convnext\w*|convnext)\.py$")),
    ("mining", _rule(r"mgm/mining\.py$")),
    ("mining", _rule(r"mgm_arch\.py$", r"unified_resampler")),
    ("mining", _rule(r"mgm/decoder\.py$", r"mine|_mine|mined_features")),
    ("pictures", _rule(r"(training/data|mgm/images|mgm/processing)\.py$")),
    ("projector", _rule(r"mgm/projector\.py$")),
    ("mlp", _rule(r"gemma/modeling_gemma\.py$", r"", r"(gate|up|down)_proj|act_fn|self\.mlp\(")),
    ("attention", _rule(r"integrations/(sdpa|eager|flash)\w*\.py$")),
    ("attention", _rule(r"gemma/modeling_gemma\.py$", r"", r"attn|attention|[qkvo]_proj|rotary")),
    ("norm", _rule(r"gemma/modeling_gemma\.py$", r"_norm", r"")),
    ("decoder", _rule(r"gemma/modeling_gemma\.py$")),
    ("embeddings", _rule(r"torch/nn/modules/sparse\.py$")),
    ("gradients", _rule(r"training/optimizers\.py$", r"clip_gradients")),
    ("gradients", _rule(r"deepspeed/runtime/.*\.py$", r"reduce_|average_|bucket|_epilogue")),
    ("states", _rule(r"(torch|bitsandbytes)/optim/.*\.py$", r"_init_group|init_state|get_state")),
    ("masters", _rule(r"training/optimizers\.py$", r"_master")),
    ("masters", _rule(r"deepspeed/runtime/zero/.*\.py$", r"__init__")),
    ("states", _rule(r"deepspeed/runtime/zero/.*\.py$", r"initialize_optimizer")),
    ("states", _rule(r"(torch/optim|bitsandbytes/optim|training/optimizers)", r"step|_cast")),
    ("checkpoint", _rule(r"(torch/serialization|safetensors/\w+|mgm/weights)\.py$")),
)  # fmt: skip


def place_of(frames: Sequence[Frame]) -> Place:
    """Where a traceback points."""
    moments = [moment for frame in frames if (moment := _moment(frame))]
    part = next((part for frame in reversed(frames) if (part := _part(frame))), None)
    if not moments:
        return Place(part=part)
    moment = next((one for one in moments if one in _BEFORE), moments[-1])
    if moment not in _BEFORE and "loss" in moments:
        moment = "loss"
    again = moment == "backward" and any("checkpoint" in frame.file for frame in frames)
    return Place(moment, part, again)


def _moment(frame: Frame) -> Moment | None:
    return next((moment for moment, rule in _MOMENTS if _matches(frame, rule)), None)


def _part(frame: Frame) -> str | None:
    return next((part for part, rule in _PARTS if _matches(frame, rule)), None)


def _matches(frame: Frame, rule: tuple[re.Pattern[str], ...]) -> bool:
    file, name, source = rule
    return bool(file.search(frame.file) and name.search(frame.name) and source.search(frame.source))


def frames_of(error: BaseException) -> tuple[Frame, ...]:
    """The frames of an exception in this process."""
    found = traceback.extract_tb(error.__traceback__)
    return tuple(Frame(one.filename, one.name, one.line or "") for one in found)


def traces(lines: Iterable[str]) -> list[Trace]:
    """Every traceback of a log, in the order in which they end.

    Processes whose launcher put their number before each line may write in between each other.
    A traceback ends at the first line that names an error; torch's messages are one line.
    Those that Python or its logging only mention, and go on, are left out.
    """
    found: list[Trace] = []
    open_frames: dict[str, list[Frame]] = {}
    mentioned: dict[str, bool] = {}
    for raw in lines:
        match = RANK.match(raw)
        who = match[1] if match else ""
        line = raw[match.end() :].rstrip() if match else raw.rstrip()
        # A progress bar may stand before it in the same line.
        if "Traceback (most recent call last)" in line:
            if mentioned.get(who):
                open_frames.pop(who, None)
            else:
                open_frames[who] = []
            continue
        mentioned[who] = line.startswith(_MENTIONED)
        frames = open_frames.get(who)
        if frames is None:
            continue
        if frame := _FRAME.match(line):
            frames.append(Frame(frame["file"].replace("\\", "/"), frame["name"]))
        elif line.startswith((" ", "\t")):
            if frames and not frames[-1].source and not _MARKS.match(line):
                frames[-1] = frames[-1]._replace(source=line.strip())
        elif _ERROR.match(line):
            found.append(Trace(tuple(open_frames.pop(who)), line.strip()))
    return found
