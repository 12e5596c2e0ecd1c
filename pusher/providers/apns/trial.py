"""One request to Apple for a token that cannot exist, to find out whether Apple accepts an app's credentials."""

from __future__ import annotations

import datetime
import time

from gevent.queue import Empty, SimpleQueue

from pusher.errors import StartError
from pusher.providers.apns.credentials import Credentials
from pusher.providers.apns.message import ApnsParser
from pusher.providers.apns.reasons import read_answer
from pusher.providers.http2.exchange import Exchange
from pusher.providers.http2.header_block import Fields
from pusher.providers.http2.pool import Pool
from pusher.providers.http2.transport import Origin

#: No device has it: Apple answers BadDeviceToken once it has taken the credentials.
_TOKEN = "0" * 64
_SOON_DAYS = 30


def ask_once(credentials: Credentials, origin: Origin, topic: str, timeout_s: float) -> str:
    """Apple's answer, in words. Waits up to ``timeout_s`` for the connection and as long for the answer.

    Raises ``StartError`` where it refuses the credentials or does not answer.
    """
    exchange = answered(_exchange(credentials, topic), credentials, origin, timeout_s)
    outcome, meaning = read_answer(exchange.status, exchange.body_in)
    if meaning.credentials:
        raise StartError(f"{origin} refuses the credentials for {topic}: {outcome.reason}")
    said = f"its answer to a token that cannot exist is {outcome.reason or 'yes'}"
    return f"{origin} accepts the credentials for {topic} ({said}){_ends(credentials)}"


def answered(exchange: Exchange, credentials: Credentials, origin: Origin, timeout_s: float) -> Exchange:
    """The one exchange of a connection, with its answer. Waits as ``ask_once``; raises ``StartError`` without one."""
    answers: SimpleQueue[list[Exchange]] = SimpleQueue()
    pool = Pool(origin, credentials.tls_context, answers, name="check", timeout_s=timeout_s)
    pool.start()
    try:
        if not pool.wait_for_room(timeout_s):
            raise StartError(f"{origin}: {pool.state().reason}")
        pool.send([exchange])
        answers.get(timeout=2 * timeout_s)
    except Empty:
        raise StartError(f"{origin}: no answer") from None
    finally:
        pool.close(0.0)
    if not exchange.status:
        raise StartError(f"{origin}: {pool.state().reason or 'the request was not answered'}")
    return exchange


def _exchange(credentials: Credentials, topic: str) -> Exchange:
    push = ApnsParser(topic)(b'{"DeviceToken":"%s","Payload":{"aps":{"alert":""}}}' % _TOKEN.encode(), "check")
    fields = [
        (b"authorization", bearer(credentials)),
        (b"apns-topic", push.kind.topic),
        (b"apns-push-type", push.kind.push_type),
    ]
    given = Fields(*[(name, value) for name, value in fields if value])
    return Exchange(push, given, push.path, push.literals, push.body)


def bearer(credentials: Credentials) -> bytes:
    """The value of ``authorization``; b"" with a certificate."""
    token = credentials.token
    return b"bearer " + token.current().encode() if token is not None else b""


def _ends(credentials: Credentials) -> str:
    certificate = credentials.certificate
    if certificate is None:
        return ""
    left_days = (certificate.expires_at_s - time.time()) / 86_400
    moment = datetime.datetime.fromtimestamp(certificate.expires_at_s, datetime.UTC)
    soon = ": renew it" if left_days < _SOON_DAYS else ""
    return f"; the certificate expires on {moment:%Y-%m-%d}, in {left_days:.0f} days{soon}"
