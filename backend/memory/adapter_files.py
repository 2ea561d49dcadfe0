"""Whether an adapter ever moved, read from its file's bytes: no torch is needed for zeros."""

from __future__ import annotations

import collections
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.errors import InputError

SAFETENSORS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
_HEADER_LIMIT = 100 << 20
_CHUNK = 1 << 20


def unchanged_matrices(checkpoint: Path) -> int | None:
    """How many B matrices an adapter has, all of them zero; None when one is not, or none is there.

    B starts as zeros: an adapter whose every B is zero computes what its base computes.

    Args:
        checkpoint: Folder with `adapter_model.safetensors` or `adapter_model.bin`.

    Raises:
        InputError: The file is broken, or its pickle holds something other than tensors.
    """
    for name, read in ((SAFETENSORS, _safetensors), (PICKLE, _pickled)):
        if (checkpoint / name).is_file():
            return _count(read(checkpoint / name))
    return None


def _count(matrices: Iterator[bool]) -> int | None:
    count = 0
    for zero in matrices:
        if not zero:
            return None
        count += 1
    return count or None


def _safetensors(path: Path) -> Iterator[bool]:
    """For each B matrix, whether it is zero."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT + 1
        if length > _HEADER_LIMIT:
            raise InputError("this is not a safetensors file.", place=str(path))
        header: dict[str, Any] = json.loads(file.read(length))
        for name, entry in header.items():
            if ".lora_B." in f"{name}.":
                first, end = entry["data_offsets"]
                file.seek(8 + length + first)
                yield _zero(file, end - first)


def _pickled(path: Path) -> Iterator[bool]:
    """The same of a file that torch.save wrote: a zip of a pickle and of raw numbers."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            index = next(name for name in names if name.endswith("/data.pkl"))
            folder = index.removesuffix("data.pkl")
            tensors = _TensorNames(io.BytesIO(archive.read(index))).load()
            for name, storage in tensors.items():
                if ".lora_B." not in f"{name}.":
                    continue
                entry = f"{folder}data/{storage}"
                with archive.open(entry) as file:
                    yield _zero(file, archive.getinfo(entry).file_size)
    except (zipfile.BadZipFile, StopIteration, KeyError, AttributeError, ValueError) as error:
        raise InputError(f"this is not a file of torch.save: {error}.", place=str(path)) from error
    except pickle.UnpicklingError as error:
        raise InputError(f"the pickle is not of tensors: {error}.", place=str(path)) from error


class _TensorNames(pickle.Unpickler):
    """Reads which storage each tensor of a state dict lies in, and runs no code for anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _storage_of
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> str:
        return str(pid[2])


def _storage_of(storage: str, *_: Any) -> str:
    return storage


def _zero(file: Any, size: int) -> bool:
    """Whether the next `size` bytes are all zero."""
    while size > 0:
        block = file.read(min(size, _CHUNK))
        if not block:
            return True
        if block.strip(b"\0"):
            return False
        size -= len(block)
    return True
