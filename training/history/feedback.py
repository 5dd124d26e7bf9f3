"""What people say of events: a topic of their own, read whole at each training.

    {"event_id": "6a0f…", "label": "false_alarm"}

    anomaly         it was one: the readings around it are never learnt
    expected        an anomaly that was meant, such as a test run: no fault, and learnt
    false_alarm     nothing was wrong: learnt, and the threshold rises above it, within its bound
    new_normal      the machine works like that from here on: learnt, and so is what came after

The last word on an event counts. Other fields (who, why) are welcome and not looked at.

Legend: L labelled readings.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, get_args
from uuid import NAMESPACE_URL, UUID

import msgspec
import numpy as np
from msgspec import Meta

from training.history.history import History
from training.progress import Progress
from training.settings import Settings
from worker.detection.detector import Detector
from worker.kafka import topics
from worker.places import WHOLE
from worker.records import F64, Batch, Bools

Label = Literal["anomaly", "expected", "false_alarm", "new_normal"]
LABELS: tuple[Label, ...] = get_args(Label)
NORMAL: tuple[Label, ...] = ("expected", "false_alarm", "new_normal")
MOST_RECORDS = 200_000                  # that are read, the newest
MOST_LABELS = 500                       # that a version is scored at, the newest
RUN_UP = 500                            # readings before, to warm the memory


class Verdict(msgspec.Struct, frozen=True):
    """A record of the feedback topic."""

    event_id: Annotated[UUID, Meta(description="Of the anomaly event that it is about.")]
    label: Annotated[Label, Meta(description="What the event was.")]


@dataclass
class Feedback:
    labels: dict[UUID, Label] = field(default_factory=dict)     # the newest last
    invalid: int = 0

    def take(self, value: bytes | None) -> None:
        """One record. None takes nothing back: what was said of an event can only be said anew."""
        try:
            said = _DECODER.decode(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.invalid += 1
            return
        self.labels.pop(said.event_id, None)
        self.labels[said.event_id] = said.label

    @property
    def counted(self) -> dict[str, int]:
        """By label, and `invalid`."""
        counted = Counter[str](self.labels.values())
        return dict(counted) | ({"invalid": self.invalid} if self.invalid else {})


_DECODER = msgspec.json.Decoder(Verdict)


def read(settings: Settings, progress: Progress) -> Feedback:
    """All that was said. A topic that is not there says nothing. Raises BrokerError."""
    found, name = Feedback(), settings.training.feedback.topic
    if name is None:
        return found
    for record in sorted(topics.newest(settings, name, MOST_RECORDS), key=lambda record: record.timestamp):
        found.take(record.value)
    if found.counted:
        progress.say("feedback: " + ", ".join(f"{count:,} {label}" for label, count in found.counted.items()))
    return found


def rows(history: History, feedback: Feedback) -> dict[int, Label]:
    """Readings that were labelled, by their row in the history; the newest label last."""
    if not feedback.labels or not history.ranges:
        return {}
    wanted = {event.bytes: i for i, event in enumerate(feedback.labels)}
    said = list(feedback.labels.values())
    start = hashlib.sha1(NAMESPACE_URL.bytes + f"kafka:{history.ranges[0].topic}/".encode(), usedforsecurity=False)
    found: list[tuple[int, int]] = []
    batch = history.batch
    places = zip(batch.partition_B.tolist(), batch.offset_B.tolist(), batch.rows_B.tolist(), strict=True)
    for row, (partition, offset, of_record) in enumerate(places):
        digest = start.copy()
        digest.update(b"%d/%d" % (partition, offset))
        if of_record != WHOLE:
            digest.update(b"/%d" % of_record)
        at = wanted.get(_uuid5(digest.digest()))
        if at is not None:
            found.append((at, row))
    return {row: said[at] for at, row in sorted(found)}


def _uuid5(digest: bytes) -> bytes:
    """RFC 9562, 5.5; by hand, as there is one to be made for each reading of the history."""
    marked = bytearray(digest[:16])
    marked[6] = (marked[6] & 0x0F) | 0x50
    marked[8] = (marked[8] & 0x3F) | 0x80
    return bytes(marked)


class AtLabels(NamedTuple):
    """What a version makes of labelled readings, each after the readings of its entity before it."""

    label_L: tuple[Label, ...]
    size_L: F64                         # raw score over the version's threshold
    alarm_L: Bools


def scored(detector: Detector, history: History, labels: dict[int, Label]) -> AtLabels:
    """The newest labels at most; history: of all readings, not only of those learnt from."""
    newest = dict(list(labels.items())[-MOST_LABELS:])
    if not newest:
        return AtLabels((), np.empty(0), np.empty(0, bool))
    batch = history.batch
    order_N = np.argsort(batch.entity_B, kind="stable")
    place_N = np.empty_like(order_N)
    place_N[order_N] = np.arange(len(order_N))
    sorted_N = batch.entity_B[order_N]
    stretches, ends = [], []
    for row in newest:
        place = int(place_N[row])
        begin = int(np.searchsorted(sorted_N, batch.entity_B[row], side="left"))
        stretches.append(order_N[max(begin, place - RUN_UP) : place + 1])
        ends.append(len(stretches[-1]))
    picked = batch.take(np.concatenate(stretches))
    code_B = np.repeat(np.arange(len(stretches), dtype=np.int32), ends)
    scores = detector.score_history(
        Batch(picked.x_BF, code_B, picked.timestamp_ms_B, picked.partition_B, picked.offset_B)
    )
    last_L = np.cumsum(ends) - 1
    return AtLabels(
        tuple(newest.values()), scores.raw_B[last_L] / detector.threshold, scores.anomalous_B[last_L]
    )
