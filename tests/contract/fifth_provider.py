"""The platform ``carrier``, in one file, from docs/plugins.md: a gateway that takes messages at ``POST /send``.

202 is success; 4xx names a code, ``{"code": "E_GONE"}``; 503 is a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson

from pusher.config import AppSetting, Config, Setting
from pusher.config.addresses import HostPort, SocketAddress
from pusher.config.kinds import Path, Secret
from pusher.config.settings import of_provider
from pusher.errors import CredentialError
from pusher.providers.http2 import Exchange, Fields, Origin
from pusher.providers.http2_service import Http2Service, check_connection
from pusher.providers.judgement import ACCEPTED, Finish, Judgement, Proof, Retry
from pusher.providers.open_lane import OpenLane
from pusher.providers.provider import Check, Provider, Shown, plain_rules, plain_told
from pusher.providers.tls import TlsTrust
from pusher.push.feedback import plain_feedback
from pusher.push.fields import InvalidMessage, Json, decode_expiry, decode_metadata, decode_object, decode_token, encode
from pusher.push.outcome import Kind, Outcome
from pusher.push.push import Push, derived_id
from pusher.push.retry import RetryPolicy

GATEWAY = Setting("carrier.gateway", HostPort(443), SocketAddress("gateway.example", 443), "The carrier's gateway.")
TRUSTED = Setting("carrier.caFile", Path(), "", "PEM certificates that are trusted besides the system's.")
PASSWORD = AppSetting("carrier.passwords.<app>", Secret(), "", "The password of an app.")


class CarrierPush(Push):
    __slots__ = ("body",)
    body: bytes


def parser(_config: Config, app: str) -> Callable[..., CarrierPush]:
    def parse(value: bytes | None, origin: str) -> CarrierPush:
        fields = decode_object(value)
        if not isinstance(fields.get("text"), str):
            raise InvalidMessage("missing-text", "text is missing, or not a string")
        push = CarrierPush()
        push.id = derived_id(origin)
        push.token = decode_token(fields.get("number"), "number")
        push.expires_ms = decode_expiry(fields.get("push_expiry"))
        push.metadata = decode_metadata(fields.get("metadata"))
        push.body = encode({"to": push.token, "text": fields["text"], "from": app, "id": push.id})
        return push

    return parse


class Carrier:
    """What an app and the gateway say to each other."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.fields = Fields((b"x-password", password.encode()), (b"content-type", b"application/json"))

    def exchange(self, push: CarrierPush) -> Exchange:
        return Exchange(push, self.fields, b"/send", b"", push.body)

    def judge(self, exchange: Exchange) -> Judgement:
        if exchange.status == 202:
            return ACCEPTED
        try:
            code = str(orjson.loads(exchange.body_in)["code"])
        except (orjson.JSONDecodeError, TypeError, KeyError):
            code = "E_UNKNOWN"
        if exchange.status >= 500:
            return Judgement(Retry(Outcome(Kind.FAILED, exchange.status, code, code.lower())))
        outcome = Outcome(Kind.REJECTED, exchange.status, code, code.lower(), delete_token=code == "E_GONE")
        return Judgement(Finish(outcome), Proof.REFUSED if code == "E_PASSWORD" else Proof.GOOD)


def dialogue(config: Config, app: str) -> Carrier:
    password = config.of(PASSWORD, app)
    if not password:
        raise CredentialError(f"set {PASSWORD.for_app(app).key}")
    return Carrier(password)


def build(config: Config, app: str, open_lane: OpenLane) -> Http2Service[CarrierPush]:
    carrier = dialogue(config, app)
    lane = open_lane("carrier", parser(config, app), plain_feedback, RetryPolicy(1.0, 3), 1_000)
    return Http2Service(lane, carrier, Origin(*config[GATEWAY]), TlsTrust(config[TRUSTED]))


def reload(service: Http2Service[CarrierPush], config: Config, app: str) -> bool:
    carrier = dialogue(config, app)
    if isinstance(service.dialogue, Carrier) and carrier.password == service.dialogue.password:
        return False
    service.change(carrier)
    return True


def checks(config: Config) -> Iterator[Check]:
    def check(app: str) -> str:
        dialogue(config, app)
        return check_connection(Origin(*config[GATEWAY]), TlsTrust(config[TRUSTED]), 10.0)

    for app in config[of_provider("carrier").apps]:
        yield f"carrier {app}", lambda app=app: check(app)  # type: ignore[misc]


def message(shown: Shown) -> dict[str, Json]:
    return {"number": shown.token, "text": shown.words.get("body", "")}


PROVIDER = Provider(
    word="carrier",
    text="send messages through the carrier",
    parser=parser,
    build=build,
    reload=reload,
    checks=checks,
    message=message,
    rules=plain_rules({"E_GONE": False}),
    told=plain_told,
)
