"""The platform ``acme``: JSON over HTTP/2, a key for each app, ``POST /v1/push/<token>``.

201 is success. A refusal says why as ``{"error": "gone"}``; 401 refuses the key, 429 and 5xx ask to come again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

from pusher.config import AppSetting, Config, Setting
from pusher.config.addresses import Url
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
from pusher.push.fields import Json, decode_expiry, decode_metadata, decode_object, decode_token, encode
from pusher.push.outcome import Kind, Outcome
from pusher.push.push import Push, derived_id
from pusher.push.retry import RetryPolicy

#: The list ``acme.apps`` is there already: every provider has it.
ENDPOINT = Setting("acme.endpoint", Url(), "https://push.acme.example", "Where Acme takes pushes.")
CA_FILE = Setting("acme.caFile", Path(), "", 'PEM certificates that are trusted besides the system\'s; "" = none.')
KEY = AppSetting("acme.keys.<app>", Secret(), "", "The key of an app.")

#: Acme's words for a token that is dead; True for one that a wrong key gives as well.
DEAD = {"gone": False, "unknown-device": True}


class AcmePush(Push):
    """A push for Acme."""

    __slots__ = ("body",)
    body: bytes


def parse(value: bytes | None, origin: str) -> AcmePush:
    """Parses a message: ``token``, ``title``, ``body``, and the common fields ``push_expiry`` and ``metadata``."""
    fields = decode_object(value)
    push = AcmePush()
    push.id = derived_id(origin)
    push.token = decode_token(fields.get("token"), "token")
    push.expires_ms = decode_expiry(fields.get("push_expiry"))
    push.metadata = decode_metadata(fields.get("metadata"))
    push.body = encode({name: fields[name] for name in ("title", "body") if name in fields})
    return push


class AcmeDialogue:
    """The requests of an app to Acme, and the meaning of the answers."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._fields = Fields((b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json"))

    def exchange(self, push: AcmePush) -> Exchange:
        """The request for a push."""
        return Exchange(push, self._fields, f"/v1/push/{push.token}".encode(), b"", push.body)

    def judge(self, exchange: Exchange) -> Judgement:
        """What an answer means."""
        if exchange.status == 201:
            return ACCEPTED
        reason = _reason(exchange.body_in)
        if exchange.status == 429 or exchange.status >= 500:
            return Judgement(Retry(Outcome(Kind.FAILED, exchange.status, reason, reason)))
        refused = Outcome(Kind.REJECTED, exchange.status, reason, reason, delete_token=reason in DEAD)
        return Judgement(Finish(refused), Proof.REFUSED if exchange.status == 401 else Proof.GOOD)


def _reason(body: bytes) -> str:
    """The reason in an answer's body, which may be anything."""
    try:
        return str(json.loads(body)["error"])[:100]
    except (ValueError, TypeError, KeyError):
        return "unexpected"


def _key(config: Config, app: str) -> str:
    key = config.of(KEY, app)
    if not key:
        raise CredentialError(f"set {KEY.for_app(app).key}")
    return key


def _origin(config: Config) -> Origin:
    url = urlsplit(config[ENDPOINT])
    return Origin(url.hostname or "", url.port or 443)


def _parser(_config: Config, _app: str) -> Callable[..., Push]:
    return parse


def _build(config: Config, app: str, open_lane: OpenLane) -> Http2Service[AcmePush]:
    dialogue = AcmeDialogue(_key(config, app))
    lane = open_lane("acme", parse, plain_feedback, RetryPolicy(interval_s=1.0, max_attempts=5), high_water=2_000)
    return Http2Service(lane, dialogue, _origin(config), TlsTrust(config[CA_FILE]))


def _reload(service: Http2Service[AcmePush], config: Config, app: str) -> bool:
    dialogue = AcmeDialogue(_key(config, app))
    if isinstance(service.dialogue, AcmeDialogue) and service.dialogue.key == dialogue.key:
        return False
    service.change(dialogue)
    return True


def _checks(config: Config) -> Iterator[Check]:
    for app in config[of_provider("acme").apps]:
        yield f"acme.keys.{app}", partial(_check, config, app)


def _check(config: Config, app: str) -> str:
    _key(config, app)
    return check_connection(_origin(config), TlsTrust(config[CA_FILE]), timeout_s=10.0)


def _message(shown: Shown) -> dict[str, Json]:
    return {"token": shown.token, **shown.words}


PROVIDER = Provider(
    word="acme",
    text="send pushes to Acme",
    parser=_parser,
    build=_build,
    reload=_reload,
    checks=_checks,
    message=_message,
    rules=plain_rules(DEAD),
    told=plain_told,
)
