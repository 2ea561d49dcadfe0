"""Reading and writing tensors in files: safetensors, safe pickles, sharded directories."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend.errors import InputError
from backend.files import confine, write_json
from backend.mgm.settings import read_settings

SHARD_BYTES = 5 * 10**9  # what the kit's transformers uses
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, if it holds nothing but tensors and plain values.

    Raises:
        InputError: The file is missing, broken, or holds code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise _gone(path) from error
    except pickle.UnpicklingError as error:
        raise InputError(
            "this file is broken, or it holds more than tensors and was refused because "
            "loading it could run code.",
            place=str(path),
            remedy="Use the original file, or one saved as safetensors.",
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def read_weights(path: Path, keep: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """The tensors of one safetensors file or torch pickle whose name `keep` accepts, on the CPU.

    Raises:
        InputError: The file is missing, broken, or holds something other than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                return {name: file.get_tensor(name) for name in file.keys() if keep(name)}  # noqa: SIM118
        except FileNotFoundError as error:
            raise _gone(path) from error
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    content = read_pickle(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise InputError(
            "this file holds no table of tensors.",
            place=str(path),
            remedy="Name a file of weights.",
        )
    return {
        name: value for name, value in content.items() if isinstance(value, Tensor) and keep(name)
    }


def _gone(path: Path) -> InputError:
    return InputError(
        "the file does not exist.", place=str(path), remedy="Fetch it, or name another file."
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        f"the weights cannot be read: {reason}.",
        place=str(path),
        remedy="Fetch or copy the file again.",
    )


def weight_files(directory: Path) -> list[Path]:
    """The files that hold a checkpoint's weights: its shards, or its single file.

    Raises:
        InputError: There are none, or the index names a file that is missing or outside.
    """
    for name in INDEX_FILES:
        index = directory / name
        if index.is_file():
            weight_map = read_settings(index).get("weight_map")
            shards = list(weight_map.values()) if isinstance(weight_map, dict) else []
            files = [confine(directory, shard) for shard in sorted(set(map(str, shards)))]
            missing = [file.name for file in files if not file.is_file()]
            if missing or not files:
                raise InputError(
                    f"the index names files that are not there: {', '.join(missing) or 'none'}.",
                    place=str(index),
                    remedy="Copy the whole checkpoint directory again.",
                )
            return files
    for name in SINGLE_FILES:
        if (directory / name).is_file():
            return [directory / name]
    raise InputError(
        "there are no weights in this directory.",
        place=str(directory),
        remedy=f"One of these must be there: {', '.join(INDEX_FILES + SINGLE_FILES)}.",
    )


def iterate_weights(
    directory: Path, keep: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of a checkpoint directory, one file in memory at a time.

    Raises:
        InputError: See `weight_files` and `read_weights`.
    """
    for file in weight_files(directory):
        yield from read_weights(file, keep).items()


def save_sharded(
    directory: Path, weights: dict[str, Tensor], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write safetensors shards with an index, even for one shard: the kit reads the index.

    Shards get their names only when all are complete, and the index comes last; shards of an
    older save go.
    """
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in weights.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().contiguous().cpu()
        size += tensor.nbytes
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / f".{file}", metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    files = set(weight_map.values())
    for old in directory.glob("model-*-of-*.safetensors"):
        if old.name not in files:
            old.unlink()
    for file in files:
        (directory / f".{file}").replace(directory / file)
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(directory / "model.safetensors.index.json", index)


def save_pickle(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors as `torch.save` does, replacing the file only once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    torch.save({name: tensor.detach().cpu().clone() for name, tensor in weights.items()}, scratch)
    scratch.replace(path)
