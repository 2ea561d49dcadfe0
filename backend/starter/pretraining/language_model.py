"""Pretraining of the nano Gemma on told scenes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import GemmaConfig, GemmaForCausalLM

from backend.mgm.multimodal import IMAGE_TOKEN
from backend.mgm.processing import BOS, EOS, PAD
from backend.mgm.template import Encoded, encode
from backend.starter.language import LETTERS
from backend.starter.pretraining.mixed import (
    PATCHES,
    WORDS_PER_PATCH,
    Patch,
    mixed_patches,
)
from backend.starter.pretraining.replay import replayed
from backend.starter.pretraining.texts import EVERYTHING, LETTERS_FIRST, told_scene

LENGTH = 384
PROMPT_WEIGHT, END_WEIGHT = 0.02, 0.1
"""Weights of predicting questions and the end of a turn, beside the answers' own words."""
TIMES = 3
"""How often a batch is learned from."""
LEARNING_RATE = 1.5e-3


NOISE = 0.5
"""Highest standard deviation of a mixture's noise, in root mean squares of an embedding."""
LOUDNESS = (0.6, 1.5)
"""Factors of all mixtures of a picture."""


class Batch(NamedTuple):
    """Rows of text, some of them about a picture made of words.

    Attributes:
        ids: (B, T) int64; a picture's positions hold `PAD`.
        weights: (B, T) float32 of the loss.
        places: (B, T) bool, a picture's positions.
        words: (pictures, PATCHES, WORDS_PER_PATCH) int64, row by row.
        shares: The same shape, float32; 0 where there is no word.
    """

    ids: Tensor
    weights: Tensor
    places: Tensor
    words: Tensor
    shares: Tensor


class ToldScenes(IterableDataset[Batch]):
    """Batches without an end."""

    def __init__(self, tokenizer: str, batch: int, seed: int, letters_s: float):
        self.tokenizer, self.batch, self.seed = tokenizer, batch, seed
        self.letters_s = letters_s
        """Seconds during which the way to letters is taught above all."""

    def __iter__(self) -> Iterator[Batch]:
        """Each worker draws its own scenes."""
        worker = get_worker_info()
        random = Random(self.seed * 1000 + (worker.id if worker else 0))
        tokenizer = Tokenizer.from_str(self.tokenizer)
        end = tokenizer.token_to_id("<end_of_turn>")
        assert end is not None

        def tokenize(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False).ids)

        until = time.monotonic() + self.letters_s
        while True:
            mixture = LETTERS_FIRST if time.monotonic() < until else EVERYTHING
            told = [told_scene(random, mixture) for _ in range(self.batch)]
            rows = [
                encode(turns, tokenize, has_image=scene is not None, bos=BOS, max_length=LENGTH)
                for turns, scene in told
            ]
            pictures = [
                mixed_patches(scene, tokenize, random) for _, scene in told if scene is not None
            ]
            yield _padded(rows, pictures, end)


def _padded(rows: list[Encoded], pictures: list[list[Patch]], end: int) -> Batch:
    """Rows of one length, each placeholder spread over its picture's positions."""
    spread = []
    for row in rows:
        ids, weights, places = [], [], []
        for token, weight in zip(row.input_ids, _weights(row.labels, end), strict=True):
            count = PATCHES if token == IMAGE_TOKEN else 1
            ids += [PAD if token == IMAGE_TOKEN else token] * count
            weights += [weight if count == 1 else 0.0] * count
            places += [count > 1] * count
        spread.append((ids, weights, places))
    length = max(len(ids) for ids, _, _ in spread)
    shape = (len(rows), length)
    batch = Batch(
        torch.full(shape, PAD),
        torch.zeros(shape),
        torch.zeros(shape, dtype=torch.bool),
        torch.zeros((len(pictures), PATCHES, WORDS_PER_PATCH), dtype=torch.int64),
        torch.zeros((len(pictures), PATCHES, WORDS_PER_PATCH)),
    )
    for number, columns in enumerate(spread):
        for tensor, values in zip((batch.ids, batch.weights, batch.places), columns, strict=True):
            tensor[number, : len(columns[0])] = torch.tensor(values, dtype=tensor.dtype)
    for number, picture in enumerate(pictures):
        for place, patch in enumerate(picture):
            for word, (token, share) in enumerate(patch):
                batch.words[number, place, word] = token
                batch.shares[number, place, word] = share
    return batch


