"""The stats reporter ``statsd``: DogStatsD's format, with the prefix directly before the name and many lines per
datagram.

If a host cannot be resolved, one warning is logged, and it is looked up again in the background. With UDP it is unknown
whether a server listens. An ICMP refusal is ignored, because metrics must not stop pushes.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import gevent
from statsd import StatsClient
from statsd.client.udp import Pipeline

from pusher.config.addresses import HostPort, SocketAddress
from pusher.config.kinds import Text
from pusher.config.schema import Setting
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.telemetry.log import logger
from pusher.telemetry.metrics import Metric
from pusher.telemetry.stats import Reporter, Sample

log = logger(__name__)

HOST = Setting("stats.statsd.host", HostPort(8125), SocketAddress("localhost", 8125), "StatsD server (UDP).")
PREFIX = Setting("stats.statsd.prefix", Text(), "test", "Prefix of every metric name; no dot is added between them.")

#: A timing sends at most this many durations a report, with their rate.
_DURATIONS = 200
_UNSAFE = str.maketrans({"\n": None, "\r": None, "|": "_", ",": "_"})

#: What passes every Ethernet without fragments.
MAX_DATAGRAM = 1_432
#: How long an address is used, or its absence accepted, before it is looked up again.
_RESOLVE_PERIOD_S = 60.0


class _Client(StatsClient):  # type: ignore[misc]  # carries no types
    """Sends text whose characters stand for bytes, so that its lengths are those of the datagrams."""

    def _send(self, data: str) -> None:
        try:
            self._sock.sendto(data.encode("latin-1"), self._addr)
        except OSError as error:
            log.debug("metrics were not sent", error=str(error))


def open_reporter(config: Config) -> Reporter:
    """The door's object. Does not wait."""
    return Statsd(config[HOST], config[PREFIX])


class Statsd:
    """One StatsD server."""

    def __init__(self, address: SocketAddress, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._prefix, self._clock = address, prefix, clock
        self._client: _Client | None = None
        self._resolve_at = 0.0
        self._resolver: gevent.Greenlet[[], None] | None = None
        self._warned = False

    def report(self, samples: Sequence[Sample]) -> None:
        """Waits as ``send``."""
        self.send([line for sample in samples for line in _lines(sample)])

    def send(self, lines: Sequence[str]) -> None:
        """Sends lines such as ``sent:1|c|#game:a`` in few datagrams; drops them while the host has no address.

        Waits for the first look-up, at most a second, and later only for the socket.
        """
        self._look_up()
        if self._client is None or not lines:
            return
        batch = Pipeline(self._client)
        for line in lines:
            batch._after((self._prefix + line).encode().decode("latin-1"))  # noqa: SLF001  # its way in for ready lines
        batch.send()

    def check(self) -> str:
        """Verifies that the host has an address; whether it listens cannot be known (UDP)."""
        host, port = self._address
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            raise StartError(f"{HOST.key}: {host} does not resolve ({error}): no metrics will reach it") from None
        return f"{HOST.key}: {host} is {found[0][4][0]}"

    def _look_up(self) -> None:
        if self._clock() >= self._resolve_at and (self._resolver is None or self._resolver.dead):
            self._resolve_at = self._clock() + _RESOLVE_PERIOD_S
            self._resolver = gevent.spawn(self._resolve)
            if self._client is None:
                self._resolver.join(timeout=1.0)

    def _resolve(self) -> None:
        """Waits for the name service, in gevent's own way."""
        host, port = self._address
        try:
            ipv6 = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][0] == socket.AF_INET6
            client = _Client(host, port, prefix=None, maxudpsize=MAX_DATAGRAM + 1, ipv6=ipv6)
        except (OSError, UnicodeError) as error:
            if not self._warned:
                log.warning(
                    "StatsD host cannot be resolved, metrics are dropped until it can", host=host, error=str(error)
                )
            self._warned = True
            return
        if self._warned:
            log.info("StatsD host resolved", host=host)
            self._warned = False
        old, self._client = self._client, client
        if old is not None:
            old.close()


def _lines(sample: Sample) -> Iterator[str]:
    name, tail = sample.metric.name, _tags(sample.metric, sample.tags)
    if sample.metric.kind == "count":
        yield f"{name}:{sample.added:d}|c{tail}"
    elif sample.metric.kind == "gauge":
        yield f"{name}:{sample.value:f}|g{tail}"
    else:
        durations, rate = sample.durations_ms, ""
        if len(durations) > _DURATIONS:
            rate = f"|@{_DURATIONS / len(durations):.6f}"
            durations = random.sample(durations, _DURATIONS)
        for duration in durations:
            yield f"{name}:{duration:f}|ms{rate}{tail}"


@lru_cache(maxsize=4_096)
def _tags(metric: Metric, tags: tuple[str, ...]) -> str:
    """``|#tag:value,...``; characters that would break a line are replaced."""
    pairs = [f"{name}:{text.translate(_UNSAFE)}" for name, text in zip(metric.tags, tags, strict=True)]
    return f"|#{','.join(pairs)}" if pairs else ""
