"""What a safetensors file says that it holds, compared with the model before memory is given to either.

The format: eight bytes, the header's length; the header, a JSON object of tensors by name; their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

MAX_HEADER_BYTES = 2**20
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def misfit(weights: bytes, model: Mapping[str, torch.Tensor]) -> str | None:
    """Why these cannot be the model's tensors; None where names, shapes and types are the same.

    model: its state; on the device `meta` it takes no memory.
    """
    length = int.from_bytes(weights[:8], "little")
    if length > min(len(weights) - 8, MAX_HEADER_BYTES):
        return f"a header of {length} bytes in a file of {len(weights)}"
    try:
        header = json.loads(weights[8 : 8 + length])
        found = {name: (one["dtype"], tuple(one["shape"])) for name, one in header.items() if name != "__metadata__"}
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return "its header is not that of safetensors"
    for name, tensor in model.items():
        if name not in found:
            return f"there is no {name}"
        dtype, shape = found[name]
        if DTYPES.get(dtype) != tensor.dtype or shape != tuple(tensor.shape):
            return f"{name} is {str(dtype)[:16]} {str(shape)[:64]}, not {tensor.dtype} {tuple(tensor.shape)}"
    if len(found) > len(model):
        return f"{len(found)} tensors, where the model has {len(model)}"
    return None
