"""The nano tokenizers: one with Gemma's special ids and template words, one for CLIP's text."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from backend.starter.language import VAGUE, caption
from backend.starter.pretraining.texts import told_scene
from backend.starter.scenes import NUMBERS, WORDS, random_scene

VOCABULARY = 1280
_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
_START_OF_TURN = 106
_FIRST_BYTE = 109
"""Gemma: 106 and 107 are the turns' borders, 108 is the line break."""
CLIP_PAD, CLIP_UNKNOWN, CLIP_BEGIN, CLIP_END = 0, 1, 2, 3


def gemma_tokenizer(seed: int = 0, texts: int = 60_000) -> Tokenizer:
    """A byte-pair tokenizer of `VOCABULARY` entries; unknown characters fall back to bytes."""
    random = Random(seed)
    corpus = [turn["value"] for _ in range(texts) for turn in told_scene(random)[0]]
    corpus += [
        caption(random_scene(random, texts=(*WORDS, *NUMBERS)), random) for _ in range(texts)
    ]
    corpus += [*VAGUE, *WORDS, *NUMBERS] * 200
    learner = _byte_pairs({}, [])
    pieces = VOCABULARY - _FIRST_BYTE - 256
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        initial_alphabet=[*"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"],
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    learned: dict[str, Any] = json.loads(learner.to_str())["model"]
    unused = [f"<unused{number}>" for number in range(_START_OF_TURN - len(_SPECIAL))]
    template = ["<start_of_turn>", "<end_of_turn>", "\n"]
    names = [*_SPECIAL, *unused, *template, *(f"<0x{byte:02X}>" for byte in range(256))]
    known = set(names)
    names += [piece for piece in sorted(learned["vocab"], key=learned["vocab"].get)
              if piece not in known]  # fmt: skip
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = _byte_pairs({name: i for i, name in enumerate(names)}, merges)
    tokenizer.add_special_tokens([*_SPECIAL, "<start_of_turn>", "<end_of_turn>"])
    return tokenizer


def _byte_pairs(vocabulary: dict[str, int], merges: list[Any]) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Split(Regex(r"[\n.,:?!']"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def write_gemma_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def clip_tokenizer(seed: int = 0, texts: int = 20_000) -> Tokenizer:
    """A tokenizer of whole words, in lower case, for captions."""
    random = Random(seed)
    words = {word.lower() for word in (*WORDS, *NUMBERS)}
    for text in VAGUE:
        words |= set(text.split())
    for _ in range(texts):
        told = caption(random_scene(random, texts=(*WORDS, *NUMBERS)), random)
        words |= set(told.lower().replace(",", " ").split())
    names = ["<pad>", "<unk>", "<begin>", "<end>", ",", *sorted(words)]
    tokenizer = Tokenizer(
        models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<begin> $A <end>",
        special_tokens=[("<begin>", CLIP_BEGIN), ("<end>", CLIP_END)],
    )
    return tokenizer


def write_clip_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer beside the CLIP model."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<begin>",
        eos_token="<end>",
        model_max_length=64,
    ).save_pretrained(folder)
