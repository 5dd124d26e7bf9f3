"""A bounded part of a history that is fair to every entity: one loud machine must not own the model.

Windows and charts need readings that follow each other, so whole blocks are drawn, not single readings; and the newest
of each entity stay together, for they are what is held out.

Legend: N readings, E entities, K kept ones.
"""

from __future__ import annotations

import numpy as np

from worker.records import I32, I64

BLOCK = 256                             # readings that stay together


def quota(count_E: I64, most: int) -> int:
    """The largest number q for which min(count, q) of every entity is no more than `most` in all; at least 1."""
    ascending_E = np.sort(count_E)
    left, many = most, len(ascending_E)
    for i, count in enumerate(ascending_E.tolist()):
        share = left // (many - i)
        if count > share:
            return max(share, 1)
        left -= count
    return int(ascending_E[-1]) if many else 1


def fair(entity_N: I32, most: int, newest_share: float, seed: int) -> I64:
    """Places of at most `most` readings (more only where there are more entities), in their order.

    Of an entity that has more than its quota, the newest `newest_share` of the quota and blocks drawn from the rest.
    """
    if len(entity_N) <= most:
        return np.arange(len(entity_N))
    order_N = np.argsort(entity_N, kind="stable")
    _, start_E, count_E = np.unique(entity_N[order_N], return_index=True, return_counts=True)
    each = quota(count_E, most)
    draw = np.random.default_rng(seed)
    kept = []
    for start, count in zip(start_E.tolist(), count_E.tolist(), strict=True):
        mine_K = np.arange(count) if count <= each else _of_one(count, each, newest_share, draw)
        kept.append(order_N[start + mine_K])
    return np.sort(np.concatenate(kept))


def _of_one(count: int, each: int, newest_share: float, draw: np.random.Generator) -> I64:
    newest = max(int(each * newest_share), 1)
    older, wanted = count - newest, each - newest
    block = min(BLOCK, max(wanted, 1))
    blocks = draw.permutation(-(-older // block))[: -(-wanted // block) + 1]    # the last may be a short one
    place_K = (blocks[:, None] * block + np.arange(block)).ravel()
    place_K = np.sort(place_K[place_K < older][:wanted])
    return np.asarray(np.r_[place_K, np.arange(older, count)])
