"""From pictures to the two pixel tensors, exactly as the kit makes them, without torchvision."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from backend.errors import UsageError
from backend.mgm.vision import IMAGE_MEAN, IMAGE_STD

MODES = ("pad", "square")
PAD_COLOR = tuple(int(mean * 255) for mean in IMAGE_MEAN)


def square_canvas(image: Image.Image) -> Image.Image:
    """The picture centered on a square of its longer side, in the mean color."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    canvas = Image.new("RGB", (side, side), PAD_COLOR)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def pixels(image: Image.Image, size: int, mode: str) -> Tensor:
    """The high-resolution tensor of one picture.

    The shorter side is resized to `size` with PIL's bicubic filter, the center is cut out, and
    values are normalized by CLIP's mean and standard deviation.

    Args:
        image: Any mode; converted to RGB.
        size: Side wanted, in pixels.
        mode: `pad` puts the picture on a square canvas first; `square` cuts its center.

    Returns:
        (3, size, size) float32.

    Raises:
        UsageError: The mode is neither `pad` nor `square`.
    """
    if mode not in MODES:
        raise UsageError(f"the image mode {mode!r} is not one of {', '.join(MODES)}.")
    image = image.convert("RGB")
    if mode == "pad":
        image = square_canvas(image)
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.crop((left, top, left + size, top + size))
    scaled = (np.asarray(image, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, deviation = np.array(IMAGE_MEAN, np.float32), np.array(IMAGE_STD, np.float32)
    values: NDArray[np.float32] = (scaled - mean) / deviation
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def low_resolution(images_aux: Tensor, size: int, grid: int = 1, whole: bool = False) -> Tensor:
    """CLIP's pictures from the high-resolution ones: resized tensors, without antialiasing.

    Args:
        images_aux: (B, 3, S, S) normalized pixels.
        size: Side of CLIP's picture.
        grid: HD variant: cut into grid x grid views.
        whole: HD variant: add a view of the whole picture, last.

    Returns:
        (B, 3, size, size); with grid > 1 (B, views, 3, size, size).
    """
    resized = _interpolate(images_aux, size * grid)
    if grid == 1:
        return resized
    views = resized.unflatten(-1, (grid, size)).unflatten(-3, (grid, size))
    views = views.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    if whole:
        views = torch.cat([views, _interpolate(images_aux, size).unsqueeze(1)], dim=1)
    return views


def _interpolate(images: Tensor, size: int) -> Tensor:
    resized: Tensor = functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False
    )
    return resized
