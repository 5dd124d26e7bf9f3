"""What the records of a state partition add up to, for one who takes over the input partition.

The next owner needs each entity's state at the stand S and reads the input again from there. Of each entity the last
record counts, for that is what compaction keeps. Its row may be older than S: that is as good, if no reading of the
entity lies between. The owner that took the snapshot vouches for that where it wrote the row, or found it when it
loaded the partition (below `log_start`). For what another wrote behind its back it does not vouch. Such a record is
*late*: of a worker that had stopped, lost the partition and woke; or one that was given up, and landed all the same.
From S on it does no harm. An older one may stand in the place of a newer row, so its entity is read again from the
late row's own offset: the row is old, but it is true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.records import Record
from worker.state.snapshots import DamagedRow, Row, Stand, name_of, unpack

REREAD_LIMIT = 1_000_000                # readings of a partition, for the sake of late rows; seconds


class Loaded(NamedTuple):
    """A whole state partition."""

    records: Sequence[Record]   # committed ones, of each key at least the last, in the log's order
    end: int                    # offset after the log's last record
    topic_id: str
    unreadable: int = 0         # offsets in damaged batches


@dataclass
class Restored:
    """How to go on with a partition.

    Read the input from `replay_from` and, below the committed offset, keep silent. An entity with a row takes in its
    readings from its row's next_offset on; any other those from `others_from` on.
    """

    stand: Stand                # what to commit with, until a snapshot of one's own is complete
    replay_from: int
    others_from: int
    rows: dict[str, Row] = field(default_factory=dict)      # without data: begins afresh, at its own offset
    rewrite: set[str] = field(default_factory=set)          # the next snapshot must hold them, be it as dropped
    late: int = 0               # entities read again from further back
    lost: Counter[str] = field(default_factory=Counter)     # entities that begin afresh, by reason
    afresh: str = ""            # why the partition begins without its state, where it could have had one

    def lose(self, name: str, why: str) -> None:
        self.lost[why] += 1
        self.rewrite.add(name)


def restore(loaded: Loaded, note: str, committed: int, earliest: int, layout: str, owner: int) -> Restored:
    """What the next owner makes of a state partition.

    loaded: read after the committed offset was fetched.
    note: the committed offset's metadata.
    committed, earliest: of the input partition: where the group is, and the first offset that can still be read.
    layout: of the States that the rows are for; rows of another layout are no use.
    owner: a new one, drawn at random.
    """
    stand = Stand.read(note)
    why = _refusal(loaded, stand, committed, earliest)
    if stand is None or why:
        names = {name for record in loaded.records if (name := name_of(record)) is not None}
        empty = Stand(committed, owner, owner, loaded.end, loaded.topic_id)
        return Restored(empty, committed, committed, rewrite=names, afresh=why if names or stand else "")
    restored = Restored(stand, stand.offset, stand.offset)
    for name, record in {name_of(record): record for record in loaded.records}.items():
        if name is not None:            # whoever wrote another, it hides no row: their keys are names
            _settle(restored, name, record, committed, earliest, layout)
    return restored


def _refusal(loaded: Loaded, stand: Stand | None, committed: int, earliest: int) -> str:
    """Why none of the rows can be used; empty where they can."""
    if stand is None:
        return "the committed offset names no snapshot: the group is new, or a tool has set its offsets"
    if stand.topic_id != loaded.topic_id:
        return "the state topic was made anew"
    if loaded.unreadable:
        return f"{loaded.unreadable} offsets of the state topic are damaged"
    if stand.offset > committed:
        return f"the snapshot stands at {stand.offset}, after the committed offset {committed}"
    if stand.offset < earliest:
        return f"readings from {stand.offset} on are needed, and those before {earliest} were deleted"
    return ""


def _settle(restored: Restored, name: str, record: Record, committed: int, earliest: int, layout: str) -> None:
    """Adds one entity, by its last record."""
    stand = restored.stand
    try:
        row = unpack(record)
    except DamagedRow:
        return restored.lose(name, "damaged")
    if row.life != stand.life:
        if record.offset >= stand.log_start:
            return restored.lose(name, "another_life")
        restored.rewrite.add(name)                  # left over from before all began afresh
        return None
    if row.next_offset > committed:
        return restored.lose(name, "ahead")         # the group's offsets went back: the broker has lost a commit
    if row.data is not None and row.layout != layout:
        return restored.lose(name, "layout")
    vouched = row.owner == stand.owner or record.offset < stand.log_start
    if row.next_offset < stand.offset and not vouched:
        if row.next_offset < max(earliest, stand.offset - REREAD_LIMIT):
            return restored.lose(name, "late")
        restored.late += 1
        restored.replay_from = min(restored.replay_from, row.next_offset)
    elif row.data is None and row.next_offset <= stand.offset:
        return None                                 # dropped, and not heard of since
    restored.rows[name] = row
    return None
