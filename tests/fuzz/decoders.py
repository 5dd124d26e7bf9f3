"""Record batches of bent readings, and bent record batches, through both decoders."""

from __future__ import annotations

import functools
import random

import numpy as np
from kafka.errors import UnsupportedCodecError

from tests.factory import FEATURES
from tests.fuzz.corpus import bent
from tests.worker.record_batches import Content, Kind, batch_of, fetched, marker_of, signed
from worker import compiled
from worker.codec.columns import ColumnDecoder, Decoded
from worker.codec.lines import LEAST
from worker.codec.readings import ReadingSchema
from worker.codec.rules import FLOAT32_MAX
from worker.entities import Entities
from worker.errors import StreamError
from worker.kafka import damage
from worker.kafka.batches import RecordBatch
from worker.kafka.damage import Damage
from worker.kafka.rawfetch import WholeBatches
from worker.records import LATEST_MS

AT_ONCE = 200                           # readings of a batch
FEW = 4                                 # of a batch that is plain for the rest, and so read as one text by Python
SCHEMAS = (
    ReadingSchema(FEATURES),
    ReadingSchema(FEATURES, entity_field="machine"),
    ReadingSchema(FEATURES, timestamp_field=None, max_record_bytes=300),
    ReadingSchema(FEATURES[2:]),
)
PLAIN = b'{"machine":"pump-3","temperature":1.5,"pressure":2,"flow":-3e1,"timestamp":1764000000000}'
MOST_ENTITIES = 5_000
KEYS = (b"pump-1", b"pump-2", None, b"", b"\xff", b"x" * 600)
Outcome = tuple[object, ...]


def ways() -> tuple[str, ...]:
    return ("python", "compiled") if compiled.built() else ("python",)


def readings(chance: random.Random) -> int:
    """A sound batch of bent readings: each is read or refused, by both decoders the same. Returns the inputs."""
    schema = chance.choice(SCHEMAS)
    inputs = chance.choice((1, 2, FEW, AT_ONCE))
    contents = [
        Content(chance.choice((1_764_000_000_000, 0, -1, 2**62)), chance.choice(KEYS), bent(chance), [])
        for _ in range(inputs)
    ]
    if inputs <= FEW:
        contents += [Content(1_764_000_000_000, b"pump-1", PLAIN, []) for _ in range(LEAST)]
        chance.shuffle(contents)
    raw, _ = batch_of(contents, 7, Kind(codec=chance.choice((0, 0, 0, 1, 2, 3, 4))))
    (batch,) = fetched(WholeBatches, raw).take(None)
    outcomes = {way: decoded_by(way, schema, [batch]) for way in ways()}
    assert len(set(outcomes.values())) == 1, outcomes
    return inputs


def batches(chance: random.Random) -> int:
    """A run of batches, bent: what can be read is read, the rest is named, and the end is reached."""
    raw = _run(chance)
    again = bent(chance, [raw], [b"\0" * 8, b"\xff" * 8, b"\x7f" * 4, raw[:61], raw[-30:]])
    if chance.random() < 0.4 and len(again) > 61:
        again = signed(again)           # the checksum holds then, and the length: a faulty producer's
    schema = chance.choice(SCHEMAS)
    part = fetched(
        functools.partial(WholeBatches, damage=Damage(1)), again, fetch_offset=chance.choice((0, 0, 3, 1_000)),  # type: ignore[arg-type]
        aborted=chance.choice(([], [(7, 0)])), committed=chance.random() < 0.5,
    )
    found: list[RecordBatch] = []
    at = part.fetch_offset
    try:
        while part:
            for batch in part.take(chance.choice((1, 3, None))):
                assert batch.next_offset > at
                at = batch.next_offset
                found.append(batch)
    except (UnsupportedCodecError, damage.CorruptRecordError):
        pass                            # a codec that nobody knows; a length that leads nowhere
    assert all(refusal.record.offset >= part.fetch_offset for refusal in damage.refusals(found))
    for batch in found:
        outcomes = {way: decoded_by(way, schema, [batch]) for way in ways()}
        assert len(set(outcomes.values())) == 1, outcomes
    return 1


def _run(chance: random.Random) -> bytes:
    raw, offset = b"", 0
    for _ in range(chance.choice((1, 1, 2, 3))):
        kind = Kind(
            codec=chance.randrange(5), magic=chance.choice((2, 2, 2, 2, 1, 0)), producer_id=chance.choice((-1, 7)),
            append_time=chance.random() < 0.2, gap=chance.choice((1, 1, 3)),
        )
        kind = kind._replace(transactional=kind.producer_id >= 0 and chance.random() < 0.5)
        contents = [Content(1_764_000_000_000 + i, b"k", bent(chance), []) for i in range(chance.choice((1, 2, 6)))]
        more, offset = batch_of(contents, offset, kind)
        raw += more
        if kind.transactional:
            more, offset = marker_of(chance.random() < 0.5, 7, offset)
            raw += more
    return raw


def decoded_by(way: str, schema: ReadingSchema, given: list[RecordBatch]) -> Outcome:
    decoder, entities = _decoder(way, schema)
    if len(entities) > MOST_ENTITIES:           # what was seen before must not count for what comes of an input
        _decoder.cache_clear()
    try:
        decoded = decoder.decode(given)
    except StreamError as error:
        return (str(error),)
    _is_sound(decoded)
    batch = decoded.batch
    refused = sorted((why.record.offset, why.code, why.message, why.feature, why.rows) for why in decoded.refused)
    return (
        batch.x_BF.tobytes(), batch.timestamp_ms_B.tobytes(), batch.offset_B.tobytes(), batch.rows_B.tobytes(),
        batch.partition_B.tobytes(),
        tuple(entities.names[code] for code in batch.entity_B), tuple(refused), decoded.value_bytes,
    )


@functools.cache
def _decoder(way: str, schema: ReadingSchema) -> tuple[ColumnDecoder, Entities]:
    entities = Entities()
    compiled.choose(way)  # type: ignore[arg-type]
    try:
        return ColumnDecoder(schema, entities), entities
    finally:
        compiled.choose("auto")


def _is_sound(decoded: Decoded) -> None:
    """What may come before the model: numbers of 32 bits, or nothing."""
    batch = decoded.batch
    assert batch.x_BF.dtype == np.float32
    assert not np.isinf(batch.x_BF).any()
    assert (np.abs(batch.x_BF[~np.isnan(batch.x_BF)]) <= FLOAT32_MAX).all()
    assert (batch.timestamp_ms_B <= LATEST_MS).all()
    assert len(batch.x_BF) == len(batch.offset_B) == len(batch.entity_B) == len(batch.timestamp_ms_B)
