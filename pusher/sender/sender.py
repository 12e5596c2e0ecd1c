"""Builds a sender from the configuration, starts it, and stops it in order.

Per app a lane and a service; for all of them one source, one pipeline, the publishers and the stats. An app that cannot
be set up is skipped and tried again every minute, and its topics are not consumed meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gevent
from gevent.pool import Group

from pusher.broker.interface import Publisher, Record
from pusher.broker.offsets import Tracker
from pusher.config import settings
from pusher.config.values import Config
from pusher.daemon import frame, readings
from pusher.daemon.frame import Frame
from pusher.daemon.process import Step
from pusher.daemon.publishers import reload_brokers
from pusher.daemon.reporters import FeedbackReporters
from pusher.daemon.troubles import Troubles, internal_error
from pusher.errors import StartError
from pusher.providers.open_lane import OpenLane
from pusher.providers.provider import Service, provider
from pusher.push.lane import Lane
from pusher.push.limits.opening import open_limits
from pusher.push.pipeline import Pipeline
from pusher.push.topics import TopicName
from pusher.sender.summary import summarize
from pusher.telemetry import metrics, sentry
from pusher.telemetry.health import Health, reasons
from pusher.telemetry.log import logger
from pusher.telemetry.stats import Sample

log = logger(__name__)

_TICK_S = 1.0
_SET_UP_AGAIN_S = 60.0
#: For messages of unknown games.
_READ_AT_MOST_EVERY_S = 10.0
#: What the set-up of new apps gets before the summary line of a reload.
_SUMMARY_S = 15.0
_LOOK_S = 0.02
#: The part of an app whose new credentials could not be taken by a fault of ours.
_RELOAD = "reload"


class Sender:
    """The command of a platform."""

    def __init__(self, platform: str, config: Config) -> None:
        self.platform = platform
        self._config = config
        #: As read last: apps and their credentials go by it, everything else by ``_config``.
        self._newest = config
        self._provider = provider(platform)
        self._apps = config[settings.of_provider(platform).apps]
        self._frame = made = Frame(platform, config, settings.QUEUE, config[settings.GRACEFUL_SHUTDOWN_TIMEOUT], self)
        self._reporters = FeedbackReporters(config, made.stats, made.publishers, made.greenlets)
        self._pipeline = Pipeline(
            platform,
            self._apps,
            self._invalid_publisher,
            made.stats,
            config[settings.QUEUE_INVALID_TOPIC],
            self._file_has_changed,
        )
        self._limits = open_limits(config, platform, self._apps, made.hostname, made.stats)
        self.services: dict[str, Service] = {}
        #: Apps that could not be set up, and why.
        self._skipped: dict[str, str] = {}
        #: Apps whose set-up is under way, and the greenlets of it.
        self._setting_up: set[str] = set()
        self._set_ups = Group()
        self._reloads = Group()
        self._troubles = Troubles()
        #: When apps that were skipped are tried again (monotonic).
        self._set_up_at = 0.0
        #: When the configuration was read last (monotonic).
        self._read_at = float("-inf")

    def run(self) -> int:
        """Sends until it is stopped; returns the exit code. Raises ``StartError`` when no app can be served."""
        made, spawn = self._frame, self._frame.greenlets.spawn
        made.open_source()
        made.admin.start(spawn)
        if self._limits is not None:
            log.info("pushes are limited", **self._limits.shown(self._apps))
            for name, loop in self._limits.loops().items():
                spawn(name, loop)
        self._set_up_side_by_side(self._apps)
        self._await_first_app()
        if not made.daemon.stopping:
            self._log_start()
        self._set_up_at = time.monotonic() + _SET_UP_AGAIN_S
        made.start()
        spawn("new games", self._look_for_new_games)
        spawn("summary", partial(summarize, self.services, self._config, self.platform))
        closing = (Step("links", self._close_links), Step("limits", self._close_limits))
        return made.run(self._flush_feedbacks, closing)

    # --- start --------------------------------------------------------------------------------------------------------
    def _log_start(self) -> None:
        log.info(
            "sender started", platform=self.platform, apps=",".join(self.services), production=self._config.production
        )

    def _file_has_changed(self) -> bool:
        return self._newest.changed()

    def _invalid_publisher(self) -> Publisher:
        return self._frame.publishers.at(settings.QUEUE.at)

    def _set_up_side_by_side(self, apps: Iterable[str]) -> None:
        """Sets up each app in its own greenlet, so that none waits for another's provider. Does not wait."""
        for app in apps:
            if app not in self._setting_up:
                self._setting_up.add(app)
                self._set_ups.spawn(self._set_up, app)

    def _await_first_app(self) -> None:
        """Waits until one app is served. Raises ``StartError`` when all are refused; a stop ends the waiting too."""
        while self._setting_up and not self.services and not self._frame.daemon.stopping:
            gevent.sleep(_LOOK_S)
        if not (self.services or self._setting_up or self._frame.daemon.stopping):
            raise StartError("no app can be served: " + "; ".join(self._skipped.values()))

    def _set_up(self, app: str) -> None:
        """Serves an app, or notes why not."""
        try:
            self._serve(app, self._provider.build(self._newest, app, self._lane_opener(app)))
        except StartError as error:
            self._skip(app, str(error))
        except Exception as error:
            log.exception("setting up an app failed", game=app)
            sentry.report_exception(None, game=app)
            self._skip(app, internal_error("set-up", f"{type(error).__name__}: {error}"))
        finally:
            self._setting_up.discard(app)

    def _skip(self, app: str, reason: str) -> None:
        if app not in self._apps:
            return  # it has left while it was set up
        if app not in self._skipped:
            self._frame.stats.counter(metrics.INITIALIZE_FAILURE, self.platform, app).add()
            log.error("app cannot be served, it is skipped and tried again every minute", game=app, error=reason)
        self._skipped[app] = f"{app}: {reason}"

    def _serve(self, app: str, service: Service) -> None:
        if app not in self._apps:
            return  # it has left while it was set up
        loops = service.loops()
        service.start()
        self._skipped.pop(app, None)
        self.services[app] = service
        self._pipeline.serve(app, service.lane)
        for name, loop in loops.items():
            self._frame.greenlets.spawn_for(app, name, loop, partial(self._note_trouble, app, name))
        log.info("app is served", game=app)
        self._frame.consuming.refresh()

    def _note_trouble(self, app: str, part: str, reason: str) -> None:
        if reason:
            self.services[app].lane.take_back()
        self._troubles.note(app, part, reason)

    def _lane_opener(self, app: str) -> OpenLane:
        return OpenLane(
            app, self.platform, self._frame.hostname, self._reporters.all, self._frame.stats, self._config, self._limits
        )

    # --- running ------------------------------------------------------------------------------------------------------
    def wanted(self, topic: str) -> bool:
        """See ``Work``."""
        return self._pipeline.wanted(topic)

    def submit(self, tracker: Tracker, records: Sequence[Record]) -> None:
        """See ``Work``."""
        self._pipeline.submit(tracker, records)

    def owner(self, topic: str) -> TopicName | None:
        """See ``Work``."""
        return self._pipeline.name(topic)

    def is_full(self, topic: str) -> bool:
        """See ``Work``."""
        return self._pipeline.is_full(topic) or self._frame.publishers.full or self._reporters.full

    def tick(self) -> None:
        """See ``Work``."""
        for app, service in list(self.services.items()):
            self._troubles.contain(app, "upkeep", service.lane.tick, None)
        if time.monotonic() >= self._set_up_at:
            self._set_up_at = time.monotonic() + _SET_UP_AGAIN_S
            self._set_up_side_by_side(list(self._skipped))
            if not self._reloads:
                self._reload_side_by_side(self._troubles.apps(_RELOAD))

    def process_unready(self) -> list[str]:
        """See ``Work``."""
        return self._reporters.unready()

    def apps_unready(self) -> dict[str, list[str]]:
        """Why single apps are not served, by app; those that are have no reason."""
        found: dict[str, list[str]] = {app: [] for app in self._apps}
        for app, service in self.services.items():
            lines = found.setdefault(app, [])
            lines += reasons({app: self._health(app, service)})
            lines += [f"{app}: {service.lane.blocked}"] if service.lane.blocked else []
        for app in self._setting_up - self._skipped.keys():
            found.setdefault(app, []).append(f"{app}: is being set up")
        for app, reason in self._skipped.items():
            found.setdefault(app, []).append(reason)
        for app, lines in found.items():
            lines += self._troubles.reasons(app)
        return found

    def samples(self) -> Iterator[Sample]:
        """See ``Work``."""
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

    def reload(self) -> None:
        """Reads the configuration again: serves new apps, drains those that have left, passes on new credentials.

        Waits for the providers. What cannot be read, or is refused, leaves the old in use and costs an error line.
        """
        self._read_at = time.monotonic()
        try:
            self._newest = self._read_again()
        except StartError as error:
            log.error("the configuration cannot be read, nothing has changed", error=str(error))
            return
        before, self._apps = self._apps, self._newest[settings.of_provider(self.platform).apps]
        new = [app for app in self._apps if app not in before]
        left = [app for app in before if app not in self._apps]
        self._pipeline.configure(self._apps)
        reload_brokers(self._frame.broker, self._frame.publishers, self._newest)
        self._reloads.join()
        kept = [app for app in before if app in self._apps and app in self.services]
        for app in kept:
            for message in self._newest.refused(app):
                log.error("a setting will be refused at the next start, the old one stays", game=app, error=message)
        leaving = [self._reloads.spawn(self._leave, app) for app in left]
        changed = self._reload_side_by_side(kept)
        self._set_up_side_by_side([*new, *self._skipped])
        gevent.joinall(changed)
        gevent.joinall(leaving)
        self._set_ups.join(_SUMMARY_S)
        names = {
            "new": new,
            "left": left,
            "new_credentials": [app for app, one in zip(kept, changed, strict=True) if one.value],
            "not_served": [app for app in self._apps if app not in self.services],
        }
        log.info("configuration reloaded", apps=len(self._apps), **{name: ",".join(names[name]) for name in names})

    def _read_again(self) -> Config:
        """Raises ``StartError``, for one without apps too: an emptied file must not end every game."""
        newest = self._config.again()
        apps = settings.of_provider(self.platform).apps
        if not newest[apps]:
            raise StartError(f"{newest.path}: {apps.key} is empty; to serve no app, stop the process")
        return newest

    def _leave(self, app: str) -> None:
        """Finishes the app's consumed pushes, gives up its partitions and closes its links."""
        self._skipped.pop(app, None)
        service = self.services.get(app)
        if service is None:
            return
        deadline = time.monotonic() + self._config[settings.GRACEFUL_SHUTDOWN_TIMEOUT]
        while self._unfinished(app) and time.monotonic() < deadline:
            self._troubles.contain(app, "stop", partial(service.lane.leave_late_retries, deadline), None)
            gevent.sleep(_LOOK_S)
        left = self._unfinished(app)
        self._leave_all({app: service.lane})
        del self.services[app], self._pipeline.lanes[app]
        self._frame.greenlets.end_app(app, 1.0)
        service.close(1.0)
        self._troubles.forget(app)
        self._frame.consuming.refresh()
        log.info("app was removed", game=app, uncommitted=left)

    def _unfinished(self, app: str) -> int:
        """Messages of the app that were read and whose outcome is not stored yet."""
        trackers = self._frame.consuming.source.assignment.trackers.items()
        names = ((self._pipeline.name(key.topic), tracker) for key, tracker in trackers)
        return sum(tracker.unfinished for name, tracker in names if name is not None and name.game == app)

    def _look_for_new_games(self) -> None:
        """Reads the configuration again when there are messages of a game that it may have by now."""
        while True:
            gevent.sleep(_TICK_S)
            if self._pipeline.waits and time.monotonic() >= self._read_at + _READ_AT_MOST_EVERY_S:
                self._frame.daemon.reload()
                if not self._newest.changed():
                    self._pipeline.settle()

    def _reload_side_by_side(self, apps: Iterable[str]) -> list[gevent.Greenlet[..., bool | None]]:
        """As ``_set_up_side_by_side``. The values of the greenlets: whether the credentials have changed."""
        return [
            self._reloads.spawn(self._troubles.contain, app, _RELOAD, partial(self._reload_app, app), None)
            for app in apps
        ]

    def _reload_app(self, app: str) -> bool:
        if app not in self.services:
            return False
        try:
            changed = self._provider.reload(self.services[app], self._newest, app)
        except StartError as error:
            log.error("the new credentials cannot be used, the old ones stay in use", game=app, error=str(error))
            return False
        if changed:
            log.info("new credentials in use", game=app)
        return changed

    # --- stop ---------------------------------------------------------------------------------------------------------
    def drain(self, left_s: float) -> str:
        """Waits for consumed pushes; retries that are due too late are left uncommitted."""
        self._set_ups.kill(block=False)
        self._reloads.kill(block=False)
        deadline = time.monotonic() + left_s
        lanes = {app: service.lane for app, service in self.services.items()}
        if not self._config[settings.QUEUE.handle_all_messages_before_exiting] or self._frame.greenlets.failure:
            self._leave_all(lanes)
            return ""
        while any(lane.in_hand for lane in lanes.values()) and time.monotonic() < deadline:
            for app, lane in lanes.items():
                self._troubles.contain(app, "stop", partial(lane.leave_late_retries, deadline), None)
            gevent.sleep(0.01)
        left = sum(lane.in_hand for lane in lanes.values())
        self._leave_all(lanes)
        return f"{left} pushes are left for the next start" if left else ""

    def _leave_all(self, lanes: Mapping[str, Lane[Any]]) -> None:
        for app, lane in lanes.items():
            self._troubles.contain(app, "stop", lane.leave_all, None)

    def _flush_feedbacks(self, left_s: float) -> str:
        deadline = time.monotonic() + left_s
        left_over = (self._reporters.flush(left_s), self._frame.publishers.flush(max(0.0, deadline - time.monotonic())))
        return "; ".join(filter(None, left_over))

    def _close_links(self, left_s: float) -> str:
        closing = [gevent.spawn(service.close, min(left_s, 1.0)) for service in self.services.values()]
        gevent.joinall(closing, timeout=2.0)
        return ""

    def _close_limits(self, _: float) -> str:
        if self._limits is not None:
            self._limits.close()
        return ""


def run_sender(platform: str, config: Config) -> int:
    """The command of a platform; returns the exit code. Raises ``StartError``."""
    return frame.run(platform, config, lambda: Sender(platform, config).run())
