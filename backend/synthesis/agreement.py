"""How well an image and a caption agree, by the workspace's own CLIP towers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from backend.errors import InputError

_BATCH = 64
_REMEMBERED = 65_536
"""Image embeddings kept, so that scoring a second caption costs no second look."""

Embeddings = NDArray[np.float32]


class AgreementModel:
    """A CLIP model; cosine similarities of image and text embeddings, -1 to 1."""

    def __init__(self, path: Path):
        """Load the model in `path` (transformers' layout, tokenizer beside it).

        Raises:
            InputError: The folder is missing or holds no whole CLIP model.
        """
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        if not (path / "config.json").is_file():
            raise InputError(
                "there is no CLIP model in this folder.",
                place=str(path),
                remedy="Fetch the asset vision_tower on the Environment page.",
            )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Half precision, in which weights often lie, is slow on a CPU and rounds more.
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        try:
            self.model: Any = CLIPModel.from_pretrained(path, dtype=dtype).to(self.device).eval()
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
            self.processor: Any = AutoImageProcessor.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise InputError(
                f"this CLIP model cannot be loaded: {error}.",
                place=str(path),
                remedy="Fetch the asset again: text tower and tokenizer are needed as well.",
            ) from error
        self.longest_text = int(self.model.config.text_config.max_position_embeddings)
        self._images: dict[str, Embeddings] = {}

    def scores(self, images: Sequence[str], captions: Sequence[str]) -> Embeddings:
        """Agreement of each image (a path) with its caption, shape (n,)."""
        pairs = self.embed_images(images) * self.embed_captions(captions)
        return np.asarray(pairs.sum(axis=1), dtype=np.float32)

    def embed_captions(self, captions: Sequence[str]) -> Embeddings:
        """Unit vectors, shape (n, dimension); long captions are cut at the model's length."""
        rows = []
        for start in range(0, len(captions), _BATCH):
            tokens = self.tokenizer(
                list(captions[start : start + _BATCH]),
                padding=True,
                truncation=True,
                max_length=self.longest_text,
                return_tensors="pt",
            ).to(self.device)
            rows.append(self._unit(self.model.get_text_features, **tokens))
        return np.concatenate(rows)

    def embed_images(self, paths: Sequence[str]) -> Embeddings:
        """Unit vectors, shape (n, dimension); the last ones are remembered by path."""
        new = list(dict.fromkeys(path for path in paths if path not in self._images))
        if len(self._images) + len(new) > _REMEMBERED:
            self._images.clear()
            new = list(dict.fromkeys(paths))
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            pictures = [_open(path) for path in batch]
            inputs = self.processor(images=pictures, return_tensors="pt")
            pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
            unit = self._unit(self.model.get_image_features, pixel_values=pixels)
            self._images.update(zip(batch, unit, strict=True))
        return np.stack([self._images[path] for path in paths])

    def _unit(self, features: Any, **inputs: Any) -> Embeddings:
        with torch.inference_mode():
            found = features(**inputs)
        # transformers returned the tensor itself before version 5.
        vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
        unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
        return np.asarray(unit.cpu().numpy(), dtype=np.float32)


@lru_cache(maxsize=1)
def agreement_model(path: str) -> AgreementModel:
    """The model in `path`, loaded once."""
    return AgreementModel(Path(path))


def _open(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
