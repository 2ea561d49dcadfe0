"""LoRA adapters of the language model, in the directories that the kit writes.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021). The layers themselves are
peft's; names and files are the kit's (peft 0.4.0), so either side reads the other's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from backend.errors import InputError, UsageError
from backend.files import write_json
from backend.mgm import checkpoints
from backend.mgm.lora import CONFIG_FILE as CONFIG_FILE
from backend.mgm.lora import Lora as Lora
from backend.mgm.lora import read_adapter_config
from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.mgm.processing import MGMProcessor
from backend.mgm.projector import is_projector, is_tower
from backend.mgm.projector_files import copy_parameters, full_names
from backend.mgm.quantization import is_quantized
from backend.mgm.settings import read_settings
from backend.mgm.towers import find_directory
from backend.mgm.weights import read_weights, save_pickle

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
REST_FILE = "non_lora_trainables.bin"
PREFIX = "base_model.model."
ADAPTER = "default"
_PICTURE_SETTINGS = (
    "image_size_aux",
    "image_grid",
    "image_global",
    "image_aspect_ratio",
    "tokenizer_model_max_length",
)


def inject(model: MGMGemmaForCausalLM, lora: Lora) -> None:
    """Put a fresh adapter into the decoder layers, in place.

    The model keeps its class and its names; adapted layers hold `base_layer`, `lora_A.default`
    and `lora_B.default`. LoRA weights of a bf16 or quantized model are in its dtype.

    Raises:
        UsageError: A setting is impossible, or an adapter is inside already.
    """
    try:
        lora.check()
    except ValueError as error:
        raise UsageError(f"no such adapter: {error}.") from error
    if adapted_layers(model):
        raise UsageError("the model holds an adapter already.", remedy="Merge it first.")
    names = "|".join(lora.targets)
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        # Suffixes alone would also match CLIP's layers of the same names.
        target_modules=rf"model\.layers\.\d+\.(self_attn|mlp)\.({names})",
    )
    inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    dtype = model.model.norm.weight.dtype
    for layer in adapted_layers(model).values():
        layer.lora_A.to(dtype)
        layer.lora_B.to(dtype)
    model.lora = lora
    model.train(model.training)  # the new layers' dropout follows the model's mode


def adapted_layers(model: MGMGemmaForCausalLM) -> dict[str, Any]:
    """Layers that hold an adapter, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def merge_adapter(model: MGMGemmaForCausalLM) -> None:
    """Add the adapter into the weights it stands on and remove it, in place.

    Each sum is taken in fp32 and rounded once, to the weights' dtype.

    Raises:
        UsageError: There is no adapter, or the weights are quantized.
    """
    layers = adapted_layers(model)
    if not layers:
        raise UsageError("there is no adapter to merge.")
    if is_quantized(model):
        raise UsageError(
            "an adapter cannot be merged into four-bit weights.",
            remedy="Load the same adapter without quantization and merge that.",
        )
    with torch.no_grad():
        for name, layer in layers.items():
            base = layer.get_base_layer()
            down, up = (part[ADAPTER].weight.float() for part in (layer.lora_A, layer.lora_B))
            base.weight.copy_(base.weight.float() + layer.scaling[ADAPTER] * (up @ down))
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, base)
    del model.lora
    model.config.base_model_type = None


