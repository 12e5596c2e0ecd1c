"""Builds a sender from the configuration, starts it, and stops it in order.

Per app a lane and a service; for all of them one source, one pipeline, the publishers and the stats. An app that cannot
be set up is skipped and tried again every minute, and its topics are not consumed meanwhile.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gevent
from gevent.pool import Group

from pusher.broker import connect
from pusher.broker.interface import Publisher
from pusher.config import Config, settings
from pusher.daemon import readings
from pusher.daemon.admin.port import AdminPort, Watched
from pusher.daemon.consuming import Consuming
from pusher.daemon.process import FLUSH_AT_LEAST_S, Daemon, Step
from pusher.daemon.publishers import Publishers
from pusher.daemon.reporters import FeedbackReporters, open_stats
from pusher.daemon.troubles import Troubles, internal_error
from pusher.errors import StartError
from pusher.providers.provider import OpenLane, Service, provider
from pusher.push.lane import Lane, Totals
from pusher.push.outcome import Kind
from pusher.push.pipeline import Pipeline
from pusher.telemetry import metrics, sentry
from pusher.telemetry.health import Health, Readiness, reasons
from pusher.telemetry.log import logger, tell_left_out
from pusher.telemetry.stats import Sample

log = logger(__name__)

_TICK_S = 1.0
_SET_UP_AGAIN_S = 60.0
_LOOK_S = 0.02
#: The part of an app whose new credentials could not be taken by a fault of ours.
_RELOAD = "reload"


class Sender:
    """The commands ``apns`` and ``gcm``."""

    def __init__(self, platform: str, config: Config) -> None:
        self.platform = platform
        self._config = config
        #: As read last: apps that are set up later and reloaded credentials go by it, everything else by ``_config``.
        self._newest = config
        self._provider = provider(platform)
        self._apps = config[settings.of_provider(platform).apps]
        self._hostname = socket.gethostname()
        self._daemon = Daemon(platform, config[settings.GRACEFUL_SHUTDOWN_TIMEOUT], self.reload)
        self._stats = open_stats(config, self._hostname)
        self._publishers = Publishers(config, partial(self._daemon.greenlets.fail, "publisher"))
        self._reporters = FeedbackReporters(config, self._stats, self._publishers, self._daemon.greenlets)
        self._broker = connect.broker(config, settings.QUEUE.at)
        self._pipeline = Pipeline(
            platform, self._apps, self._invalid_publisher, self._stats, config[settings.QUEUE_INVALID_TOPIC]
        )
        self.services: dict[str, Service] = {}
        #: Apps that could not be set up, and why.
        self._skipped: dict[str, str] = {}
        #: Apps whose set-up is under way, and the greenlets of it.
        self._setting_up: set[str] = set()
        self._set_ups = Group()
        self._reloads = Group()
        self._troubles = Troubles()
        self._readiness = Readiness(self.unready)
        self._stopping = False
        #: When apps that were skipped are tried again (monotonic).
        self._set_up_at = 0.0
        self.admin = AdminPort(config, Watched(platform, self.samples, self.unready, self._daemon.failure))

    def run(self) -> int:
        """Sends until it is stopped; returns the exit code. Raises ``StartError`` when no app can be served."""
        source = self._broker.source(settings.QUEUE, self._pipeline.wanted)
        self._consuming = Consuming(
            source, self._pipeline.submit, self._is_full, self._config[settings.QUEUE.commit_interval]
        )
        spawn = self._daemon.greenlets.spawn
        self.admin.start(spawn)
        self._set_up_side_by_side(self._apps)
        self._await_first_app()
        if not self._daemon.stopping:
            self._log_start()
        spawn("stats", self._stats.run)
        spawn("consuming", self._consuming.run)
        spawn("upkeep", self._upkeep)
        spawn("summary", self._summarize)
        return self._daemon.run(self._stop_order())

    # --- start --------------------------------------------------------------------------------------------------------
    def _log_start(self) -> None:
        log.info(
            "sender started", platform=self.platform, apps=",".join(self.services), production=self._config.production
        )

    def _invalid_publisher(self) -> Publisher:
        return self._publishers.at(settings.QUEUE.at)

    def _set_up_side_by_side(self, apps: Iterable[str]) -> None:
        """Each app in a greenlet of its own: none waits for another's provider. Does not wait."""
        for app in apps:
            if app not in self._setting_up:
                self._setting_up.add(app)
                self._set_ups.spawn(self._set_up, app)

    def _await_first_app(self) -> None:
        """Waits until one app is served. Raises ``StartError`` when all are refused; a stop ends the waiting too."""
        while self._setting_up and not self.services and not self._daemon.stopping:
            gevent.sleep(_LOOK_S)
        if not (self.services or self._setting_up or self._daemon.stopping):
            raise StartError("no app can be served: " + "; ".join(self._skipped.values()))

    def _set_up(self, app: str) -> None:
        """Serves an app, or notes why not."""
        try:
            self._serve(app, self._provider.build(self._newest, app, self._lane_opener(app)))
        except StartError as error:
            self._skip(app, str(error))
        except Exception as error:
            log.exception("setting an app up failed", game=app)
            sentry.report_exception(None, game=app)
            self._skip(app, internal_error("set-up", f"{type(error).__name__}: {error}"))
        finally:
            self._setting_up.discard(app)

    def _skip(self, app: str, reason: str) -> None:
        if app not in self._skipped:
            self._stats.counter(metrics.INITIALIZE_FAILURE, self.platform, app).add()
            log.error("app cannot be served, it is skipped and tried again every minute", game=app, error=reason)
        self._skipped[app] = f"{app}: {reason}"

    def _serve(self, app: str, service: Service) -> None:
        loops = service.loops()
        service.start()
        self._skipped.pop(app, None)
        self.services[app] = service
        self._pipeline.lanes[app] = service.lane
        for name, loop in loops.items():
            self._daemon.greenlets.spawn_for(app, name, loop, partial(self._note_trouble, app, name))
        log.info("app is served", game=app)
        self._consuming.refresh()

    def _note_trouble(self, app: str, part: str, reason: str) -> None:
        if reason:
            self.services[app].lane.take_back()
        self._troubles.note(app, part, reason)

    def _lane_opener(self, app: str) -> OpenLane:
        return OpenLane(app, self.platform, self._hostname, self._reporters.all, self._stats, self._config)

    # --- running ------------------------------------------------------------------------------------------------------
    def _is_full(self, topic: str) -> bool:
        return self._pipeline.is_full(topic) or self._publishers.full or self._reporters.full

    def _upkeep(self) -> None:
        self._set_up_at = time.monotonic() + _SET_UP_AGAIN_S
        while True:
            gevent.sleep(_TICK_S)
            for app, service in list(self.services.items()):
                self._troubles.contain(app, "upkeep", service.lane.tick, None)
            self._readiness.report()
            tell_left_out()
            self._consuming.count_skipped(self._stats)
            if time.monotonic() >= self._set_up_at:
                self._set_up_at = time.monotonic() + _SET_UP_AGAIN_S
                self._set_up_side_by_side(list(self._skipped))
                if not self._reloads:
                    self._reload_side_by_side(self._troubles.apps(_RELOAD))

    def unready(self) -> list[str]:
        """Why this process cannot do all its work now, one line a reason."""
        parts = {"kafka": self._consuming.source.health()} | self._publishers.health()
        parts |= {app: self._health(app, service) for app, service in self.services.items()}
        blocked = [f"{app}: {service.lane.blocked}" for app, service in self.services.items() if service.lane.blocked]
        stopping = ["the process stops"] if self._stopping else []
        waiting = [f"{app}: is being set up" for app in self._setting_up if app not in self._skipped]
        return (
            stopping
            + reasons(parts)
            + self._reporters.unready()
            + blocked
            + self._troubles.reasons()
            + waiting
            + list(self._skipped.values())
        )

    def samples(self) -> Iterator[Sample]:
        """Every series and every figure of this moment. Never waits."""
        yield from self._stats.snapshot()
        yield from readings.of_kafka(self._consuming, self._publishers, self._pipeline.name)
        yield from self._reporters.samples()
        yield from readings.of_unroutable(self._pipeline)
        for app, service in self.services.items():
            not_ready = [readings.of_not_ready((self.platform, app))]
            yield from self._troubles.contain(app, "figures", partial(self._figures, app, service), not_ready)
        for app in self._skipped:
            yield readings.of_not_ready((self.platform, app))

    def _health(self, app: str, service: Service) -> Health:
        """What the service says; where that fails it is one of the troubles."""
        return self._troubles.contain(app, "health", service.health, Health(ready=True))

    def _figures(self, app: str, service: Service) -> list[Sample]:
        ready = self._health(app, service).ready and not service.lane.blocked and not self._troubles.is_in(app)
        return [
            *readings.of_lane(service.lane),
            *readings.of_service((self.platform, app), service.condition(), service.in_flight, ready=ready),
        ]

    def _summarize(self) -> None:
        """The summary line of each app, once a period, when there is anything to say."""
        interval_s = self._config[settings.of_provider(self.platform).log_stats_interval]
        before: dict[str, dict[str, int]] = {}
        while True:
            gevent.sleep(interval_s)
            for app, service in self.services.items():
                now = _summary(service.lane.totals)
                added = {name: value - before.get(app, {}).get(name, 0) for name, value in now.items()}
                before[app] = now
                if any(added.values()):
                    log.info(
                        "flushing stats",
                        method="logStats",
                        game=app,
                        **{"interval(ns)": int(interval_s * 1e9)},
                        **added,
                    )

    def reload(self) -> None:
        """Reads the configuration again and lets every app use its new credentials. Waits for the providers.

        Whatever cannot be read, or is refused, leaves the old credentials in use and costs an error line.
        """
        try:
            self._newest = self._config.again()
        except StartError as error:
            log.error("the configuration cannot be read, the old credentials stay in use", error=str(error))
            return
        self._reload_brokers()
        self._reloads.join()
        self._reload_side_by_side(self.services)
        self._reloads.join()
        self._set_up_at = 0.0

    def _reload_side_by_side(self, apps: Iterable[str]) -> None:
        """As ``_set_up_side_by_side``."""
        for app in apps:
            self._reloads.spawn(self._troubles.contain, app, _RELOAD, partial(self._reload_app, app), None)

    def _reload_app(self, app: str) -> None:
        try:
            changed = self._provider.reload(self.services[app], self._newest, app)
        except StartError as error:
            log.error("the new credentials cannot be used, the old ones stay", game=app, error=str(error))
        else:
            log.info("new credentials in use" if changed else "the credentials are the same", game=app)

    def _reload_brokers(self) -> None:
        try:
            changed = [self._broker.reload(self._newest), self._publishers.reload(self._newest)]
        except StartError as error:
            log.error("the new access to the brokers cannot be used, the old one stays", error=str(error))
        except Exception:
            # the apps are reloaded all the same
            log.exception("reloading the access to the brokers failed, the old one stays")
            sentry.report_exception(None, signal="SIGHUP")
        else:
            log.info("brokers: new access in use" if any(changed) else "brokers: the access is the same")

    # --- stop ---------------------------------------------------------------------------------------------------------
    def _stop_order(self) -> Sequence[Step]:
        return (
            Step("drain", self._drain),
            Step("feedbacks", self._flush_feedbacks, FLUSH_AT_LEAST_S),
            Step("last commit", self._consuming.leave_group, FLUSH_AT_LEAST_S),
            Step("links", self._close_links),
            Step("publishers", self._publishers.close),
            Step("admin port", self.admin.stop),
            Step("greenlets", self._daemon.end_greenlets, 1.0),
            Step("stats", self._flush_stats),
        )

    def _drain(self, left_s: float) -> str:
        """Reads nothing more and waits for what is in hand; retries that are due too late are left uncommitted."""
        self._stopping = self._consuming.draining = True
        self._set_ups.kill(block=False)
        self._reloads.kill(block=False)
        deadline = time.monotonic() + left_s
        lanes = {app: service.lane for app, service in self.services.items()}
        if not self._config[settings.QUEUE.handle_all_messages_before_exiting] or self._daemon.greenlets.failure:
            self._leave_all(lanes)
            return ""
        while any(lane.in_hand for lane in lanes.values()) and time.monotonic() < deadline:
            for app, lane in lanes.items():
                self._troubles.contain(app, "stop", partial(lane.leave_late_retries, deadline), None)
            gevent.sleep(0.01)
        left = sum(lane.in_hand for lane in lanes.values())
        self._leave_all(lanes)
        return f"{left} pushes are left to the next start" if left else ""

    def _leave_all(self, lanes: Mapping[str, Lane[Any]]) -> None:
        for app, lane in lanes.items():
            self._troubles.contain(app, "stop", lane.leave_all, None)

    def _flush_feedbacks(self, left_s: float) -> str:
        deadline = time.monotonic() + left_s
        left_over = (self._reporters.flush(left_s), self._publishers.flush(max(0.0, deadline - time.monotonic())))
        return "; ".join(filter(None, left_over))

    def _close_links(self, left_s: float) -> str:
        closing = [gevent.spawn(service.close, min(left_s, 1.0)) for service in self.services.values()]
        gevent.joinall(closing, timeout=2.0)
        return ""

    def _flush_stats(self, _: float) -> str:
        self._consuming.count_skipped(self._stats)
        self._stats.flush()
        return ""


def _summary(totals: Totals) -> dict[str, int]:
    outcomes = totals.outcomes
    return {
        "sentMessages": totals.sent,
        "ignoredMessages": outcomes[Kind.EXPIRED] + outcomes[Kind.INVALID],
        "responsesReceived": totals.responses,
        "successesReceived": outcomes[Kind.DELIVERED],
        "failuresReceived": outcomes[Kind.REJECTED] + outcomes[Kind.FAILED],
    }


def run_sender(platform: str, config: Config) -> int:
    """The command ``apns`` or ``gcm``; returns the exit code. Raises ``StartError``."""
    sentry.setup(config[settings.SENTRY_URL], command=platform)
    try:
        return Sender(platform, config).run()
    except StartError as error:
        sentry.report(str(error), cmd=platform)
        sentry.flush(5.0)
        raise
