"""Where the model runs."""

from __future__ import annotations

import torch

from worker.errors import SettingsError


def choose(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:N → a device that is there.

    On the CPU torch uses one thread for a block: a block is small, and one thread adds its numbers in one order always.
    Several blocks have threads of their own (worker/threads.py).
    Raises SettingsError where the device asked for is not there.
    """
    torch.set_num_threads(1)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"ZMU_DEVICE is {name!r} but {torch.cuda.device_count()} CUDA devices are visible; "
            "set it to auto or cpu, or make the device visible"
        )
    return device


def memory_bytes(device: torch.device, weights_bytes: int) -> int:
    """What we hold on the device: on CUDA as its allocator counts it, elsewhere the weights."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else weights_bytes
