"""Keys that earlier configuration files contain and that have no effect here: they are accepted with a warning."""

from __future__ import annotations

from pusher.config.schema import Setting, unused

#: Accepted; the command that would have read one names it at its start.
UNUSED: tuple[Setting[str], ...] = (
    unused("feedback.kafka.topics", text="Accepted, no effect: topics are named `push-<game>-<platform>-feedbacks`."),
    unused("feedback.kafka.topic", text="Accepted, no effect: topics are named `push-<game>-<platform>-feedbacks`."),
    unused("feedback.cache.cleaningInterval"),
    unused("stats.statsd.buflen", text="Accepted, no effect: metrics share datagrams of at most 1432 bytes."),
    unused("pprof.enabled", text="Accepted, no effect: see `admin.debug`."),
    unused("pprof.host", text="Accepted, no effect: see `admin.host`."),
    unused("pprof.port", text="Accepted, no effect: see `admin.port`."),
)
