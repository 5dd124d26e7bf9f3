"""Training's tests run as training does: on one thread (worker/device.py)."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
