"""What a device can do at best, measured: matrix products, memory, the way to it, and small kernels in a row.

A figure of a benchmark is worth telling beside the limit that binds it, from the same minute of the same machine.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

Kind = Literal["float32", "tf32", "bf16"]
KINDS: tuple[Kind, ...] = ("float32", "tf32", "bf16")
ROUNDS = 7
CHAIN = 200                             # kernels in a row


class Limits(NamedTuple):
    """A second, or seconds where the name says so."""

    flops: dict[Kind, float]
    memory_bytes: float                 # of the device, read and written
    host_bytes: float                   # copied by one thread of the host
    to_device_bytes: float              # from pinned memory
    from_device_bytes: float
    kernel_seconds: float               # of a small kernel that waits for the one before, launched by a graph


def seconds_of(work: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """The median of rounds, warmed up, by the device's clock where it has one."""
    work()
    found = []
    for _ in range(rounds):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize(device)
            start.record()
            work()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end) / 1000)
        else:
            begin = time.perf_counter()
            work()
            found.append(time.perf_counter() - begin)
    return statistics.median(found)


@contextmanager
def products(*, tf32: bool) -> Iterator[None]:
    """Which matrix products float32 gets: torch keeps that for the process, so it is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measured(device: torch.device) -> Limits:
    on_card = device.type == "cuda"
    kinds = KINDS if on_card else KINDS[:1]
    host = host_rate()
    return Limits(
        flops={kind: product_rate(device, kind, 8192 if on_card else 1024) for kind in kinds},
        memory_bytes=memory_rate(device) if on_card else 2 * host,
        host_bytes=host,
        to_device_bytes=link_rate(device, there=True) if on_card else float("inf"),
        from_device_bytes=link_rate(device, there=False) if on_card else float("inf"),
        kernel_seconds=kernel_seconds(device) if on_card else 0.0,
    )


def product_rate(device: torch.device, kind: Kind, size: int) -> float:
    """Of random numbers: zeros are faster."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    if kind == "bf16":
        a, b = a.bfloat16(), b.bfloat16()
    with products(tf32=kind == "tf32"):
        return 2 * size**3 / seconds_of(lambda: a @ b, device)


def memory_rate(device: torch.device) -> float:
    source, target = (torch.rand(2**29, device=device) for _ in range(2))
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device)


def link_rate(device: torch.device, *, there: bool) -> float:
    host = torch.rand(2**26).pin_memory()
    card = torch.rand(2**26, device=device)
    source, target = (host, card) if there else (card, host)
    return host.nbytes / seconds_of(lambda: target.copy_(source, non_blocking=True), device)


def host_rate() -> float:
    """Bytes copied, each counted once."""
    source, target = np.random.default_rng(0).random(2**24), np.empty(2**24)
    return source.nbytes / seconds_of(lambda: np.copyto(target, source), torch.device("cpu"))


def kernel_seconds(device: torch.device) -> float:
    x = torch.zeros(32, device=device)
    graph = torch.cuda.CUDAGraph()
    x.add_(1.0)
    with torch.cuda.graph(graph):
        for _ in range(CHAIN):
            x.add_(1.0)
    return seconds_of(graph.replay, device) / CHAIN


def described(device: torch.device, limits: Limits) -> str:
    rates = ", ".join(f"{kind} {rate / 1e12:.3g}" for kind, rate in limits.flops.items())
    told = f"torch {torch.__version__}, products {rates} TFLOP/s; host copy {limits.host_bytes / 1e9:.3g} GB/s"
    if device.type != "cuda":
        return f"{processor()}, {torch.get_num_threads()} thread, {told}"
    return (
        f"{torch.cuda.get_device_name(device)}, {told}; device memory {limits.memory_bytes / 1e12:.3g} TB/s; link "
        f"{limits.to_device_bytes / 1e9:.3g} GB/s there, {limits.from_device_bytes / 1e9:.3g} back; a small kernel in "
        f"a graph {limits.kernel_seconds * 1e6:.2f} µs"
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
