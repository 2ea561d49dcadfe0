"""Which cards a process of this environment sees, under names that mean one card each."""

from __future__ import annotations

import os

from backend.gpu.nvml import Device, DeviceReadings, read_devices

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_cards(readings: DeviceReadings | None = None) -> list[str]:
    """The cards in the order in which CUDA numbers them; empty where only the processor is left.

    A card is named by the driver's index however the variable names it (index, UUID, or the
    beginning of one), a slice of one (MIG) by its own name. Like CUDA, the first name that says
    nothing ends the list. Without a driver to ask, names are taken as they are.

    Args:
        readings: Of the driver; None asks it now.
    """
    readings = read_devices() if readings is None else readings
    given = os.environ.get(VARIABLE)
    if given is None:
        return [str(device.index) for device in readings.devices]
    found: list[str] = []
    for word in given.split(","):
        card = _card(word.strip(), readings)
        if card is None:
            break
        if card not in found:
            found.append(card)
    return found


def visible_devices() -> list[Device]:
    """What the driver says now of the cards of `visible_cards`, in their order."""
    readings = read_devices()
    known = {str(device.index): device for device in readings.devices}
    return [known[card] for card in visible_cards(readings) if card in known]


def _card(word: str, readings: DeviceReadings) -> str | None:
    """What a word of the variable names; None when it names nothing."""
    if word.startswith("MIG-"):
        return word
    if word.isdecimal():
        known = not readings.devices or int(word) < len(readings.devices)
        return str(int(word)) if known else None
    if not word.startswith("GPU-"):
        return None
    if not readings.devices:
        return word
    named = [device for device in readings.devices if (device.uuid or "").startswith(word)]
    return str(named[0].index) if len(named) == 1 else None
