"""Pretraining of the nano towers: CLIP on captions and patches, ConvNeXt on cells.

Both learn from drawn scenes of which everything is known: beside the contrast of pictures and
captions there are linear heads (thrown away later) that tell from each patch or cell what lies in
its quarter of the picture.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from backend.mgm.convnext import ConvNextConfig, ConvNextTower
from backend.mgm.images import low_resolution
from backend.mgm.vision import IMAGE_MEAN, IMAGE_STD
from backend.starter.drawing import draw
from backend.starter.language import caption
from backend.starter.pretraining.replay import replayed
from backend.starter.pretraining.tokenizers import CLIP_BEGIN, CLIP_END, CLIP_PAD
from backend.starter.scenes import (
    CELLS,
    COLORS,
    GROUNDS,
    NUMBERS,
    SHAPES,
    SIZES,
    WORDS,
    Scene,
    Sign,
    random_scene,
)

LOW, PATCH, HIGH = 64, 16, 128
GRID = LOW // PATCH
SELECTED = -2
"""The hidden state of CLIP that MGM reads."""
TEXT_LENGTH = 64
KINDS = (*SHAPES, "sign", "nothing")
PAINTS = (*COLORS, "nothing")
EXTENTS = (*SIZES, "nothing")
TEXTS = (*WORDS, *NUMBERS)
LETTERS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
LONGEST = max(map(len, TEXTS))
HEADS = {
    "kind": len(KINDS),
    "paint": len(PAINTS),
    "extent": len(EXTENTS),
    "ground": len(GROUNDS),
    "text": len(TEXTS),
    **{f"letter {place}": len(LETTERS) for place in range(LONGEST)},
}
"""What is read from each quarter, and of how many values."""
LEARNING_RATE = 1e-3
TIMES = 3
"""How often a batch is learned from."""
_TEXT_INDEX = {text: number for number, text in enumerate(TEXTS)}
_IGNORED = -100


class DrawnScenes(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches of pictures (B, HIGH, HIGH, 3) uint8, caption ids (B, T) and labels, no end.

    Labels are (B, quarters, heads), in the order of `HEADS`. Signs are frequent: reading is what
    takes longest to learn.
    """

    def __init__(self, tokenizer: str, batch: int, seed: int):
        self.tokenizer, self.batch, self.seed = tokenizer, batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each worker draws its own scenes."""
        torch.set_num_threads(1)
        worker = get_worker_info()
        random = Random(self.seed * 1000 + (worker.id if worker else 0))
        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.enable_truncation(TEXT_LENGTH)
        while True:
            counts = random.choices((0, 1, 2, 3), (1, 3, 4, 3), k=self.batch)
            scenes = [random_scene(random, n_signs=count, texts=TEXTS) for count in counts]
            size = (HIGH, HIGH)
            drawn = [draw(scene).resize(size, Image.Resampling.BICUBIC) for scene in scenes]
            pictures = torch.from_numpy(np.stack([np.asarray(image) for image in drawn]))
            texts = [caption(s, random, items=random.choice((1, 2, None, None))) for s in scenes]
            rows = [tokenizer.encode(text).ids for text in texts]
            ids = torch.full((self.batch, max(map(len, rows))), CLIP_PAD)
            for number, row in enumerate(rows):
                ids[number, : len(row)] = torch.tensor(row)
            yield pictures, ids, torch.tensor([labels(scene) for scene in scenes])


def labels(scene: Scene) -> list[list[int]]:
    """What lies in each quarter, one index for each of `HEADS`; texts are told of signs alone."""
    ground = GROUNDS.index(scene.ground)
    nothing = [KINDS.index("nothing"), PAINTS.index("nothing"), EXTENTS.index("nothing"), ground]
    found = [[*nothing, *[_IGNORED] * (1 + LONGEST)] for _ in CELLS]
    for item in scene.items:
        quarter = found[CELLS.index(item.cell)]
        quarter[1] = PAINTS.index(item.color)
        if isinstance(item, Sign):
            letters = [LETTERS.index(letter) for letter in item.text.ljust(LONGEST)]
            quarter[0] = KINDS.index("sign")
            quarter[4:] = [_TEXT_INDEX[item.text], *letters]
        else:
            quarter[0] = KINDS.index(item.shape)
            quarter[2] = EXTENTS.index(item.size)
    return found


def normalized(pictures: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, by CLIP's mean and deviation."""
    mean, deviation = pictures.new_tensor(IMAGE_MEAN, dtype=torch.float32), IMAGE_STD
    scaled = (pictures.float() / 255 - mean) / mean.new_tensor(deviation)
    return scaled.permute(0, 3, 1, 2).contiguous()


