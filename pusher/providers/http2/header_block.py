"""Header blocks: how requests are packed and answers are read (HPACK, RFC 7541).

Outbound. A block is  head (method, scheme, authority) | path | tail (the `Fields` of this kind of request) | literals.
Head and tail go through hpack's dynamic table, so that from the second time on each field is one octet; path and
literals never touch the table. The encoded head and tail are remembered as long as the table stays as it was: an
insertion shifts every index, so whichever block inserted something empties the memory. Fields which would push others
out of a full table are sent as literals; only once in `EVICTION_PAUSE` blocks may they push. So renewed tokens find
their way in, and more kinds of requests than the table holds do not make every block an encoding.

Inbound. We announce a table of size 0, so that each block stands alone and need not be decoded where its beginning says
all that anybody asks for: status 200, and the refusals that name no time to come again; that is 70 us less for each
dead token. All others go through hpack's decoder.

There are peers that index all the same (h2o 2.2 among them). One that obeys begins a block with a table size of 0 (RFC
7541, 4.2). Until then the blocks that were not decoded are kept, up to `KEPT_OCTETS`, and go through the decoder before
the next one that has to be decoded, or when they are many: where that leaves entries in the table the peer indexes, and
from then on every block is decoded. What betrays itself later, by a reference to an entry that we cannot have
(`PeerIndexes`), costs the connection; the next one is read with a table.
"""

import re
from typing import Final

import hpack
from hpack.exceptions import HPACKError, InvalidTableIndexError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable, table_entry_size

TABLE_OCTETS: Final = 4096
"""The largest table that we use in either direction, whatever the peer allows."""
MAX_LIST_OCTETS: Final = 32 * 1024
"""A decoded header list above this is refused."""
EVICTION_PAUSE: Final = 10_000
"""Blocks between two of which the table may push old entries out."""
KEPT_OCTETS: Final = 64 * 1024
"""Blocks of a peer that has not shown a table size of 0 are kept up to here, and then decoded."""
MAX_REMEMBERED: Final = 1024
"""Kinds of requests whose encoded fields are remembered."""

STATUS_200: Final = 0x88
TABLE_SIZE_0: Final = 0x20

_FORBIDDEN = re.compile(rb"[\r\n\0]").search
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch


class HeaderBlockError(Exception):
    """The peer's header block cannot be decoded: a connection error (RFC 9113, section 4.3)."""


class PeerIndexes(HeaderBlockError):
    """The peer refers to a table entry though we announced a table of size 0."""


def refuse_line_breaks(value: bytes) -> None:
    """Raise ValueError where a header value holds CR, LF or NUL (RFC 9113, section 8.2.1)."""
    if _FORBIDDEN(value):
        raise ValueError("CR, LF or NUL in a header value")


def _checked(name: bytes, value: bytes) -> None:
    if not _NAME(name):
        raise ValueError(f"not a lower-case header name: {name!r}")
    refuse_line_breaks(value)


def _integer(value: int, prefix_bits: int, pattern: int = 0) -> bytes:
    """RFC 7541, section 5.1; `pattern` are the bits above the prefix."""
    top = (1 << prefix_bits) - 1
    if value < top:
        return bytes((pattern | value,))
    out = bytearray((pattern | top,))
    value -= top
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_LENGTHS: Final = tuple(_integer(n, 7) for n in range(512))


def length(text: bytes) -> bytes:
    """The length prefix of a string without Huffman coding."""
    n = len(text)
    return _LENGTHS[n] if n < 512 else _integer(n, 7)


def literal_field(name: bytes, value: bytes, *, never_indexed: bool = False) -> bytes:
    """A field as a literal without indexing, new name (RFC 7541, section 6.2.2; 6.2.3 when never indexed).

    Raises ValueError for a name that is not lower-case or a value with CR, LF or NUL.
    """
    _checked(name, value)
    return b"".join((b"\x10" if never_indexed else b"\x00", length(name), name, length(value), value))


def _telling_beginnings() -> dict[bytes, int]:
    """Every way in which a block may begin with a status that needs no other field, and the status.

    An entry of the static table, or a literal whose name is entry 8 (:status), indexed or not, Huffman-coded or not.
    """
    huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    # 429 may say when to come again, and the date of a 403 whose clock is wrong; interim answers are not needed
    statuses = {*range(100, 200), 200, *range(400, 500)} - {403, 429}
    beginnings: dict[bytes, int] = {}
    for status in statuses:
        plain = str(status).encode()
        coded = huffman.encode(plain)
        for value in (length(plain) + plain, bytes((0x80 | len(coded),)) + coded):
            beginnings |= {bytes((kind,)) + value: status for kind in (0x08, 0x18, 0x48)}
    for index, (name, value) in enumerate(HeaderTable.STATIC_TABLE, start=1):
        if name == b":status" and int(value) in statuses:
            beginnings[bytes((0x80 | index,))] = int(value)
    return beginnings


_TELLING: Final = _telling_beginnings()


class Fields:
    """The header fields that a kind of requests has in common, in order: Fields((b"apns-topic", b"com.a"), ...).

    Immutable and compared by identity: make one for each kind and use it again. Raises ValueError as `literal_field`.
    """

    __slots__ = ("method", "pairs")

    def __init__(self, *pairs: tuple[bytes, bytes], method: bytes = b"POST") -> None:
        for name, value in pairs:
            _checked(name, value)
        self.pairs = pairs
        self.method = method

    def value(self, name: bytes) -> bytes | None:
        """The value of the first field of that name."""
        return next((value for known, value in self.pairs if known == name), None)


