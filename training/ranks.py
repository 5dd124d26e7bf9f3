"""Training by several processes that `torchrun` starts: who does what, and what they tell one another.

Alone, as usual, a process is rank 0 of 1, and nothing here does anything. Together all read a share of the topic and
pass it round; all then have the same readings, make the same choices, and step by the mean of their gradients. The
first one speaks and publishes. What is passed round is bytes and numbers; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from worker import device
from worker.errors import TrainingError

S = TypeVar("S", Sequence[Any], Tensor)


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    return rank() == 0


def asked() -> bool:
    """Whether torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def device_of(name: str) -> torch.device:
    """This one's of the devices that the setting means. Raises SettingsError."""
    if asked() and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    return device.choose(name)


@contextlib.contextmanager
def joined(device_name: str) -> Iterator[None]:
    """Together with the others, until it ends. Raises SettingsError."""
    if not asked():
        yield
        return
    on = device_of(device_name).type
    dist.init_process_group("cpu:gloo,cuda:nccl" if on == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def share(whole: S) -> S:
    """What of it is this one's to do: a sequence, or a tensor along its first axis."""
    found: S = whole[rank() :: size()]
    return found


def passed_round(content: bytes) -> list[bytes]:
    """Everybody's, by rank."""
    if size() == 1:
        return [content]
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(content)]))
    longest = max(int(length) for length in lengths)
    ours = torch.zeros(longest, dtype=torch.uint8)
    ours[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else ours[:0]
    theirs = [torch.empty(longest, dtype=torch.uint8) for _ in range(size())]
    dist.all_gather(theirs, ours)
    return [found[: int(length)].numpy().tobytes() for found, length in zip(theirs, lengths, strict=True)]


def told(value: Any) -> list[Any]:
    """Everybody's value, by rank; of what JSON knows."""
    return [json.loads(content) for content in passed_round(json.dumps(value).encode())]


def columns(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Everybody's rows, by rank; all of one type and width."""
    found = passed_round(np.ascontiguousarray(rows).tobytes())
    return [np.frombuffer(content, rows.dtype).reshape(-1, *rows.shape[1:]) for content in found]


def require_same(what: str, arrays: Iterable[NDArray[Any]]) -> None:
    """Raises TrainingError, in all of them, where they do not hold the same."""
    if size() == 1:
        return
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    if len(set(told(checksum))) > 1:
        raise TrainingError(f"the {size()} processes have other {what}, one than another: start them anew together")


def summed(tensors: Sequence[Tensor]) -> None:
    """Each becomes the sum of everybody's; one message for all."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
