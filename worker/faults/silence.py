"""Entities that fall silent, by the time that passes in their partition's stream.

Stream time is what the other readings say, not this machine's clock: a replay finds the same. It passes when a
reading is newer than all before it in its partition, so that late and buffered readings do not count. Two things keep
one wrong clock, or an outage of everything, from calling the others silent: a timestamp counts only once two readings
in a row have reached it, and a step longer than the silence looked for is no time in which anyone could have spoken.
An entity's own clock does not matter at all: what is kept of its last reading is the stream's time then.

Where all entities of a partition stop together, or it has but one, its stream time stands still: `idle_ms` is for that.

Legend: B readings, E entities of a batch.
"""

from __future__ import annotations

import numpy as np

from worker import compiled, places
from worker.faults.faults import Finding
from worker.records import I64, Batch
from worker.state.state import Column, States
from worker.state.visits import Visits

BEFORE_ALL_MS = -(2**62)                # no timestamp is so old; differences to it still fit an int64


def fields() -> tuple[Column, ...]:
    """Of an entity's last reading; `resume` finds the stream's place in those of the newest."""
    return (
        Column("quality_offset", "<i8", (), -1.0),                   # its place (worker/places.py); -1: none yet
        Column("quality_timestamp_ms", "<i8"),                       # its own
        Column("quality_newest_ms", "<i8"),                          # the stream's newest timestamp
        Column("quality_stream_ms", "<i8"),                          # the stream's time
        Column("quality_silent", "<i1"),                             # whether its silence since was said
    )


# Where a partition stands: timestamp of its last reading; the newest that two readings in a row have reached; how much
# time has passed.
_LAST, _NEWEST, _TIME = range(3)
_UNREAD = (BEFORE_ALL_MS, BEFORE_ALL_MS, 0)