class Heads(nn.Module):
    """One linear reader for each kind of label, on a 4 x 4 map of features."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.readers = nn.ModuleDict({n: nn.Linear(width, v) for n, v in HEADS.items()})

    def forward(self, features: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and accuracies of features (B, 4, 4, width) against labels (B, 4, heads)."""
        quarters = truth.unflatten(1, (2, 2)).repeat_interleave(2, 1).repeat_interleave(2, 2)
        features = self.norm(features)
        total, right = features.new_zeros(()), {}
        for number, (name, reader) in enumerate(self.readers.items()):
            scores, wanted = reader(features).flatten(0, 2), quarters[..., number].flatten()
            weight = 1 / LONGEST if name.startswith("letter") else 1.0
            total = total + weight * nn.functional.cross_entropy(scores.float(), wanted)
            if name.startswith("letter"):
                continue
            right[name] = (scores.argmax(1) == wanted)[wanted >= 0].float().mean()
        return total, right


def clip_config(vocabulary: int) -> CLIPConfig:
    """Sizes of the nano CLIP."""
    text = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": TEXT_LENGTH,
        "vocab_size": vocabulary,
        "bos_token_id": CLIP_BEGIN,
        "eos_token_id": CLIP_END,
        "pad_token_id": CLIP_PAD,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "image_size": LOW,
        "patch_size": PATCH,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=96)


def train_towers(
    tokenizer: Tokenizer,
    clip_folder: Path,
    convnext_folder: Path,
    *,
    minutes: float,
    batch: int,
    workers: int,
) -> None:
    """Train both for `minutes` and write them in half precision, as the kit's zoo has them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    clip: Any = CLIPModel(clip_config(tokenizer.get_vocab_size())).to(device)
    convnext = ConvNextTower(ConvNextConfig((2, 2, 4, 2), (40, 80, 144, 204), 0.0)).to(device)
    clip_heads = Heads(clip.config.vision_config.hidden_size).to(device)
    last = convnext.config.dims[-1]
    cell_heads, fine_heads = Heads(last).to(device), Heads(convnext.config.dims[-2]).to(device)
    modules = nn.ModuleList([clip, convnext, clip_heads, cell_heads, fine_heads])
    optimizer = torch.optim.AdamW(
        modules.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05
    )
    loader = DataLoader(
        DrawnScenes(tokenizer.to_str(), batch, seed=2), batch_size=None, num_workers=workers
    )
    started = time.time()
    for step, (pictures, ids, truth) in enumerate(replayed(loader, TIMES, device)):
        share = (time.time() - started) / (minutes * 60)
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 200) * max(0.01, 1 - share)
        high = normalized(pictures)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out = clip(
                input_ids=ids,
                attention_mask=(ids != CLIP_PAD).long(),
                pixel_values=low_resolution(high, LOW),
                output_hidden_states=True,
                return_loss=True,
            )
            patches = out.vision_model_output.hidden_states[SELECTED][:, 1:]
            patch_loss, patch_right = clip_heads(patches.unflatten(1, (GRID, GRID)), truth)
            maps = convnext(high)
            cell_loss, cell_right = cell_heads(maps[-1].permute(0, 2, 3, 1), truth)
            fine = nn.functional.avg_pool2d(maps[-2], 2).permute(0, 2, 3, 1)
            fine_loss, _ = fine_heads(fine, truth)
        loss = out.loss + patch_loss + cell_loss + 0.5 * fine_loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            shown = {
                "contrast": out.loss.item(),
                **{f"clip {k}": v for k, v in patch_right.items()},
                **{f"convnext {k}": v for k, v in cell_right.items()},
            }
            line = ", ".join(f"{key} {float(value):.3f}" for key, value in shown.items())
            print(f"towers {step}: {line}", flush=True)
    clip.half().save_pretrained(clip_folder)
    CLIPImageProcessor(
        size={"shortest_edge": LOW},
        crop_size={"height": LOW, "width": LOW},
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
    ).save_pretrained(clip_folder)
    _write_convnext(convnext, convnext_folder)


def _write_convnext(tower: ConvNextTower, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in tower.trunk_weights().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    settings = {
        "model_cfg": {
            "embed_dim": tower.config.dims[-1],
            "vision_cfg": {
                "timm_model_name": "convnext_nano_scenes",
                "timm_drop_path": 0.0,
                "image_size": HIGH,
            },
        }
    }
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2))
