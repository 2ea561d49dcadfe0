"""Our Data-Juicer operators, one a file; each file also serves as `custom_operator_paths`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

NAMES = (
    "caption_vagueness_filter",
    "checkpoint_captioning_mapper",
    "image_perceptual_deduplicator",
    "image_readable_filter",
    "image_sharpness_filter",
    "image_text_agreement_filter",
)


def register() -> None:
    """Put our operators into Data-Juicer's registry."""
    for name in NAMES:
        import_module(f"{__name__}.{name}")


def files() -> list[Path]:
    """The operators' files, for a recipe that Data-Juicer runs by itself."""
    return [Path(__file__).with_name(f"{name}.py") for name in NAMES]
