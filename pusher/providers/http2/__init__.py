"""HTTP/2 as a client, for many small requests over few long connections.

`Pool` keeps links open and spreads requests over them, `Link` is one socket with its greenlets, `Connection` is the
protocol without I/O. A request is an `Exchange`; it comes back through the pool's queue with its `End`.
"""

from pusher.providers.http2.connection import MAX_BODY, Connection, ConnectionFailed
from pusher.providers.http2.exchange import End, Exchange
from pusher.providers.http2.header_block import Fields, literal_field
from pusher.providers.http2.link import Patience
from pusher.providers.http2.pool import Policy, Pool, PoolFailed, PoolState
from pusher.providers.http2.transport import Origin

__all__ = [
    "MAX_BODY",
    "Connection",
    "ConnectionFailed",
    "End",
    "Exchange",
    "Fields",
    "Origin",
    "Patience",
    "Policy",
    "Pool",
    "PoolFailed",
    "PoolState",
    "literal_field",
]