class Silence:
    """silent_after_seconds: None is never."""

    def __init__(self, silent_after_seconds: float | None) -> None:
        self._after_ms = None if silent_after_seconds is None else max(1, round(silent_after_seconds * 1000))
        self._core = compiled.core()
        self._stream_PK = np.empty((0, len(_UNREAD)), np.int64)         # by number of the partition

    def resume(self, states: States, partition: int, codes: I64) -> None:
        """Goes on where the rows of all the partition's entities stand."""
        self._reserve(partition)
        self._stream_PK[partition] = _UNREAD
        if len(codes):
            states.reserve(int(codes.max()) + 1)
            newest = codes[np.argmax(places.order(states["quality_offset"][codes]))]
            if states["quality_offset"][newest] >= 0:
                kept = ("quality_timestamp_ms", "quality_newest_ms", "quality_stream_ms")
                self._stream_PK[partition] = [states[name][newest] for name in kept]

    def update(self, states: States, batch: Batch, visits: Visits) -> list[Finding]:
        """Takes readings in; returns the silences that they end and that nobody had asked about.

        What is silent is thereby a matter of the stream alone, however often `silent` is called and however the
        stream is cut into batches.
        """
        before_B, time_B, newest_B = self._pass(batch)
        code_E, order_B = visits.code_E, visits.order_B
        spoke_B = visits.before(time_B[order_B], states["quality_stream_ms"][code_E])
        gap_B = before_B[order_B] - spoke_B
        found = []
        if self._after_ms is not None and (gap_B > self._after_ms).any():
            told_E = states["quality_silent"][code_E].astype(np.bool_) | (states["quality_offset"][code_E] < 0)
            gap_B[visits.start_E[told_E]] = 0
            offset_B = visits.before(batch.place_B[order_B], states["quality_offset"][code_E])
            stamp_B = visits.before(batch.timestamp_ms_B[order_B], states["quality_timestamp_ms"][code_E])
            for place in np.flatnonzero(gap_B > self._after_ms).tolist():
                i = int(order_B[place])
                found.append(
                    _finding(
                        row=i,
                        entity=int(batch.entity_B[i]),
                        partition=int(batch.partition_B[i]),
                        offset=int(offset_B[place]),
                        timestamp_ms=int(stamp_B[place]),
                        silence_ms=int(gap_B[place]),
                    )
                )
        last_E = order_B[visits.last_E]
        states["quality_offset"][code_E] = batch.place_B[last_E]
        states["quality_timestamp_ms"][code_E] = batch.timestamp_ms_B[last_E]
        states["quality_newest_ms"][code_E] = newest_B[last_E]
        states["quality_stream_ms"][code_E] = time_B[last_E]
        states["quality_silent"][code_E] = 0
        return found

    def silent(self, states: States, partition: int, codes: I64, idle_ms: int = 0) -> list[Finding]:
        """Those of the partition's entities (codes) that are silent and were not called so before.

        For the loop to ask after a batch or an empty poll, about once a second: only how soon a silence is known
        depends on it. The event is about the entity's last reading: its partition and offset make the event's id, so
        that whoever finds the silence, and how often, it is one event.

        idle_ms: how long the partition has had nothing more to give, by a monotonic clock, where the worker has read
        it to its end; 0 else. It is what finds the last entity of a partition silent, or all. A replay does not repeat
        what was found by it alone.
        """
        if self._after_ms is None or partition >= len(self._stream_PK) or not len(codes):
            return []
        states.reserve(int(codes.max()) + 1)
        silence_N = self._stream_PK[partition, _TIME] + idle_ms - states["quality_stream_ms"][codes]
        new_N = (silence_N > self._after_ms) & (states["quality_offset"][codes] >= 0)
        new_N &= states["quality_silent"][codes] == 0
        found = np.flatnonzero(new_N).tolist()
        states["quality_silent"][codes[found]] = 1
        return [
            _finding(
                row=None,
                entity=int(codes[n]),
                partition=partition,
                offset=int(states["quality_offset"][codes[n]]),
                timestamp_ms=int(states["quality_timestamp_ms"][codes[n]]),
                silence_ms=int(silence_N[n]),
            )
            for n in found
        ]

    def _pass(self, batch: Batch) -> tuple[I64, I64, I64]:
        """Stream time before and after each reading, and the newest timestamp after it, in order of arrival."""
        before_B, time_B, newest_B = passed = tuple(np.empty(len(batch), np.int64) for _ in range(3))
        self._reserve(int(batch.partition_B.max(initial=-1)))
        if self._core is not None:
            given = np.ascontiguousarray(batch.partition_B), np.ascontiguousarray(batch.timestamp_ms_B)
            self._core.pass_time(*given, self._after_ms or 0, self._stream_PK, passed)
            return before_B, time_B, newest_B
        for partition in np.unique(batch.partition_B).tolist():
            stream_K = self._stream_PK[partition]
            at = np.flatnonzero(batch.partition_B == partition)
            stamps = np.concatenate((stream_K[[_LAST]], batch.timestamp_ms_B[at]))
            reached = np.concatenate((stream_K[[_NEWEST]], np.minimum(stamps[1:], stamps[:-1])))
            newest = np.maximum.accumulate(reached)
            step = np.diff(newest)
            step[step > (self._after_ms or 0)] = 0
            time = stream_K[_TIME] + np.concatenate(([0], np.cumsum(step)))
            before_B[at], time_B[at], newest_B[at] = time[:-1], time[1:], newest[1:]
            stream_K[:] = stamps[-1], newest[-1], time[-1]
        return before_B, time_B, newest_B

    def _reserve(self, partition: int) -> None:
        more = partition + 1 - len(self._stream_PK)
        if more > 0:
            self._stream_PK = np.concatenate((self._stream_PK, np.full((more, len(_UNREAD)), _UNREAD, np.int64)))


def _finding(row: int | None, entity: int, partition: int, offset: int, timestamp_ms: int, silence_ms: int) -> Finding:
    return Finding("silent", row, entity, partition, offset, timestamp_ms, amounts=(silence_ms / 1000,))
