"""What a picture is like by its pixels alone: sharpness, and what it looks the same as."""

from __future__ import annotations

from collections import defaultdict

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

_LONGEST_SIDE = 512
"""Pixels; larger images are shrunk to it, so that one threshold serves all sizes."""
_SIDE = 64
"""Pixels to which an image is shrunk first; the hashes look at less."""
_SHAPE_BITS = 64


def sharpness(path: str) -> float:
    """Variance of the Laplacian of the gray image (0 to 255): edges make it large."""
    with Image.open(path) as image:
        image.draft("L", (_LONGEST_SIDE, _LONGEST_SIDE))
        gray = image.convert("L")
    gray.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return float(ndimage.laplace(np.asarray(gray, dtype=np.float32)).var())


def perceptual_hash(path: str) -> str:
    """Hex of 64 bits for shapes (DCT of the gray image) and 42 bits for the mix of colors."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    shape = _bits(imagehash.phash(small).hash)
    color = _bits(imagehash.colorhash(small, binbits=3).hash)
    return f"{shape:016x}{color:011x}"


def near_duplicates(hashes: list[str], max_distance: int) -> dict[int, int]:
    """For each hash that is close to an earlier one: its index and that of the one to keep.

    The first of a group stays. Two hashes within `max_distance` bits share at least one of
    `max_distance` + 1 bands of bits, so that only hashes with a common band are compared.
    """
    codes = [_halves(value) for value in hashes]
    shift = -(-_SHAPE_BITS // (max_distance + 1))
    bands: dict[tuple[int, int], list[int]] = defaultdict(list)
    found: dict[int, int] = {}
    for index, (shape, color) in enumerate(codes):
        keys = [
            (band, (shape >> (band * shift)) & ((1 << shift) - 1))
            for band in range(max_distance + 1)
        ]
        candidates = {other for key in keys for other in bands[key]}
        close = [
            other
            for other in candidates
            if (codes[other][0] ^ shape).bit_count() + (codes[other][1] ^ color).bit_count()
            <= max_distance
        ]
        if close:
            found[index] = min(close)
        else:
            for key in keys:
                bands[key].append(index)
    return found


def _bits(flags: NDArray[np.bool_]) -> int:
    return int("".join("1" if flag else "0" for flag in flags.flatten()), 2)


def _halves(value: str) -> tuple[int, int]:
    return int(value[: _SHAPE_BITS // 4], 16), int(value[_SHAPE_BITS // 4 :], 16)
