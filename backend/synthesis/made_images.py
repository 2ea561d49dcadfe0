"""Images that operators made: brought into the dataset version that needs them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from backend.errors import InputError
from backend.formats.images import ImageFacts, inspect_file
from backend.synthesis.samples import Sample


def settle_images(samples: list[Sample], image_root: Path, folder: Path) -> Path | None:
    """Gather the images of all samples in `folder`, if any operator made one.

    A dataset version has one image folder. Without new images that is its parent's. With new
    ones it is the version's own: those of the parent are linked there (copied across file
    systems) at their old relative paths, new ones lie below `made/`.

    Args:
        samples: Their image paths and what is known of new images are changed in place.
        image_root: The parent's image folder.
        folder: Where to gather them.

    Returns:
        The folder, or None when there are no new images.

    Raises:
        InputError: An operator left an image that cannot be read.
    """
    if not any(Path(image).is_absolute() for sample in samples for image in sample.images):
        return None
    for sample in samples:
        sample.images = [_settled(sample, image, image_root, folder) for image in sample.images]
    return folder


def _settled(sample: Sample, image: str, image_root: Path, folder: Path) -> str:
    source = image_root / image
    if not Path(image).is_absolute():
        if source.exists():
            _link(source, folder / image)
        return image
    facts: ImageFacts = inspect_file(source)
    if facts.problem is not None:
        raise InputError(
            f"an operator made an image that cannot be read ({facts.detail}).",
            place=f"{source}, sample {sample.sample_id}",
            remedy="Leave the operator out of the recipe.",
        )
    sample.width, sample.height = facts.width, facts.height
    sample.image_sha256, sample.image_problem = facts.sha256, None
    relative = f"made/{facts.sha256}{source.suffix}"
    _link(source, folder / relative)
    return relative


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
