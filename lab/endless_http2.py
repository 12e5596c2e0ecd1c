"""Frames that a server of HTTP/2 may send without end; each costs the client something and answers nothing."""

from __future__ import annotations

import struct

from hyperframe.frame import DataFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame

from lab.http2_wire import answer, block, window_update


def many_settings(number: int) -> bytes:
    """Of parameters that nobody knows; hyperframe would cut their ids to an octet."""
    payload = b"".join(struct.pack(">HI", 1_000 + one, 1) for one in range(number))
    return len(payload).to_bytes(3, "big") + b"\x04\0\0\0\0\0" + payload


FLOODS: dict[str, bytes] = {
    "empty data": DataFrame(1).serialize(),
    "padding only": DataFrame(1, pad_length=3, flags=["PADDED"]).serialize(),
    "settings": SettingsFrame(0).serialize(),
    "settings acknowledged": SettingsFrame(0, flags=["ACK"]).serialize(),
    "window updates": window_update(1, 1),
    "priorities": PriorityFrame(1, depends_on=3).serialize(),
    "unknown frames": b"\0\0\0\x77\0\0\0\0\1",
    "interim answers": answer(1, block((b":status", b"103")), flags=["END_HEADERS"]),
}
#: By what one costs: the work, not the frame.
COSTLY: dict[str, bytes] = {
    "settings of 2,700 parameters": many_settings(2_700),
    "interim answers of 15 KB": answer(1, block((b":status", b"103"), (b"x", b"a" * 15_000)), flags=["END_HEADERS"]),
    "unknown frames of 16 KB": b"\0\x40\0\x77\0\0\0\0\1" + b"x" * 16_384,
    "pings": PingFrame(0, opaque_data=b"12345678").serialize(),
    "resets of streams that are over": RstStreamFrame(1).serialize(),
}
