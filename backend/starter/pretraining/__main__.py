"""Make the model zoo: `python -m backend.starter.pretraining OUT PART [--minutes M]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Tokenizer

from backend.starter.pretraining import tokenizers
from backend.starter.pretraining.language_model import train_language_model
from backend.starter.pretraining.towers import train_towers


def main() -> None:
    """Train the part that was asked for and write it below the folder."""
    parser = argparse.ArgumentParser(prog="python -m backend.starter.pretraining")
    parser.add_argument("out", type=Path)
    parser.add_argument("part", choices=("llm", "towers"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--start", type=Path, help="a language model to go on from")
    arguments = parser.parse_args()
    pace = {name: getattr(arguments, name) for name in ("minutes", "batch", "workers")}
    if arguments.part == "llm":
        folder = arguments.out / "llm"
        known = arguments.start
        tokenizer = (
            Tokenizer.from_file(str(known / "tokenizer.json"))
            if known
            else tokenizers.gemma_tokenizer()
        )
        train_language_model(tokenizer, folder, start=known, **pace)
        tokenizers.write_gemma_tokenizer(tokenizer, folder)
    else:
        tokenizer = tokenizers.clip_tokenizer()
        folder = arguments.out / "vision_tower"
        train_towers(tokenizer, folder, arguments.out / "vision_tower_aux", **pace)
        tokenizers.write_clip_tokenizer(tokenizer, folder)


if __name__ == "__main__":
    main()
