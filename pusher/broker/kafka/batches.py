"""Record batches of Kafka that cannot fill the memory: the unpacked size of a compressed batch is limited.

A mebibyte of zstd may contain tens of gibibytes. A batch that unpacks to more than ``MAX_UNPACKED_BYTES`` becomes one
record without a value, at the batch's last offset, so that it counts as a message that can never be sent and the
messages behind it are read. Snappy needs no limit: it cannot pack better than 1 to 22.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import lz4.frame
import zstandard
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import encode_varint

from pusher.telemetry.log import logger

log = logger(__name__)

#: Of one batch. Kafka's own limit is 1 MiB packed, and JSON packs 1 to 10 or so.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024


def _gzip(data: bytes, limit: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return file.read(limit)


def _lz4(data: bytes, limit: int) -> bytes:
    return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit))


def _zstd(data: bytes, limit: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read(limit)


_UNPACK: dict[int, Callable[[bytes, int], bytes]] = {
    DefaultRecordBatch.CODEC_GZIP: _gzip,
    DefaultRecordBatch.CODEC_LZ4: _lz4,
    DefaultRecordBatch.CODEC_ZSTD: _zstd,
}


class BoundedBatch(DefaultRecordBatch):  # type: ignore[misc]  # the library is untyped
    """A batch of the record format that Kafka has written since 0.11."""

    _buffer: bytearray
    _pos: int
    _decompressed: bool
    _header_data: tuple[int, ...]
    _num_records: int

    def _maybe_uncompress(self) -> None:
        unpack = _UNPACK.get(self.compression_type)
        if unpack is not None and not self._decompressed:
            plain = unpack(bytes(self._buffer[self._pos :]), MAX_UNPACKED_BYTES + 1)
            if len(plain) > MAX_UNPACKED_BYTES:
                plain = self._one_for_all()
            self._buffer, self._pos, self._decompressed = bytearray(plain), 0, True
        super()._maybe_uncompress()

    def _one_for_all(self) -> bytes:
        """One record without key, value and headers in the place of all."""
        log.error(
            "a batch of records unpacks to more than the limit and counts as one invalid message",
            first_offset=self.base_offset,
            last_offset=self.last_offset,
            records=self.records_count,
            packed_bytes=self.size_in_bytes,
        )
        self._header_data = (*self._header_data[:12], 1)
        self._num_records = 1
        record = bytearray(b"\0\0")
        for number in (self.last_offset_delta, -1, -1, 0):
            encode_varint(number, record.append)
        return bytes([2 * len(record)]) + record


def bound_batches() -> None:
    """Lets the library make its batches of this class. May be called again."""
    memory_records.DefaultRecordBatch = BoundedBatch
