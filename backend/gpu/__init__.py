"""What the graphics cards say of themselves."""

from backend.gpu.nvml import (
    Device,
    DeviceProcess,
    DeviceReadings,
    process_memory,
    read_devices,
)
from backend.gpu.visible import visible_cards, visible_devices

__all__ = [
    "Device",
    "DeviceProcess",
    "DeviceReadings",
    "process_memory",
    "read_devices",
    "visible_cards",
    "visible_devices",
]
