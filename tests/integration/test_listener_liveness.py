"""Whatever the database does, the listener's other greenlets go on: heartbeats, admin port, other games."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager

import gevent
import psycopg2
import pytest

from lab.kafka.server import free_port
from tests.integration.listening import Listening, Place, Way, dead, delivered, until

pytestmark = pytest.mark.integration

#: Beyond the session time-out of 6 s: a member without heartbeats is out of its group by then.
_TROUBLE_S = 15.0
#: What an answer of the admin port may take on a machine that does much else.
_ANSWER_S = 5.0


class Port:
    """Asks the admin port again and again."""

    def __init__(self) -> None:
        self.number = free_port()
        self.answers = 0

    @contextmanager
    def asked(self) -> Iterator[None]:
        """... meanwhile; fails where an answer stays away."""
        asking = gevent.spawn(self._ask)
        yield
        assert not asking.ready(), asking.exception
        asking.kill()

    def _ask(self) -> None:
        while True:
            url = f"http://127.0.0.1:{self.number}/healthz"
            with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
                assert answer.status == 200
            self.answers += 1
            gevent.sleep(0.1)


@pytest.fixture
def port() -> Port:
    return Port()


def listen(place: Place, port: Port, statement_timeout_s: int) -> Listening:
    settings = place.settings(pg={"statementTimeout": statement_timeout_s})
    listener = place.listen(settings, f"--admin.port={port.number}")
    listener.await_log('msg="partitions"')
    return listener


def go_on(place: Place, free: str, port: Port, listener: Listening, seconds: float) -> None:
    """For so long: another game's tokens go, the admin port answers, and the member stays in its group."""
    joined = listener.log.count('msg="partitions"')
    with port.asked():
        gevent.sleep(seconds / 2)
        place.write(free, "apns", dead("B"))
        place.await_left(free, "C")
        gevent.sleep(seconds / 2)
    assert port.answers >= 5
    assert listener.log.count('msg="partitions"') == joined, listener.log


def two_games(place: Place) -> tuple[str, str]:
    """One for the trouble and one beside it, whose first token is gone already when the listener runs."""
    troubled, free = place.game("a"), place.game("b")
    for game in (troubled, free):
        place.database.make_table(f"{game}_apns", ["A", "B", "C"])
        place.write(game, "apns", delivered("X"))
    place.write(free, "apns", dead("A"))
    return troubled, free


def rows(place: Place, game: str) -> int:
    return int(place.database.run(f'SELECT count(*) FROM "{game}_apns"')[0][0])


def test_a_lock(place: Place, port: Port) -> None:
    troubled, free = two_games(place)
    listener = listen(place, port, 60)
    place.await_left(free, "B", "C")
    with closing(psycopg2.connect(place.database.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(f'LOCK TABLE "{troubled}_apns"')
        place.write(troubled, "apns", dead("A"))
        go_on(place, free, port, listener, _TROUBLE_S)
    place.await_left(troubled, "B", "C")
    assert listener.stop() == 0


def test_a_server_that_stops_answering(place: Place, port: Port, way: Way) -> None:
    troubled, _ = two_games(place)
    place.port = way.port
    listener = listen(place, port, 20)
    place.write(troubled, "apns", dead("A"))
    place.await_left(troubled, "B", "C")
    way.freeze()
    place.write(troubled, "apns", dead("B"))
    joined = listener.log.count('msg="partitions"')
    with port.asked():
        gevent.sleep(_TROUBLE_S)
    assert port.answers >= 5
    assert listener.log.count('msg="partitions"') == joined, listener.log
    way.thaw()
    place.await_left(troubled, "C")
    assert listener.stop() == 0


def test_a_delete_of_a_million_rows(place: Place, port: Port) -> None:
    troubled, free = two_games(place)
    place.database.run(f"INSERT INTO \"{troubled}_apns\" (token) SELECT 'A' FROM generate_series(2, 1000000)")
    listener = listen(place, port, 60)
    place.await_left(free, "B", "C")
    with port.asked():
        place.write(troubled, "apns", dead("A"))
        until(lambda: rows(place, troubled) == 2, "a million rows gone", 120)
    assert port.answers >= 5
    assert place.left(troubled) == ["B", "C"]
    assert listener.stop() == 0
