"""What is inside the frames that come in, checked: padding, priority, header blocks spread over CONTINUATION frames.

Everything here raises `ConnectionFailed` for what the peer must not send.
"""

from typing import Final, NamedTuple

from pusher.providers.http2.frames import CONTINUATION, END_HEADERS, PADDED, PRIORITISED, U32, ErrorCode
from pusher.providers.http2.stream_0 import ConnectionFailed

MAX_BLOCK: Final = 32 * 1024
"""Octets of the largest header block that is collected."""
MAX_BLOCK_FRAMES: Final = 1024


class HeaderBlock(NamedTuple):
    """A whole header block; the flags are those of its HEADERS frame."""

    stream_id: int
    flags: int
    block: bytes


class HeaderBlocks:
    """Puts header blocks together. While one is `open` no other frame may come."""

    def __init__(self) -> None:
        self.open = False
        self._stream_id = 0
        self._flags = 0
        self._frames = 0
        self._collected = bytearray()

    def begin(self, stream_id: int, flags: int, payload: bytes) -> HeaderBlock | None:
        """A HEADERS frame; the block when it is whole."""
        fragment = unpadded(flags, payload)
        if flags & PRIORITISED:
            if len(fragment) < 5:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            fragment = fragment[5:]
        if flags & END_HEADERS:
            return HeaderBlock(stream_id, flags, fragment)
        self.open = True
        self._stream_id, self._flags, self._frames, self._collected = stream_id, flags, 1, bytearray(fragment)
        return None

    def go_on(self, kind: int, stream_id: int, flags: int, payload: bytes) -> HeaderBlock | None:
        """The frame that came while a block was open, or a CONTINUATION; the block when it is whole."""
        if not self.open or kind != CONTINUATION or stream_id != self._stream_id:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a header block interrupted, or without a beginning")
        self._collected += payload
        self._frames += 1
        if len(self._collected) > MAX_BLOCK or self._frames > MAX_BLOCK_FRAMES:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a header block larger than we allow")
        if not flags & END_HEADERS:
            return None
        self.open = False
        return HeaderBlock(stream_id, self._flags, bytes(self._collected))


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a HEADERS or DATA frame without its padding."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def number(payload: bytes) -> int:
    """The payload of RST_STREAM or WINDOW_UPDATE."""
    if len(payload) != 4:
        raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a frame of a wrong size")
    value: int = U32.unpack(payload)[0]
    return value


class Goaway(NamedTuple):
    """The content of a GOAWAY frame."""

    last_stream_id: int
    code: int
    debug: bytes


def goaway(stream_id: int, payload: bytes) -> Goaway:
    """The fields of a GOAWAY frame."""
    if stream_id:
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
    if len(payload) < 8:
        raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a GOAWAY too short")
    return Goaway(U32.unpack_from(payload)[0] & 0x7FFF_FFFF, U32.unpack_from(payload, 4)[0], payload[8:])
