"""Arrow streams, bent: each is read, in part or whole, or refused, both decoders say the same, and none takes much
memory.
"""

from __future__ import annotations

import functools
import random

import pyarrow as pa

from tests.fuzz.corpus import bent
from tests.fuzz.decoders import SCHEMAS, decoded_by, ways
from tests.worker.record_batches import Content, Kind, batch_of, fetched
from tests.worker.streams import lists_of, stream
from worker.codec.readings import STREAM
from worker.codec.streams import EXPANSION
from worker.kafka.rawfetch import WholeBatches

AT_ONCE = 20                            # streams of a batch
NUMBERS = (
    0, 1, 2, 8, 255, 256, 1_000, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63 - 1, -1, -2, -(2**31),
    -(2**63),
)
KEYS = (b"line-1", None, b"\xff")


@functools.cache
def seeds() -> tuple[bytes, ...]:
    names = pa.array(["pump-1", "pump-2", "pump-1", None])
    numbers = {
        "temperature": [20.0, None, float("nan"), 1e39], "pressure": [1, 2, None, 4], "flow": [True, None, False, True],
    }
    stamps = pa.array([1_764_000_000_000_000 + i for i in range(4)], pa.timestamp("us", "UTC"))
    return (
        stream({**numbers, "machine": names, "timestamp": stamps}),
        stream({**numbers, "machine": names.dictionary_encode(), "timestamp": stamps}, "lz4", cuts=(1, 3)),
        stream({**numbers, "entity": names.dictionary_encode(), "timestamp": [1, 2, 3, None]}, "zstd", cuts=(2,)),
        stream({"values": lists_of("fixed", [[1, 2, 3], [4, None, 6], None]), "timestamp": ["2025-11-24", "x", None]}),
        stream({"values": lists_of("list", [[1, 2, 3], [4], None]), "entity": [1, 2, 3]}),
        stream({"values": lists_of("large", [[1, 2, 3], [4, 5, 6, 7]]), "more": [{"a": [1]}, None]}, "zstd"),
        stream({"flow": pa.array([0.0] * 3_000), "entity": pa.array(["x"] * 3_000).dictionary_encode()}, "zstd"),
        stream({"flow": pa.nulls(5), "view": pa.array(["of a text that is long", *"abcd"], pa.string_view())}),
        stream({"flow": pa.array([1, 2, 2, 2], pa.float16()), "of": pa.array([b"1234"] * 4, pa.binary(4))}),
        stream({"flow": [1, 2], "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), [1, 2])}),
    )


def streams(chance: random.Random) -> int:
    schema = chance.choice(SCHEMAS)
    contents = [
        Content(chance.choice((1_764_000_000_000, 0, 2**62)), chance.choice(KEYS), _stream(chance), [])
        for _ in range(AT_ONCE)
    ]
    raw, _ = batch_of(contents, 7, Kind())
    (batch,) = fetched(WholeBatches, raw).take(None)
    outcomes = {way: decoded_by(way, schema, [batch]) for way in ways()}
    assert len(set(outcomes.values())) == 1, outcomes
    most = max(one.max_record_bytes for one in SCHEMAS)
    assert pa.default_memory_pool().max_memory() < 4 * EXPANSION * most, "an input made it allocate without bound"
    return AT_ONCE


def _stream(chance: random.Random) -> bytes:
    """Numbers of the metadata and of sizes lie at places that 4 divides: they are exchanged for others."""
    if chance.random() < 0.3:
        return STREAM + bent(chance, seeds(), [STREAM, b"\0" * 8, b"\xff" * 8])[4:]
    raw = bytearray(chance.choice(seeds()))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        width = chance.choice((1, 2, 4, 8))
        at = chance.randrange(4, len(raw) - 8) // min(width, 4) * min(width, 4)
        number = chance.choice((*NUMBERS, chance.randrange(256), chance.randrange(len(raw))))
        raw[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
    if chance.random() < 0.1:
        del raw[chance.randrange(4, len(raw)) :]
    return bytes(raw)
