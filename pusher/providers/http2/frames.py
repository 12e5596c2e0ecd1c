"""The shapes of HTTP/2 frames (RFC 9113, section 4.1 and 6).

A frame is nine octets of head (24 bits length, 8 bits type, 8 bits flags, 32 bits stream) and a payload. `HEAD` packs
and unpacks length and type as one number, `length << 8 | type`, because one shift is cheaper than a fourth field.
"""

import enum
import struct
from typing import Final

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

HEAD: Final = struct.Struct(">IBI")
HEAD_OCTETS: Final = 9
U32: Final = struct.Struct(">I")
MAX_31_BITS: Final = 2**31 - 1
"""The largest stream id and the largest window."""


class ErrorCode(enum.IntEnum):
    """The error codes of RFC 9113, section 7, that we send or look for."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One whole frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload
