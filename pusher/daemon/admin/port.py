"""The pages of the admin port, the same for the senders and the feedback listener."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pusher import __version__
from pusher.config import settings
from pusher.config.values import Config
from pusher.daemon.admin import prometheus
from pusher.daemon.admin.history import History
from pusher.daemon.admin.page import PAGE, PAGE_HEADERS
from pusher.daemon.admin.prometheus import Exposition
from pusher.daemon.admin.server import HTML, TEXT, AdminServer, Page, Query, Route, json_answer
from pusher.daemon.admin.status import of_app, overview
from pusher.telemetry import figures
from pusher.telemetry.stacks import stacks
from pusher.telemetry.stats import Sample


@dataclass(frozen=True)
class Watched:
    """The process as the admin port sees it. None of these waits."""

    command: str
    #: Every series of the stats, and every figure.
    samples: Callable[[], Iterable[Sample]]
    #: Why it can do no work at all, one line a reason.
    unready: Callable[[], Sequence[str]]
    #: By app why that is not served; no reason where it is.
    apps: Callable[[], Mapping[str, Sequence[str]]]
    #: The first greenlet that died, and why; "" while all run.
    failure: Callable[[], str]


class AdminPort:
    """Health, metrics and the status page of one process; nothing at all when ``admin.port`` is 0."""

    def __init__(self, config: Config, watched: Watched) -> None:
        self._watched = watched
        self._docs = config[settings.ADMIN_DOCS]
        self._any_app_will_do = config[settings.ADMIN_READY_WHEN] == "any"
        self._identity = (watched.command, __version__, socket.gethostname())
        self._started_at = time.time()
        self._exposition = Exposition(self._samples)
        self.history = History(self._samples)
        routes: dict[str, Route] = {
            "/": lambda _: Page(200, HTML, PAGE, PAGE_HEADERS),
            "/status.json": self._status,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/metrics": lambda _: Page(200, prometheus.CONTENT_TYPE, self._exposition.page()),
        }
        if config[settings.ADMIN_DEBUG]:
            routes["/debug/greenlets"] = lambda _: Page(200, TEXT, "\n\n".join(stacks()).encode())
        self.enabled = config[settings.ADMIN_PORT] != 0
        self.server = AdminServer(
            config[settings.ADMIN_HOST], config[settings.ADMIN_PORT], routes, token=config[settings.ADMIN_TOKEN]
        )

    def start(self, spawn: Callable[[str, Callable[[], object]], None]) -> None:
        """Opens the port; ``spawn`` starts what has to run. Waits for the name service only."""
        if self.enabled:
            self.server.start()
            spawn("history", self.history.run)

    def stop(self, _left_s: float) -> str:
        """A step of the stop order."""
        self.server.stop()
        return ""

    def _samples(self) -> Iterable[Sample]:
        return chain(
            [
                Sample(figures.INFO, self._identity, 1),
                Sample(figures.ALIVE, (), not self._watched.failure()),
                Sample(figures.READY, (), not self._reasons()),
            ],
            self._watched.samples(),
        )

    def _health(self, _: Query) -> Page:
        failure = self._watched.failure()
        reasons = [failure] if failure else []
        return json_answer({"healthy": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def _reasons(self) -> list[str]:
        """Why it cannot do all its work."""
        return [*self._watched.unready(), *chain.from_iterable(self._watched.apps().values())]

    def _readiness(self, query: Query) -> Page:
        """Of the process, or of the app that is asked for; the reasons are those of what is asked for."""
        if "app" in query:
            return self._app_readiness(query["app"])
        apps = self._watched.apps()
        reasons = self._reasons()
        served = self._any_app_will_do and any(not lines for lines in apps.values())
        ready = not reasons or (served and not self._watched.unready())
        return json_answer({"ready": ready, "reasons": reasons}, 200 if ready else 503)

    def _app_readiness(self, app: str) -> Page:
        apps = self._watched.apps()
        if app not in apps:
            return json_answer({"ready": False, "reasons": [f"there is no app {app!r}; see the setting of apps"]}, 404)
        reasons = [*self._watched.unready(), *apps[app]]
        return json_answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def _status(self, query: Query) -> Page:
        """One line for each app, or one app with its history: ``?platform=NAME&game=NAME``."""
        command, version, hostname = self._identity
        process = {
            "command": command,
            "version": version,
            "hostname": hostname,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "now": time.time(),
            "failure": self._watched.failure(),
            "not_ready": list(self._watched.unready()),
            "docs": self._docs,
        }
        samples, unready = self._samples(), self._watched.apps()
        if "game" in query:
            app = (query.get("platform", command), query["game"])
            return json_answer(process | of_app(samples, self.history, unready, app))
        return json_answer(process | overview(samples, self.history, unready))
