"""What goes into the model and what comes out: pictures, conversations, batches, answers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from backend.errors import InputError
from backend.mgm import images as pictures
from backend.mgm import template
from backend.mgm.configuration import MGMConfig
from backend.mgm.multimodal import IGNORE, IMAGE_TOKEN
from backend.mgm.template import Encoded

BOS, EOS, PAD = 2, 1, 0
SPECIAL_WORDS = {"<pad>": PAD, "<eos>": EOS, "<bos>": BOS}
SPECIAL_TOKENS = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Gemma's tokenizer: `tokenizer.json` as it is where there is one, else what transformers
    makes of `tokenizer.model`.

    Raises:
        InputError: There is no tokenizer, or its special ids are not Gemma's.
    """
    file = directory / "tokenizer.json"
    if file.is_file():
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
            tokenizer_object=_read_tokenizer(file),
            **SPECIAL_TOKENS,
            clean_up_tokenization_spaces=False,
        )
    elif (directory / "tokenizer.model").is_file():
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    else:
        raise InputError(
            "there is no tokenizer here.",
            place=str(directory),
            remedy="tokenizer.json or tokenizer.model must lie beside the language model.",
        )
    check_special_ids(tokenizer, place=str(directory))
    return tokenizer


def _read_tokenizer(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises this very class
        raise InputError(
            f"the tokenizer cannot be read: {error}.",
            place=str(file),
            remedy="Copy the file again from the language model's directory.",
        ) from error


def check_special_ids(tokenizer: PreTrainedTokenizerBase, *, place: str) -> None:
    """Refuse a tokenizer whose special ids are not Gemma's.

    Raises:
        InputError: An id differs.
    """
    for word, wanted in SPECIAL_WORDS.items():
        found = tokenizer.convert_tokens_to_ids(word)
        if found != wanted:
            raise InputError(
                f"{word} has id {found} where Gemma has {wanted}.",
                place=place,
                remedy="Use the tokenizer that belongs to the Gemma language model.",
            )


class MGMProcessor:
    """Pictures and conversations in, batches and answers out.

    Attributes:
        tokenizer: Gemma's tokenizer.
        config: The model's configuration; sizes and the maximal length come from it.
        source: Directory whose tokenizer files are copied by `save_pretrained`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: MGMConfig,
        source: Path | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.source = source

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, config: MGMConfig | None = None
    ) -> MGMProcessor:
        """The processor of a checkpoint directory.

        Args:
            directory: Holds the tokenizer's files, and `config.json` unless `config` is given.
            config: The model's configuration, when it is loaded already.

        Raises:
            InputError: There is no tokenizer, or the towers' sizes are unknown.
        """
        from backend.mgm.towers import complete_config

        directory = Path(directory)
        if config is None:
            config = complete_config(MGMConfig.from_pretrained(directory), directory)
        return cls(load_tokenizer(directory), config, directory)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the tokenizer: the original files unchanged where they are known."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if self.source is None:
            self.tokenizer.save_pretrained(directory)
            return
        for name in TOKENIZER_FILES:
            if (self.source / name).is_file() and self.source.resolve() != directory.resolve():
                shutil.copyfile(self.source / name, directory / name)

    def images(
        self, images: Sequence[Image.Image | None], mode: str | None = None
    ) -> dict[str, Tensor]:
        """Pixels for both towers.

        Args:
            images: One picture a row; None stands for a row without one (a blank, as in the kit).
            mode: `pad` or `square`; None takes the configuration's `image_aspect_ratio`.

        Returns:
            `images` (B, 3, s, s), in the HD variant (B, views, 3, s, s), and `images_aux`
            (B, 3, S, S), both float32.
        """
        side, config = self.config.image_size_aux, self.config
        mode = mode or config.image_aspect_ratio
        high = torch.stack(
            [
                torch.zeros(3, side, side) if image is None else pictures.pixels(image, side, mode)
                for image in images
            ]
        )
        grid = config.image_grid
        low = pictures.low_resolution(high, config.image_size, grid, config.image_global)
        return {"images": low, "images_aux": high}

    def encode(
        self,
        conversations: Sequence[Mapping[str, Any]],
        has_image: bool,
        *,
        max_length: int | None = None,
    ) -> Encoded:
        """Ids, labels and the mismatch flag of a training sample; see `template.encode`.

        Args:
            conversations: LLaVA turns.
            has_image: The sample has a picture.
            max_length: None takes the configuration's `tokenizer_model_max_length`.
        """
        return template.encode(
            conversations,
            self.tokenize,
            has_image=has_image,
            bos=BOS,
            max_length=max_length or self.config.tokenizer_model_max_length,
        )

    def prompt(self, question: str, has_image: bool) -> list[int]:
        """Ids of a question with the answer's turn open."""
        return template.prompt(question, self.tokenize, has_image=has_image, bos=BOS)

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text, special words in it recognized, none added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def collate(
        self,
        samples: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """A batch of (input_ids, labels), cut to `max_length` and padded at the right.

        Returns:
            `input_ids` and `labels` (B, T) int64, `attention_mask` (B, T) bool.
        """
        limit = max_length or self.config.tokenizer_model_max_length
        length = min(limit, max(len(ids) for ids, _ in samples))
        input_ids = torch.full((len(samples), length), PAD)
        labels = torch.full((len(samples), length), IGNORE)
        for row, (ids, targets) in enumerate(samples):
            count = min(len(ids), length)
            input_ids[row, :count] = torch.tensor(ids[:count])
            labels[row, :count] = torch.tensor(targets[:count])
        # Padding is found by its id, as in the kit, so a `<pad>` in a text is dropped as well.
        return {"input_ids": input_ids, "labels": labels, "attention_mask": input_ids != PAD}

    def collate_prompts(self, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """A batch of prompts for `generate`: `input_ids` and `attention_mask` (B, T)."""
        batch = self.collate([(ids, [IGNORE] * len(ids)) for ids in prompts])
        del batch["labels"]
        return batch

    def decode(self, tokens: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """Answers of generated tokens (B, new): special words left out, outer space trimmed."""
        rows = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return [
            self.tokenizer.decode(
                [token for token in row if token != IMAGE_TOKEN], skip_special_tokens=True
            ).strip()
            for row in rows
        ]