def _of_pictures(batch: Batch) -> Tensor:
    """Which targets (B · (T - 1)) stand in rows with a picture."""
    return batch.places.any(1, keepdim=True).expand_as(batch.ids)[:, 1:].flatten()


def _embedded(model: Any, batch: Batch) -> Tensor:
    """(B, T, hidden) embeddings on Gemma's scale, pictures mixed and noisy."""
    embedded: Tensor = model.get_input_embeddings()(batch.ids)
    if not len(batch.words):
        return embedded
    mixed = (model.get_input_embeddings()(batch.words) * batch.shares.unsqueeze(-1)).sum(2)
    usual = embedded.detach().square().mean().sqrt()
    each = (len(mixed), 1, 1)
    low, high = LOUDNESS
    noise = torch.randn_like(mixed) * usual * NOISE * torch.rand(each, device=mixed.device)
    mixed = mixed * (low + (high - low) * torch.rand(each, device=mixed.device)) + noise
    return embedded.masked_scatter(batch.places.unsqueeze(-1), mixed.to(embedded.dtype))


def _weights(labels: list[int], end: int) -> list[float]:
    """A weight for each position: an answer's words count most."""
    weights, ended = [], False
    for label in labels:
        ended = label >= 0 and (ended or label == end)
        weights.append(PROMPT_WEIGHT if label < 0 else END_WEIGHT if ended else 1.0)
    return weights


def train_language_model(
    tokenizer: Tokenizer,
    folder: Path,
    *,
    minutes: float,
    batch: int,
    workers: int,
    start: Path | None = None,
) -> None:
    """Train for `minutes`, from `start` on where there is one, and write it in half precision."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    config = GemmaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=192,
        intermediate_size=704,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=48,
        max_position_embeddings=2048,
        hidden_activation="gelu",
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
    )
    model: Any = GemmaForCausalLM(config)
    if start is not None:
        model = GemmaForCausalLM.from_pretrained(start, dtype=torch.float32)
    model = model.to(device).train()
    letters = torch.tensor([tokenizer.token_to_id(letter) for letter in LETTERS], device=device)
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05
    )
    loader = DataLoader(
        ToldScenes(tokenizer.to_str(), batch, seed=1, letters_s=0.0 if start else 24 * minutes),
        batch_size=None,
        num_workers=workers,
    )
    started = time.time()
    for step, tensors in enumerate(replayed(loader, TIMES, device)):
        batch_now = Batch(*tensors)
        ids, weights = batch_now.ids, batch_now.weights
        share = (time.time() - started) / (minutes * 60)
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 200) * max(0.01, 1 - share)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            # What is padded stands to the right of everything that learns.
            embedded = _embedded(model, batch_now)
            logits = model(inputs_embeds=embedded, use_cache=False).logits[:, :-1]
        following = ids[:, 1:].flatten()
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), following, reduction="none"
        )
        flat = weights[:, 1:].flatten()
        loss = (losses * flat).sum() / flat.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            answered = flat == 1
            chosen = answered & torch.isin(following, letters)
            right = (logits.flatten(0, 1).argmax(1) == following).float()
            print(
                f"language model {step} ({share:.0%}): loss {loss.item():.4f}, "
                f"answers {losses[answered].mean().item():.4f} right {right[answered].mean():.4f}, "
                f"letters right {right[chosen].mean():.4f}, of pictures "
                f"{right[chosen & _of_pictures(batch_now)].mean():.4f}",
                flush=True,
            )
    model.half().save_pretrained(folder)