class RequestBlocks:
    """Packs the head and tail of request header blocks for one connection."""

    def __init__(self, authority: bytes) -> None:
        refuse_line_breaks(authority)
        self._origin = ((b":scheme", b"https"), (b":authority", authority))
        self._encoder = hpack.Encoder()
        self._limit = self._lowest_limit = TABLE_OCTETS
        self._remembered: dict[Fields, tuple[bytes, bytes]] = {}
        self._changed = False
        self._blocks_until_eviction = 0

    def limit_table(self, octets: int) -> None:
        """The peer announced SETTINGS_HEADER_TABLE_SIZE; the next block tells the peer the size in use."""
        self._limit = min(octets, TABLE_OCTETS)
        self._lowest_limit = min(self._lowest_limit, self._limit)
        self._remembered.clear()

    def head_and_tail(self, fields: Fields) -> tuple[bytes, bytes]:
        """The bytes before the value of :path and after it. Each result must be sent, in the order of the calls."""
        self._blocks_until_eviction -= 1
        known = self._remembered.get(fields)
        if known is not None:
            return known
        self._changed = False
        # 0x04: literal without indexing, the name is entry 4 (:path) of the static table.
        pseudo = ((b":method", fields.method), *self._origin)
        head = self._resized() + b"".join([self._field(name, value) for name, value in pseudo]) + b"\x04"
        tail = b"".join([self._field(name, value) for name, value in fields.pairs])
        if self._changed or len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        if not self._changed:
            self._remembered[fields] = head, tail
        return head, tail

    def _resized(self) -> bytes:
        """Size updates owed to the peer: the smallest limit since the last block, then the last one (section 4.2)."""
        encoder = self._encoder
        for limit in (self._lowest_limit, self._limit):
            # Setting the size it has makes hpack forget an update that it still owes.
            if limit != encoder.header_table_size and (limit == self._limit or limit < encoder.header_table_size):
                encoder.header_table_size = limit
                self._changed = True
        self._lowest_limit = self._limit
        return encoder.encode([])

    def _field(self, name: bytes, value: bytes) -> bytes:
        table = self._encoder.header_table
        known = table.search(name, value)
        if known is not None and known[2] is not None:
            return self._encoder.add((name, value), sensitive=False)
        if not self._may_insert(table_entry_size(name, value)):
            index = known[0] if known else 0
            named = _integer(index, 4) if index else b"\x00" + length(name) + name
            return named + length(value) + value
        self._changed = True
        return self._encoder.add((name, value), sensitive=False)

    def _may_insert(self, octets: int) -> bool:
        table = self._encoder.header_table
        used = sum(table_entry_size(name, value) for name, value in table.dynamic_entries)
        if octets > table.maxsize:
            return False
        if used + octets <= table.maxsize:
            return True
        if self._blocks_until_eviction > 0:
            return False
        self._blocks_until_eviction = EVICTION_PAUSE
        return True


class ResponseBlocks:
    """Reads the peer's header blocks. `indexing`: with a dynamic table, every block in order.

    `wanted` is the name of a field for which a block is decoded whatever its status; b"" for none.
    """

    def __init__(self, *, indexing: bool, wanted: bytes = b"") -> None:
        self.indexing = indexing
        self._wanted = wanted
        self._wanted_coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(wanted)
        #: What we announce.
        self.table_octets = TABLE_OCTETS if indexing else 0
        #: The peer has not shown yet that it obeys: blocks that are not decoded have to be kept.
        self.keeps = not indexing
        self._kept: list[bytes] = []
        self._kept_octets = 0
        # Not the announced size: the decoder would refuse every block of a peer that has not taken it over yet.
        self._decoder = hpack.Decoder(MAX_LIST_OCTETS)
        self._decoder.max_allowed_table_size = TABLE_OCTETS

    def keep(self, block: bytes) -> None:
        """A block that was not decoded, while `keeps`. Raises HeaderBlockError."""
        self._kept.append(block)
        self._kept_octets += len(block)
        if block[:1] == b"\x20":
            self._obeys()
        elif self._kept_octets > KEPT_OCTETS:
            self._catch_up()
            if not self.indexing:
                self._obeys()

    def _obeys(self) -> None:
        """Nothing is in the peer's table and nothing will be."""
        self._catch_up()
        self.keeps = False
        self._decoder.header_table_size = 0

    def _catch_up(self) -> None:
        """Decodes the kept blocks; then it is known whether the peer indexes."""
        kept, self._kept, self._kept_octets = self._kept, [], 0
        for block in kept:
            self._decode(block)
        self._look_at_table()

    def _look_at_table(self) -> None:
        if self.keeps and self._decoder.header_table.dynamic_entries:
            self.indexing, self.keeps = True, False

    def wants(self, octets: bytes) -> bool:
        """Whether the wanted name is in a block, or in several."""
        return bool(self._wanted) and (self._wanted_coded in octets or self._wanted in octets)

    def status(self, block: bytes) -> int:
        """The status, where the rest of the block need not be decoded; otherwise 0."""
        if self.indexing or self.wants(block):
            return 0
        if block[:1] == b"\x20":  # the size of the table, 0
            block = block[1:]
        octets = 1 if block[:1] >= b"\x80" else 2 + (block[1] & 0x7F if len(block) > 1 else 0)
        return _TELLING.get(block[:octets], 0)

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """All fields, in order. Raises HeaderBlockError."""
        if self._kept:
            self._catch_up()
        fields = self._decode(block)
        self._look_at_table()
        return fields

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except InvalidTableIndexError as error:
            if self.indexing:
                raise HeaderBlockError(str(error)) from error
            raise PeerIndexes(str(error)) from error
        except HPACKError as error:
            raise HeaderBlockError(str(error)) from error
