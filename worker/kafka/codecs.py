"""What record batches are compressed with, by the number that their head gives."""

from __future__ import annotations

from collections.abc import Callable

import kafka.codec as codecs
from kafka.errors import CorruptRecordError, UnsupportedCodecError


def _snappy(data: memoryview) -> bytes:
    return bytes(codecs.snappy_decode(bytes(data)))     # not every python-snappy takes a view


_CODECS: dict[int, tuple[str, str, Callable[[], bool], Callable[[memoryview], bytes]]] = {
    1: ("gzip", "a Python with zlib", codecs.has_gzip, codecs.gzip_decode),
    2: ("snappy", "python-snappy", codecs.has_snappy, _snappy),
    3: ("lz4", "lz4", codecs.has_lz4, codecs.lz4_decode),
    4: ("zstd", "zstandard", codecs.has_zstd, codecs.zstd_decode),
}


def decompressed(codec: int, data: memoryview) -> bytes:
    """Raises CorruptRecordError, and UnsupportedCodecError where nothing here reads it."""
    if codec not in _CODECS:
        raise UnsupportedCodecError(f"records are compressed with codec {codec}, which nobody knows")
    name, package, is_there, decode = _CODECS[codec]
    if not is_there():
        raise UnsupportedCodecError(f"records are compressed with {name}; install what reads it: pip install {package}")
    try:
        return bytes(decode(data))
    except Exception as error:          # each codec has its own
        raise CorruptRecordError(f"{name} cannot decompress it: {error}") from error
