"""The partitions that are this worker's: where each goes on, what of it is read again in silence, its snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from worker.metrics import Metrics
from worker.records import I32, I64, Batch
from worker.source import Source
from worker.state.snapshotter import Snapshotter
from worker.watch import Watch


class _Silence:
    """A partition that is read again from before its committed offset, to bring its rows up to it."""

    def __init__(self, until: int, others_from: int) -> None:
        self.until, self.others_from = until, others_from
        self.from_of: dict[int, int] = {}       # by entity code: offset that its row stands at


class Partitions:
    """snapshotter: None where no state is kept."""

    def __init__(self, source: Source, watch: Watch, snapshotter: Snapshotter | None, metrics: Metrics) -> None:
        self._source, self._watch, self._snapshotter, self._metrics = source, watch, snapshotter, metrics
        self._done: dict[int, int] = {}
        self._silent: dict[int, _Silence] = {}

    def begin(self, partition: int) -> None:
        """Where the group left off, with the state of then. Raises BrokerError, CommitLost.

        A group that never was here commits its first place at once. Otherwise `latest` would mean a later place after
        a crash, and lose the readings between.
        """
        start = self._source.start(partition)
        replay_from = start.offset
        if self._snapshotter is not None:
            restored = self._snapshotter.restore(
                partition, start.offset, start.note, start.earliest, self._watch.states.layout
            )
            self._watch.restore(partition, restored)
            replay_from = restored.replay_from
            if replay_from < start.offset:
                silence = _Silence(start.offset, restored.others_from)
                codes = self._watch.entities.of_partition(partition)
                silence.from_of = {codes[name]: row.next_offset for name, row in restored.rows.items()}
                self._silent[partition] = silence
            self._metrics.state_restored(partition, restored, start.offset)
        self._source.seek(partition, replay_from)
        self._done[partition] = start.offset
        if start.fresh:
            self._source.commit({partition: start.offset}, self.notes([partition]))

    def release(self, partition: int) -> None:
        self._done.pop(partition, None)
        self._silent.pop(partition, None)
        self._watch.release(partition)
        if self._snapshotter is not None:
            self._snapshotter.release(partition)

    def holds(self, partition: int) -> bool:
        return partition in self._done

    def silent(self, partition: int, offset: int) -> bool:
        """Whether this reading was answered before, by this worker or another."""
        silence = self._silent.get(partition)
        return silence is not None and offset < silence.until

    def split(self, batch: Batch) -> tuple[Batch, Batch]:
        """What is taken in without a word, and what is answered; of the first, what a row holds already is left out."""
        if not self._silent:
            return batch.take(slice(0)), batch
        silent_B = np.zeros(len(batch), bool)
        known_B = np.zeros(len(batch), bool)
        for partition, silence in self._silent.items():
            here_B = (batch.partition_B == partition) & (batch.offset_B < silence.until)
            silent_B |= here_B
            known_B |= here_B & (batch.offset_B < self._from(silence, batch))
        return batch.take(silent_B & ~known_B), batch.take(~silent_B)

    def touched(self, codes: I32) -> None:
        """These entities' rows have changed."""
        if self._snapshotter is not None:
            self._snapshotter.touch(codes)

    def due(self, offsets: Mapping[int, int]) -> dict[int, int]:
        """Of the next offsets to read, those that are to be committed: not what is only read again."""
        done: dict[int, int] = {}
        for partition, offset in offsets.items():
            silence = self._silent.get(partition)
            if silence is not None and offset >= silence.until:
                del self._silent[partition]
            if silence is None or offset > silence.until:
                done[partition] = offset
        return done

    def notes(self, partitions: Iterable[int]) -> dict[int, str]:
        """What is committed beside the offsets: which snapshot they rest on."""
        if self._snapshotter is None:
            return {}
        return {partition: self._snapshotter.note(partition) for partition in partitions}

    def done(self, offsets: Mapping[int, int]) -> None:
        """The checkpoint has these, and all before: they are committed before rows of state that stand there show."""
        self._done.update({partition: offset for partition, offset in offsets.items() if partition in self._done})

    def live(self) -> list[int]:
        """Partitions that are not read again."""
        return [partition for partition in self._done if partition not in self._silent]

    def snapshot(self) -> None:
        """Between two batches: begins the snapshot that is due, and sees to those on their way. Raises BrokerError."""
        if self._snapshotter is None:
            return
        partition = self._snapshotter.due()
        if partition is not None:
            self._begin_snapshot(partition)
        self.settled()

    def last_snapshots(self) -> None:
        """On leaving: of every partition."""
        for partition in self._done:
            self._begin_snapshot(partition)

    def settled(self) -> bool:
        """Sees to the snapshots on their way; whether all have come to their end."""
        if self._snapshotter is None or not self._snapshotter.busy:
            return True
        for settled in self._snapshotter.settle():
            self._metrics.snapshot_settled(settled)
        return not self._snapshotter.busy

    def held(self) -> dict[int, int]:
        """The offsets up to which readings are done, and where rows stand."""
        return {partition: self._done[partition] for partition in self.live()}

    def _begin_snapshot(self, partition: int) -> None:
        if self._snapshotter is not None and partition in self.held():
            self._snapshotter.begin(
                partition, self._done[partition], self._watch.states, self._watch.model_sha256
            )

    def forget(self, partition: int, names: Iterable[str]) -> None:
        if self._snapshotter is not None:
            self._snapshotter.forget(partition, names)

    def rewrite_all(self) -> None:
        """Another model version: rows mean something else."""
        if self._snapshotter is not None:
            self._snapshotter.rewrite_all()

    def _from(self, silence: _Silence, batch: Batch) -> I64:
        """By reading: the offset from which on its entity takes readings in."""
        codes, inverse_B = np.unique(batch.entity_B, return_inverse=True)
        from_E = np.array([silence.from_of.get(code, silence.others_from) for code in codes.tolist()], np.int64)
        return np.asarray(from_E[inverse_B])
