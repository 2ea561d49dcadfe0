"""Labels and pixels against the reference, to the last integer."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from backend.mgm import template
from backend.mgm.checkpoints import MGM
from backend.mgm.images import low_resolution, pixels
from backend.mgm.multimodal import IGNORE, IMAGE_TOKEN
from backend.mgm.processing import BOS, EOS
from backend.mgm.vision import IMAGE_MEAN, IMAGE_STD
from tests.mgm import tiny

ANSWERS = tiny.answers("labels")
LABELS = {name: case for name, case in ANSWERS.items() if not name.startswith("_")}
PIXELS = tiny.tensors("preprocess")
PICTURES = sorted({name.rpartition(".")[0] for name in PIXELS})
FULL_SIZE = tiny.answers("preprocess_768")


def longest() -> int:
    """The limit that the reference cut texts at: a text that was cut does not end in `<eos>`."""
    cut = [len(c["input_ids"]) for c in LABELS.values() if c["input_ids"][-1] != EOS]
    return max(cut, default=2048)


@pytest.mark.parametrize("case", sorted(LABELS))
def test_labels_oracle(mgm: MGM, case: str) -> None:
    wanted = LABELS[case]
    found = mgm.processor.encode(wanted["conversations"], wanted["has_image"], max_length=longest())
    assert found.input_ids == wanted["input_ids"]
    assert found.labels == wanted["labels"]
    assert found.mismatch == (set(found.labels) == {IGNORE})


@pytest.mark.parametrize("case", PICTURES)
def test_preprocess_oracle_pixels(mgm: MGM, case: str) -> None:
    picture, _, mode = case.rpartition(".")
    with Image.open(tiny.TINY / "images" / f"{picture}.png") as image:
        found = mgm.processor.images([image], mode)
    assert_close(found["images_aux"][0], PIXELS[f"{case}.aux"], rtol=0, atol=1.5e-6)
    assert_close(found["images"][0], PIXELS[f"{case}.raw"], rtol=0, atol=1.5e-6)
    # The pixels before normalization are integers: these must agree exactly.
    assert torch.equal(to_integers(found["images_aux"][0]), to_integers(PIXELS[f"{case}.aux"]))


@pytest.mark.parametrize("case", sorted(FULL_SIZE))
def test_preprocess_oracle_statistics_at_full_size(case: str) -> None:
    picture, _, mode = case.rpartition(".")
    wanted = FULL_SIZE[case]
    size = wanted["aux_shape"][-1]
    with Image.open(tiny.TINY / "images" / f"{picture}.png") as image:
        high = pixels(image, size, mode)
    low = low_resolution(high[None], 336)[0]
    for part, name in ((high, "aux"), (low, "raw")):
        assert_close(part.mean((1, 2)), torch.tensor(wanted[f"{name}_mean"]), rtol=0, atol=1e-5)
        assert_close(part.std((1, 2)), torch.tensor(wanted[f"{name}_std"]), rtol=0, atol=1e-5)


def to_integers(values: torch.Tensor) -> torch.Tensor:
    mean, deviation = (torch.tensor(part).view(3, 1, 1) for part in (IMAGE_MEAN, IMAGE_STD))
    return ((values * deviation + mean) * 255).round().int()


def test_prompt_oracle_with_a_turn_before(mgm: MGM) -> None:
    turns = [("human", "Q1\n<image>"), ("gpt", "A1"), ("human", "Q2")]
    text = template.render([{"from": who, "value": what} for who, what in turns], has_image=True)
    assert text + template.ANSWER_HEAD == ANSWERS["_prompt_string"]


def test_prompt_oracle_placeholders(mgm: MGM) -> None:
    wanted = ANSWERS["_image_token_ids"]
    parts = " ".join(map(str, wanted[1:])).split(str(IMAGE_TOKEN))
    text = template.IMAGE_WORD.join(
        mgm.processor.tokenizer.decode([int(word) for word in part.split()]) for part in parts
    )
    found = template.tokenize_images(text, mgm.processor.tokenize, has_image=True)
    assert [BOS, *found] == wanted
