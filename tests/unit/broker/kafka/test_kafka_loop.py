"""The selector in which kafka-python's loop waits, over real sockets."""

import selectors
import socket
from collections.abc import Iterator

import gevent
import pytest
from kafka.net.selector import NetworkSelector

from pusher.broker.kafka.loop import HubSelector, wake_for_work

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: s; none of the waits here ends by time unless a test fails
LONG_S = 5.0


@pytest.fixture
def selector() -> Iterator[HubSelector]:
    made = HubSelector()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def found(selector: HubSelector, timeout: float | None = LONG_S) -> list[tuple[object, int]]:
    return [(key.data, events) for key, events in selector.select(timeout)]


def test_what_is_there_to_read_is_told_until_it_is_read(
    selector: HubSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    selector.register(ours, READ, "ours")
    theirs.send(b"x")
    assert found(selector) == [("ours", READ)]
    assert found(selector) == [("ours", READ)]
    ours.recv(10)
    assert found(selector, 0.01) == []


def test_a_socket_may_come_and_go(selector: HubSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    for text in (b"first", b"second"):
        selector.register(ours, READ, text)
        theirs.send(b"x")
        assert found(selector) == [(text, READ)]
        selector.unregister(ours)
        assert selector.get_map() == {}
    assert found(selector, 0.01) == []


def test_reading_turns_into_writing_and_both(selector: HubSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    selector.register(ours, READ, "read")
    assert found(selector, 0.01) == []
    selector.modify(ours, READ | WRITE, "both")
    assert found(selector) == [("both", WRITE)]
    theirs.send(b"x")
    gevent.sleep(0.01)
    assert found(selector) == [("both", READ | WRITE)]
    selector.modify(ours, READ, "read")
    assert found(selector) == [("read", READ)]


def test_what_is_registered_twice_or_not_at_all_is_an_error(
    selector: HubSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    selector.register(ours, READ)
    with pytest.raises(KeyError):
        selector.register(ours, READ)
    with pytest.raises(KeyError):
        selector.unregister(theirs)
    with pytest.raises(ValueError, match="events 0"):
        selector.register(theirs, 0)


def test_a_socket_that_was_closed_is_found_and_its_number_may_be_another_ones(selector: HubSelector) -> None:
    for _ in range(3):
        ours, theirs = socket.socketpair()
        number = ours.fileno()
        selector.register(ours, READ, number)
        theirs.send(b"x")
        assert found(selector) == [(number, READ)]
        ours.close()
        theirs.close()
        with pytest.raises(ValueError, match="descriptor -1"):
            selector.register(ours, READ)
        assert selector.unregister(ours).fd == number


def test_waking_ends_a_wait_and_one_that_is_to_come(selector: HubSelector) -> None:
    gevent.spawn_later(0.01, selector.wake)
    assert found(selector, None) == []
    selector.wake()
    selector.wake()
    assert found(selector, None) == []
    assert found(selector, 0.01) == []


def test_a_wait_that_is_broken_off_leaves_nothing_behind(
    selector: HubSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    selector.register(ours, READ, "ours")
    waiting = gevent.spawn(selector.select, None)
    gevent.sleep(0.01)
    selector.wake()
    waiting.kill()
    theirs.send(b"x")
    gevent.sleep(0.01)
    assert found(selector) == [("ours", READ)]


def test_work_at_hand_keeps_nobody_else_from_running(selector: HubSelector) -> None:
    other = gevent.spawn(gevent.sleep, 0.001)
    while not other.ready():
        selector.select(0)


def test_a_loop_is_woken_for_work_that_it_would_begin_too_late() -> None:
    net = NetworkSelector(selector=HubSelector)
    net.wakeup = net._selector.wake
    done: list[str] = []
    running = gevent.spawn(net.run_forever)
    gevent.sleep(0.01)
    net.call_soon(lambda: done.append("soon"))
    wake_for_work(net)
    gevent.sleep(0.01)
    assert done == ["soon"]
    net.call_later(0.01, lambda: done.append("later"))
    wake_for_work(net)
    gevent.sleep(0.1)
    assert done == ["soon", "later"]
    net._stop = True
    net.wakeup()
    running.join(LONG_S)
    assert running.successful()


def test_a_loop_runs_functions_methods_coroutines_and_generators() -> None:
    net = NetworkSelector(selector=HubSelector)
    done: list[str] = []

    class Owner:
        def method(self) -> None:
            done.append("method")

    async def coroutine() -> None:
        done.append("coroutine")
        await net.sleep(0)
        done.append("coroutine again")

    def generator() -> Iterator[object]:
        done.append("generator")
        yield net.sleep(0)
        done.append("generator again")

    for work in (lambda: done.append("function"), Owner().method, coroutine, coroutine(), generator, generator()):
        net.call_soon(work)
    net.drain(scheduled=True)
    assert done[:6] == ["function", "method", "coroutine", "coroutine", "generator", "generator"]
    assert sorted(done[6:]) == ["coroutine again"] * 2 + ["generator again"] * 2
    with pytest.raises(TypeError):
        net.call_soon(net)
