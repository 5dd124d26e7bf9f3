"""Readings, and what chance makes of them: bits flipped, pieces cut out, doubled, exchanged for worse."""

from __future__ import annotations

import random
from collections.abc import Sequence

SEEDS = (
    b'{"timestamp": 1764000000000, "temperature": 21.5, "pressure": 3.1, "flow": 50}',
    b'{"values": [21.5, null, 3e1], "timestamp": "2025-11-24T16:00:00.123+01:00", "machine": "pump-7"}',
    b'{"temperature":-0.0,"pressure":true,"flow":3.4028234663852886e38,"unit":"\\u00b0C","more":{"of":[1,{}]}}',
    b'{"machine":12,"flow":1e-46,"timestamp":1764000000.25,"pressure":null}',
    '{"flow":1,"unit":"µ\U0001f600","timestamp":"1969-12-31T23:59:59.999999Z"}'.encode(),
)
PIECES = (
    b"NaN", b"-Infinity", b"Infinity", b"1e400", b"-1e400", b"3.5e38", b"1e39", b"1e308", b"5e-324", b"-0", b"01",
    b"1.", b"9" * 400, b"0." + b"0" * 300 + b"1", b"null", b"true", b'""', b'"', b"\\", b'"\\ud800"', b'"\\u0000"',
    b"[", b"]",
    b"[" * 600, b"{" * 600, b'{"a":' * 300, b"}", b",", b":", b" ", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b'"temperature":', b'"values":', b'"values":[1,2,3]', b'"timestamp":', b'"timestamp":-1e300', b'"flow":"1"',
    b'"9999-12-31T23:59:60Z"', b'"0000-00-00T00:00:00Z"', b'"+1000000-01-01T00:00:00Z"', b"1e999999999999",
    b"18446744073709551616", b"-9223372036854775809", b"[1,2,3,4]", b"[]", b"{}",
)


def bent(chance: random.Random, seeds: Sequence[bytes] = SEEDS, pieces: Sequence[bytes] = PIECES) -> bytes:
    """One of the seeds, changed in one to four places, or left as it is."""
    raw = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 4))):
        at = chance.randrange(len(raw) + 1)
        end = min(len(raw), at + chance.choice((1, 1, 2, 4, 8, 30)))
        what = chance.randrange(6)
        if what == 0 and at < len(raw):
            raw[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            del raw[at:end]
        elif what == 2:
            raw[at:at] = raw[at:end] * chance.choice((1, 1, 2, 20))
        elif what == 3:
            raw[at:end] = chance.choice(pieces)
        elif what == 4:
            raw[at:at] = chance.choice(pieces)
        else:
            other = chance.choice(seeds)
            raw[at:] = other[chance.randrange(len(other)) :]
    return bytes(raw)
