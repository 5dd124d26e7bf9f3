"""A topic that several processes read, some partitions each: every one has all of it afterwards.

Legend: B readings.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from training import ranks
from training.history.extent import Extent
from training.history.spool import COLUMNS, Spool
from worker.entities import Entities
from worker.records import Batch


class Shard(NamedTuple):
    """left_out: records that were no readings, by why."""

    batch: Batch
    entities: Entities
    left_out: Counter[str]


def agreed(found: Extent) -> Extent:
    """The first one's: the topic grows while they look."""
    if ranks.size() == 1:
        return found
    spans, whole = ranks.told([sorted((p, *span) for p, span in found.spans.items()), found.whole])[0]
    return Extent({partition: (start, end) for partition, start, end in spans}, whole)


def first_known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of what each found in its own first records, the first that found any."""
    return next((tuple(found) for found in ranks.told(names) if found), ())


def together(shard: Shard) -> Shard:
    """All of them, one after the other; the same in every process."""
    if ranks.size() == 1:
        return shard
    entities, codes_of = Entities(), []
    for names, partitions in ranks.told([shard.entities.names, shard.entities.partitions]):
        codes = [entities.code(partition, name) for name, partition in zip(names, partitions, strict=True)]
        codes_of.append(np.array(codes, np.int32))
    columns = {name: ranks.columns(getattr(shard.batch, name)) for name in COLUMNS}
    with contextlib.closing(Spool(shard.batch.x_BF.shape[1])) as spool:
        for number, codes_E in enumerate(codes_of):
            part = Batch(**{name: found[number] for name, found in columns.items()})
            spool.append(replace(part, entity_B=codes_E[part.entity_B]))
        batch = spool.batch()
    left_out = sum(map(Counter, ranks.told(shard.left_out)), Counter[str]())
    return Shard(batch, entities, left_out)
