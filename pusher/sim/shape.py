"""Unusual but legal layouts of an answer in frames (RFC 9113, 4.3, 6.2, 6.10, 8.1), made by rewriting h2's output."""

from dataclasses import dataclass

from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame


@dataclass(frozen=True)
class Shape:
    """How an answer is laid out in frames; every shape is legal HTTP/2."""

    continuation: int = 0  #: cut the header block into fragments of so many bytes
    padding: int = 0  #: bytes of padding in HEADERS and DATA
    interim: int = 0  #: a 1xx status sent before the answer
    trailers: bool = False  #: a trailing header block ends the stream


PLAIN = Shape()


def reshaped(data: bytes, shape: Shape) -> bytes:
    """Serialized frames with their header blocks padded, or cut into fragments of shape.continuation bytes."""
    out = []
    view = memoryview(data)
    while view:
        frame, length = Frame.parse_frame_header(view[:9])
        frame.parse_body(view[9 : 9 + length])
        view = view[9 + length :]
        out += _fragments(frame, shape) if isinstance(frame, HeadersFrame) else [frame]
    return b"".join(frame.serialize() for frame in out)


def _fragments(frame: HeadersFrame, shape: Shape) -> list[Frame]:
    if shape.padding:
        frame.flags.add("PADDED")
        frame.pad_length = shape.padding
    if not shape.continuation:
        return [frame]
    block, frame.data = frame.data[shape.continuation :], frame.data[: shape.continuation]
    frame.flags.discard("END_HEADERS")
    fragments = [
        ContinuationFrame(frame.stream_id, block[start : start + shape.continuation])
        for start in range(0, max(len(block), 1), shape.continuation)
    ]
    fragments[-1].flags.add("END_HEADERS")
    return [frame, *fragments]