def save_adapter(
    path: str | Path,
    model: MGMGemmaForCausalLM,
    processor: MGMProcessor | None = None,
    *,
    dtype: torch.dtype | None = None,
    safetensors: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write adapter, projector and configurations as the kit's LoRA finetuning does.

    Args:
        path: Directory; gets adapter_config.json, adapter_model.bin, non_lora_trainables.bin
            and config.json.
        model: With an adapter inside.
        processor: Its tokenizer files are written too, which the kit leaves out.
        dtype: Of the files; None keeps the parameters' own.
        safetensors: Write adapter_model.safetensors instead of adapter_model.bin.
        weights: Gathered parameters by name, when the model's own are spread over processes.

    Raises:
        UsageError: There is no adapter in the model.
    """
    from safetensors.torch import save_file

    lora: Lora | None = getattr(model, "lora", None)
    if lora is None:
        raise UsageError("there is no adapter to save.", remedy="Save a full checkpoint.")
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    source = weights if weights is not None else model.state_dict()
    cast = {name: value if dtype is None else value.to(dtype) for name, value in source.items()}
    adapter = {
        PREFIX + name.replace(f".{ADAPTER}.", "."): value.detach().cpu().contiguous()
        for name, value in cast.items()
        if ".lora_A." in name or ".lora_B." in name
    }
    if safetensors:
        save_file(adapter, path / WEIGHT_FILES[0], metadata={"format": "pt"})
    else:
        save_pickle(path / WEIGHT_FILES[1], adapter)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    rest = {
        PREFIX + name: value
        for name, value in cast.items()
        if is_projector(name) or (is_tower(name) and name in trained)
    }
    save_pickle(path / REST_FILE, rest)
    write_json(path / CONFIG_FILE, _adapter_config(lora, model.config.name_or_path))
    checkpoints.save_config(path, model.config, dtype=dtype)
    if processor is not None:
        processor.save_pretrained(path)


def _adapter_config(lora: Lora, base: str) -> dict[str, Any]:
    """The fields of peft 0.4.0: it refuses any other."""
    return {
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "revision": None,
        "target_modules": list(lora.targets),
        "task_type": "CAUSAL_LM",
    }


def load_adapter(
    path: str | Path, model: MGMGemmaForCausalLM, *, projector_needed: bool = False
) -> None:
    """Put a saved adapter and its projector into a model, in place.

    Args:
        path: The adapter's directory.
        model: The base.
        projector_needed: The base has no trained projector, so the directory must hold one.

    Raises:
        InputError: A file is missing or broken, or a tensor does not fit.
    """
    inject(model, read_adapter_config(Path(path)))
    read_adapter(path, model, projector_needed=projector_needed)


def read_adapter(
    path: str | Path, model: MGMGemmaForCausalLM, *, projector_needed: bool = False
) -> None:
    """Give the adapter and the projector inside a model the values of a saved one.

    Raises:
        InputError: As `load_adapter`.
    """
    path = Path(path)
    file = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
    if file is None:
        raise InputError(
            "the adapter's weights are not there.",
            place=str(path),
            remedy=f"One of these must be there: {', '.join(WEIGHT_FILES)}.",
        )
    parameters = {
        name.replace(f".{ADAPTER}.", "."): value
        for name, value in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }
    saved = {
        name.removeprefix(PREFIX).replace(f".{ADAPTER}.", "."): value
        for name, value in read_weights(file).items()
    }
    if saved.keys() != parameters.keys():
        odd = sorted(saved.keys() ^ parameters.keys())
        raise InputError(
            f"the adapter does not match its targets ({odd[0]} and {len(odd) - 1} more).",
            place=str(file),
            remedy="adapter_config.json and the weights belong to different adapters.",
        )
    with torch.no_grad():
        for name, value in saved.items():
            if parameters[name].shape != value.shape:
                raise InputError(
                    f"{name} has shape {tuple(value.shape)} where the model has "
                    f"{tuple(parameters[name].shape)}.",
                    place=str(file),
                    remedy="The adapter was trained on another base model.",
                )
            parameters[name].copy_(value)
    rest = path / REST_FILE
    if rest.is_file():
        copy_parameters(model, full_names(read_weights(rest)), place=rest)
    elif projector_needed:
        raise InputError(
            "the projector that was trained with this adapter is not there.",
            place=str(rest),
            remedy=f"Copy {REST_FILE} into the directory, or name a full checkpoint as base.",
        )


def load_directory(path: Path, *, merge: bool, **options: Any) -> checkpoints.MGM:
    """A LoRA directory with the base it stands on; options are those of `load_base`."""
    if merge and options["quantize"] is not None:
        raise UsageError("an adapter cannot be merged into four-bit weights.")
    mgm, fresh = load_base(path, **options)
    load_adapter(path, mgm.model, projector_needed=fresh)
    if merge:
        merge_adapter(mgm.model)
    return mgm


def load_base(
    path: Path,
    *,
    llm_dir: str | Path | None,
    vision_dir: str | Path | None,
    vision_aux_dir: str | Path | None,
    roots: Sequence[Path],
    dtype: torch.dtype,
    device: torch.device | str,
    attention: str | None,
    quantize: str | None,
) -> tuple[checkpoints.MGM, bool]:
    """What a LoRA directory stands on: Gemma and towers, or a full MGM checkpoint.

    Returns:
        The model, and whether its projector is a fresh one.
    """
    settings = read_settings(path / CONFIG_FILE)
    read_adapter_config(path)  # what is wrong with it is said before the base is read
    config = checkpoints.read_config(path)
    base = find_directory(
        llm_dir or settings.get("base_model_name_or_path") or config.name_or_path,
        roots,
        what="base model of this adapter",
    )
    options: dict[str, Any] = {"dtype": dtype, "device": device, "attention": attention}
    full = read_settings(base / "config.json").get("model_type") == checkpoints.MODEL_TYPE
    if full:
        mgm = checkpoints.load_full(
            base,
            vision_dir=vision_dir,
            vision_aux_dir=vision_aux_dir,
            roots=[*roots, base],
            quantize=quantize,
            **options,
        )
        stand_on(mgm.model, base)
    else:
        mgm = checkpoints.assemble(
            base,
            find_directory(vision_dir or config.mm_vision_tower, roots, what="CLIP tower"),
            find_directory(
                vision_aux_dir or config.mm_vision_tower_aux, roots, what="ConvNeXt tower"
            ),
            image_size_aux=config.image_size_aux,
            image_grid=config.image_grid,
            projector_type=config.mm_projector_type,
            select_layer=config.mm_vision_select_layer,
            quantize=quantize,
            **options,
        )
    for name in _PICTURE_SETTINGS:
        setattr(mgm.model.config, name, getattr(config, name))
    return mgm, not full


def stand_on(model: MGMGemmaForCausalLM, base: Path) -> None:
    """Record the full checkpoint that an adapter of this model is going to stand on."""
    model.config.name_or_path = str(base)
    model.config.base_model_type = checkpoints.MODEL_TYPE
