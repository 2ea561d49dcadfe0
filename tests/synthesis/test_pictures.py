"""Sharpness, likeness of pictures, and vagueness of captions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from backend.starter.drawing import draw
from backend.starter.scenes import random_scene
from backend.synthesis.captions import vagueness
from backend.synthesis.pictures import near_duplicates, perceptual_hash, sharpness


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    chance = random.Random(4)
    return [draw(random_scene(chance)) for _ in range(24)]


def test_blur_lowers_sharpness_and_size_hardly_changes_it(scenes, tmp_path: Path):
    paths = {name: str(tmp_path / f"{name}.png") for name in ("sharp", "soft", "blurred")}
    scenes[0].save(paths["sharp"])
    scenes[0].filter(ImageFilter.GaussianBlur(1)).save(paths["soft"])
    scenes[0].filter(ImageFilter.GaussianBlur(5)).save(paths["blurred"])
    assert (
        sharpness(paths["sharp"]) > 3 * sharpness(paths["soft"]) > 9 * sharpness(paths["blurred"])
    )
    large = str(tmp_path / "large.png")
    Image.effect_noise((2048, 1024), 40).save(large)
    small = str(tmp_path / "small.png")
    with Image.open(large) as image:
        image.resize((512, 256)).save(small)
    assert sharpness(large) == pytest.approx(sharpness(small), rel=0.5)


def test_copies_resized_or_recompressed_are_found_and_nothing_else(scenes, tmp_path: Path):
    paths = []
    for number, image in enumerate(scenes):
        paths.append(str(tmp_path / f"{number}.png"))
        image.save(paths[-1])
    copies = {24: 3, 25: 7, 26: 3}
    scenes[3].save(tmp_path / "24.jpg", quality=70)
    scenes[7].resize((400, 400), Image.Resampling.BICUBIC).save(tmp_path / "25.png")
    scenes[3].resize((120, 120), Image.Resampling.BICUBIC).save(tmp_path / "26.png")
    paths += [str(tmp_path / name) for name in ("24.jpg", "25.png", "26.png")]
    hashes = [perceptual_hash(path) for path in paths]
    assert near_duplicates(hashes, 3) == copies
    assert near_duplicates(list(dict.fromkeys(hashes)), 0) == {}


def test_bands_find_what_a_comparison_of_all_pairs_finds():
    chance = random.Random(2)
    codes = [chance.getrandbits(106) for _ in range(60)]
    for source in range(0, 60, 3):
        code = codes[source]
        for bit in chance.sample(range(106), chance.randint(0, 5)):
            code ^= 1 << bit
        codes.append(code)
    hashes = [f"{code >> 42:016x}{code & (1 << 42) - 1:011x}" for code in codes]
    for distance in (0, 1, 3, 4):
        expected: dict[int, int] = {}
        for later, code in enumerate(codes):
            kept = (i for i in range(later) if i not in expected)
            close = [i for i in kept if (codes[i] ^ code).bit_count() <= distance]
            if close:
                expected[later] = close[0]
        assert near_duplicates(hashes, distance) == expected


@pytest.mark.parametrize(
    ("caption", "value"),
    [
        ("a photo of something", 1.0),
        ("This is a NICE picture.", 1.0),
        ("a red circle", 1 / 3),
        ("the sign says 42", 1 / 4),
        ("一张图片", None),
        ("", None),
        ("!!!", None),
    ],
)
def test_vagueness_is_the_share_of_words_that_fit_any_picture(caption, value):
    assert vagueness(caption) == (None if value is None else pytest.approx(value))
