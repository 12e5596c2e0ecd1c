"""The status page of a sender with fifty games, of which some are sick.

`python -m gevent.monkey --module lab.fifty_games 60` serves it for a minute.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer

from lab.admin_client import Process, ask, no_greenlet
from pusher.daemon.admin.page import PAGE
from pusher.daemon.admin.port import AdminPort
from pusher.telemetry import figures, metrics
from pusher.telemetry.stats import Sample

NUMBER = 50
SICK = {
    "game07": "game07: Apple refuses the app's credentials for a topic and push type: check",
    "game23": "game23: no link: the connection was refused",
    "game41": "game41: cannot read its key: No such file or directory",
}
MANY_REFUSED = "game12"
POINTS = 60


class Games(Process):
    """A process whose figures move as a sender's would."""

    def __init__(self, number: int = NUMBER) -> None:
        super().__init__()
        self.names = [f"game{index:02}" for index in range(number)]
        self.apps = {name: [SICK[name]] if name in SICK else [] for name in self.names}
        self.now = 0.0
        self._draw = random.Random(2026)
        self._ended = {name: dict.fromkeys(("delivered", "rejected", "failed"), 0) for name in self.names}

    def go_on(self) -> None:
        """Five seconds pass."""
        self.now += 5.0
        self.figures = []
        for index, name in enumerate(self.names):
            self._push(name, 0 if name in SICK else int(self._draw.uniform(20, 400) / (1 + index % 7)))
        self.stats.flush()

    def _push(self, name: str, number: int) -> None:
        app, ended = ("apns", name), self._ended[name]
        refused = number // 3 if name == MANY_REFUSED else number // 200
        ended["delivered"] += number - refused
        ended["rejected"] += refused
        for _ in range(number):
            self.stats.timing(metrics.SEND_NOTIFICATION_LATENCY, *app, "apns").observe(self._draw.expovariate(1 / 40))
        if refused:
            self.stats.counter(metrics.FAILED, *app, "bad-device-token").add(refused)
        topic = f"push-{name}_apns-single"
        lag = 4_000 if name in SICK else number // 10
        self.figures += [
            *(Sample(figures.OUTCOMES, (*app, kind), value) for kind, value in ended.items()),
            Sample(figures.APP_READY, app, name not in SICK),
            Sample(figures.LINKS, app, 0 if name in SICK else 1),
            Sample(figures.IN_FLIGHT, app, number // 20),
            *(Sample(figures.CONSUMER_LAG, (*app, topic, str(partition)), lag) for partition in range(4)),
            *(Sample(figures.OLDEST_UNFINISHED, (*app, topic, str(p)), 95.0 if lag > 999 else 0.0) for p in range(4)),
        ]


@contextmanager
def watched(games: Games, **settings: Any) -> Iterator[AdminPort]:
    """The admin port of such a process after five minutes."""
    admin = games.port(**settings)
    admin.start(no_greenlet)
    admin.history._clock = lambda: games.now
    for _ in range(POINTS):
        games.go_on()
        admin.history.look()
    yield admin
    admin.stop(1.0)


@contextmanager
def page_with(admin: AdminPort, *scripts: bytes) -> Iterator[str]:
    """The address of the page with further scripts, which its own policy forbids; its data are ``admin``'s."""
    addition = b"".join(b"<script>%s</script>" % script for script in scripts)
    page = PAGE.replace(b"</body>", addition + b"</body>")

    def serve(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        if environ["PATH_INFO"] == "/":
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
            return [page]
        status, headers, body = ask(admin, f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        start_response(f"{status} X", [("Content-Type", headers.get("content-type", "text/plain"))])
        return [body]

    server = WSGIServer(("127.0.0.1", 0), serve, log=None, error_log=None)
    server.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.stop()


def main(seconds: str) -> None:
    """Serves the page for a while."""
    with watched(Games()) as admin, page_with(admin) as address:
        print(address, flush=True)
        gevent.sleep(float(seconds))


if __name__ == "__main__":
    main(sys.argv[1])
