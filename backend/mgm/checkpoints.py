"""The kit's checkpoints, in and out: full models, projectors, and models from the model zoo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from backend.errors import InputError, UsageError
from backend.files import write_json
from backend.mgm.assembly import Filler, empty_model
from backend.mgm.configuration import MGMConfig
from backend.mgm.convnext import read_trunk
from backend.mgm.modeling import MGMGemmaForCausalLM
from backend.mgm.processing import MGMProcessor, load_tokenizer
from backend.mgm.projector import is_tower
from backend.mgm.projector_files import load_projector as load_projector
from backend.mgm.projector_files import save_projector as save_projector
from backend.mgm.quantization import is_quantized, quantize_language_model
from backend.mgm.settings import read_settings
from backend.mgm.towers import complete_config, find_directory, read_clip_config
from backend.mgm.weights import SHARD_BYTES, iterate_weights, save_sharded

MODEL_TYPE = "mgm_gemma"


class MGM(NamedTuple):
    """A model and the processor that belongs to it."""

    model: MGMGemmaForCausalLM
    processor: MGMProcessor


def assemble(
    llm_dir: str | Path,
    vision_dir: str | Path,
    vision_aux_dir: str | Path,
    *,
    image_size_aux: int = 768,
    image_grid: int = 1,
    image_global: bool = False,
    image_aspect_ratio: str = "square",
    model_max_length: int = 2048,
    projector_type: str = "mlp2x_gelu",
    select_layer: int = -2,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention: str | None = None,
    quantize: str | None = None,
) -> MGM:
    """A fresh MGM from the model zoo; projector and mining layers start under torch's seed.

    Args:
        llm_dir: Gemma's directory, with its tokenizer.
        vision_dir: CLIP's directory.
        vision_aux_dir: OpenCLIP ConvNeXt's directory.
        image_size_aux: Side of the high-resolution picture in pixels.
        image_grid: 1, or 2 for the HD variant.
        image_global: HD variant: add the whole picture as a view.
        image_aspect_ratio: `square` or `pad`, recorded for evaluation.
        model_max_length: Positions of a sample after its pictures are in.
        projector_type: The kit's `mm_projector_type`.
        select_layer: Which of CLIP's hidden states is read.
        dtype: Of all parameters.
        device: Where the model goes.
        attention: See `assembly.empty_model`.
        quantize: `nf4` to hold the language model's linear layers in four bits.

    Raises:
        InputError: A directory or a file is missing, or its contents do not fit.
    """
    llm_dir, vision_dir, vision_aux_dir = Path(llm_dir), Path(vision_dir), Path(vision_aux_dir)
    values = {
        **_language_values(llm_dir),
        "mm_vision_tower": str(vision_dir),
        "mm_vision_tower_aux": str(vision_aux_dir),
        "mm_projector_type": projector_type,
        "mm_vision_select_layer": select_layer,
        "image_size_aux": image_size_aux,
        "image_grid": image_grid,
        "image_global": image_global,
        "image_aspect_ratio": image_aspect_ratio,
        "tokenizer_model_max_length": model_max_length,
    }
    config = make_config(values, place=llm_dir / "config.json")
    config.name_or_path = str(llm_dir)
    config.set_towers(read_clip_config(vision_dir), read_trunk(vision_aux_dir)[0])
    check_sizes(config)
    filler = Filler(empty_model(config, attention=attention), dtype, device)
    filler.fill(iterate_weights(llm_dir), place=llm_dir)
    filler.fill_towers(vision_dir, vision_aux_dir)
    filler.start_projector()
    model = filler.finish(place=llm_dir)
    if quantize is not None:
        quantize_language_model(model, quantize)
    return MGM(model, MGMProcessor(load_tokenizer(llm_dir), config, llm_dir))


def _language_values(llm_dir: Path) -> dict[str, Any]:
    """Gemma's configuration values.

    Raises:
        InputError: The directory holds no Gemma.
    """
    values = read_settings(llm_dir / "config.json")
    kind = values.pop("model_type", None)
    if kind != "gemma":
        raise InputError(
            f"the language model is of type {kind!r} where 'gemma' is wanted.",
            place=str(llm_dir / "config.json"),
            remedy="Name the directory of gemma-2b-it, or load a full checkpoint as it is.",
        )
    for name in ("architectures", "transformers_version", "_name_or_path", "torch_dtype", "dtype"):
        values.pop(name, None)
    return values


def check_sizes(config: MGMConfig) -> None:
    """Refuse picture sizes whose maps cannot be cut into cells, and a CLIP layer that is not.

    Raises:
        InputError: The high-resolution map is no multiple of the low-resolution grid, or CLIP
            has no hidden state of this number.
    """
    layers = config.clip.num_hidden_layers
    if not -layers - 1 <= config.mm_vision_select_layer <= layers:
        raise InputError(
            f"CLIP has {layers} layers and no hidden state {config.mm_vision_select_layer}.",
            place="config.json, field mm_vision_select_layer",
            remedy="The kit uses -2.",
        )
    side = config.image_size // config.clip.patch_size * config.image_grid
    stride = 4 * 2 ** (len(config.convnext.depths) - 1)
    if config.image_size_aux % stride or (config.image_size_aux // 4) % side:
        raise InputError(
            f"a high-resolution picture of {config.image_size_aux} pixels gives a map that "
            f"cannot be cut into {side} x {side} cells.",
            place="image_size_aux",
            remedy=f"Choose a multiple of {4 * side} and of {stride} (the kit uses 768).",
        )


def load(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    llm_dir: str | Path | None = None,
    vision_dir: str | Path | None = None,
    vision_aux_dir: str | Path | None = None,
    roots: Sequence[Path] = (),
    attention: str | None = None,
    quantize: str | None = None,
    merge: bool = False,
) -> MGM:
    """Open a checkpoint: a full model, or a LoRA directory with the model it stands on.

    Towers come from the checkpoint where it holds them, else from their directories.

    Args:
        path: Directory with `config.json` and weights, or with `adapter_config.json`.
        dtype: Of all parameters.
        device: Where the model goes.
        llm_dir: LoRA: the base, instead of the one that the adapter names.
        vision_dir: CLIP's directory, instead of the one that the configuration names.
        vision_aux_dir: ConvNeXt's directory, likewise.
        roots: Where relative paths in configurations start, beside the working directory.
        attention: See `assembly.empty_model`.
        quantize: `nf4` to hold the language model's linear layers in four bits.
        merge: LoRA: add the adapter into the weights, leaving a plain model.

    Raises:
        InputError: Something is missing or does not fit; names what, where and the remedy.
    """
    from backend.mgm import adapters

    path = Path(path)
    if not path.is_dir():
        raise InputError(
            "the checkpoint is not there.",
            place=str(path),
            remedy="Name a directory with config.json and weights, or with an adapter.",
        )
    sources: dict[str, Any] = {
        "vision_dir": vision_dir,
        "vision_aux_dir": vision_aux_dir,
        "roots": [*roots, path],
    }
    options: dict[str, Any] = {"dtype": dtype, "device": device, "attention": attention}
    if (path / adapters.CONFIG_FILE).is_file():
        return adapters.load_directory(
            path, llm_dir=llm_dir, merge=merge, quantize=quantize, **sources, **options
        )
    return load_full(path, quantize=quantize, **sources, **options)


def load_full(
    path: Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    vision_dir: str | Path | None,
    vision_aux_dir: str | Path | None,
    roots: Sequence[Path],
    attention: str | None,
    quantize: str | None,
) -> MGM:
    """`load` for a full checkpoint."""
    config = read_config(path)
    towers = {"vision_dir": vision_dir, "vision_aux_dir": vision_aux_dir, "roots": roots}
    complete_config(config, path, **towers)  # type: ignore[arg-type]
    check_sizes(config)
    filler = Filler(empty_model(config, attention=attention), dtype, device)
    filler.fill(iterate_weights(path), place=path)
    if any(is_tower(name) for name in filler.missing()):
        filler.fill_towers(
            find_directory(vision_dir or config.mm_vision_tower, roots, what="CLIP tower"),
            find_directory(
                vision_aux_dir or config.mm_vision_tower_aux, roots, what="ConvNeXt tower"
            ),
        )
    model = filler.finish(place=path)
    if quantize is not None:
        quantize_language_model(model, quantize)
    return MGM(model, MGMProcessor(load_tokenizer(path), config, path))


def make_config(values: dict[str, Any], *, place: Path) -> MGMConfig:
    """The configuration of these values.

    Raises:
        InputError: A value is of the wrong kind, or asks for what this model does not have.
    """
    try:
        return MGMConfig(**values)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise InputError(
            f"a value does not fit: {' '.join(str(error).split())}.",
            place=str(place),
            remedy="Copy the file again from where it was made.",
        ) from error


def read_config(path: Path) -> MGMConfig:
    """The `config.json` of an MGM checkpoint.

    Raises:
        InputError: It is missing or describes another model.
    """
    file = path / "config.json"
    values = read_settings(file)
    kind = values.get("model_type", MODEL_TYPE)
    if kind != MODEL_TYPE or "mm_vision_tower" not in values:
        raise InputError(
            f"this is no MGM checkpoint (model type {kind!r}).",
            place=str(file),
            remedy="Name a directory that finetuning wrote.",
        )
    # transformers 5 warns about the name that 4.38 reads; `save_config` writes both.
    values.setdefault("dtype", values.pop("torch_dtype", None))
    return make_config(values, place=file)


def save(
    path: str | Path,
    model: MGMGemmaForCausalLM,
    processor: MGMProcessor | None = None,
    *,
    dtype: torch.dtype | None = None,
    weights: Mapping[str, Tensor] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a full checkpoint as the kit's loader reads it: shards with an index, always.

    Args:
        path: Directory; files of the same name are replaced.
        model: Neither quantized nor with an adapter inside.
        processor: Its tokenizer files are written too.
        dtype: Of the file; None keeps the parameters' own.
        weights: Gathered parameters by name, when the model's own are spread over processes.
        shard_bytes: Largest shard.

    Raises:
        UsageError: The model holds an adapter or quantized weights.
    """
    if any("lora_" in name for name, _ in model.named_parameters()) or is_quantized(model):
        raise UsageError(
            "a model with an adapter or quantized weights cannot be saved as a full checkpoint.",
            remedy="Save the adapter, or load with merge=True and save that.",
        )
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    source = weights if weights is not None else model.state_dict()
    tied = model.config.tie_word_embeddings
    kept = {
        name: value if dtype is None else value.to(dtype)
        for name, value in source.items()
        if not (tied and name == "lm_head.weight")
    }
    save_sharded(path, kept, shard_bytes)
    save_config(path, model.config, dtype=dtype)
    if processor is not None:
        processor.save_pretrained(path)


def save_config(path: Path, config: MGMConfig, dtype: torch.dtype | None = None) -> None:
    """Write `config.json` with every key that the kit's transformers reads."""
    values = config.to_dict()
    values["architectures"] = ["MGMGemmaForCausalLM"]
    values["_name_or_path"] = config.name_or_path
    values["model_type"] = MODEL_TYPE
    if dtype is not None:
        values["dtype"] = str(dtype).removeprefix("torch.")
    values["torch_dtype"] = values.get("dtype")
    write_json(path / "config.json", values)
