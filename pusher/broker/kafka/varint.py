"""How Kafka writes numbers of any size: seven bits an octet, the lowest first (protocol guide, "Primitive Types").

A compact length is such a number as it is; the fields of a record are signed and are made positive first ("zigzag").
"""


def unsigned_varint(number: int) -> bytes:
    """The octets of a number that is not negative."""
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)
