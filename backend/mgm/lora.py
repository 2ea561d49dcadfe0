"""What makes a LoRA adapter, and the file that tells it. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.mgm.settings import read_settings

CONFIG_FILE = "adapter_config.json"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Lora:
    """What makes an adapter.

    Attributes:
        rank: Inner size.
        alpha: The update is scaled by alpha / rank.
        dropout: Before the first matrix, in training.
        targets: Which linear layers of each decoder layer; never one of a vision tower.
    """

    rank: int = 64
    alpha: float = 16
    dropout: float = 0.05
    targets: Sequence[str] = field(default=TARGETS)

    def check(self) -> None:
        """Refuse what no adapter can be.

        Raises:
            ValueError: The rank is below one, the dropout no probability, or a target unknown.
        """
        if self.rank < 1:
            raise ValueError(f"the rank is at least 1, not {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"the dropout is a probability below 1, not {self.dropout}")
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown or not self.targets:
            raise ValueError(f"targets are some of {', '.join(TARGETS)}, not {unknown}")


def read_adapter_config(path: Path) -> Lora:
    """The adapter's settings.

    Raises:
        InputError: It is missing, or asks for something other than plain LoRA.
    """
    file = path / CONFIG_FILE
    values: dict[str, Any] = read_settings(file)
    plain = {
        "peft_type": "LORA",
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "fan_in_fan_out": False,
    }
    for name, wanted in plain.items():
        if values.get(name, wanted) != wanted:
            raise InputError(
                f"{name} is {values[name]!r}, and only {wanted!r} is supported.",
                place=str(file),
                remedy="Merge this adapter with the tool that made it.",
            )
    for name in ("modules_to_save", "layers_to_transform", "rank_pattern", "alpha_pattern"):
        if values.get(name):
            raise InputError(
                f"{name} is not supported.",
                place=str(file),
                remedy="Merge this adapter with the tool that made it.",
            )
    try:
        lora = Lora(
            rank=int(values["r"]),
            alpha=float(values["lora_alpha"]),
            dropout=float(values.get("lora_dropout", 0.0)),
            targets=_targets(values["target_modules"]),
        )
        lora.check()
        return lora
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"a field is missing or malformed: {error}.",
            place=str(file),
            remedy="Copy the file again from where the adapter was made.",
        ) from error


def _targets(value: object) -> tuple[str, ...]:
    """Names among `TARGETS`, from a list of suffixes or from a pattern that ends in them."""
    if isinstance(value, str):
        return tuple(name for name in TARGETS if name in value)
    if isinstance(value, list):
        return tuple(str(name).rpartition(".")[2] for name in value)
    raise TypeError("target_modules is neither a list nor a pattern")
