"""Pretraining of the nano Gemma on told scenes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import GemmaConfig, GemmaForCausalLM

from backend.mgm.processing import BOS, EOS, PAD
from backend.mgm.template import encode
from backend.starter.language import LETTERS
from backend.starter.pretraining.replay import replayed
from backend.starter.pretraining.texts import EVERYTHING, LETTERS_FIRST, told_scene

LENGTH = 384
PROMPT_WEIGHT, END_WEIGHT = 0.02, 0.1
"""Weights of predicting questions and the end of a turn, beside the answers' own words."""
TIMES = 3
"""How often a batch is learned from."""
LEARNING_RATE = 1.5e-3


class ToldScenes(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of ids and of loss weights, (B, T) each, without an end."""

    def __init__(self, tokenizer: str, batch: int, seed: int, letters_s: float):
        self.tokenizer, self.batch, self.seed = tokenizer, batch, seed
        self.letters_s = letters_s
        """Seconds during which the way to letters is taught above all."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
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
            scenes = [told_scene(random, mixture) for _ in range(self.batch)]
            rows = [
                encode(scene, tokenize, has_image=False, bos=BOS, max_length=LENGTH)
                for scene in scenes
            ]
            length = max(len(row.input_ids) for row in rows)
            ids = torch.full((self.batch, length), PAD)
            weights = torch.zeros(self.batch, length)
            for number, row in enumerate(rows):
                count = len(row.input_ids)
                ids[number, :count] = torch.tensor(row.input_ids)
                weights[number, :count] = torch.tensor(_weights(row.labels, end))
            yield ids, weights


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
        ToldScenes(tokenizer.to_str(), batch, seed=1, letters_s=24 * minutes),
        batch_size=None,
        num_workers=workers,
    )
    started = time.time()
    for step, (ids, weights) in enumerate(replayed(loader, TIMES, device)):
        share = (time.time() - started) / (minutes * 60)
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 200) * max(0.01, 1 - share)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            # What is padded stands to the right of everything that learns.
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
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
                f"letters right {right[chosen].mean():.4f}",
                flush=True,
            )
    model.half().save_pretrained(folder)
