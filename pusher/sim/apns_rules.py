"""What Apple refuses, and with which reason.

Sources: developer.apple.com/documentation/usernotifications, pages "Sending notification requests to APNs",
"Establishing a token-based connection to APNs" and "Handling notification responses from APNs". Where these leave the
order of checks open, ours is: address, provider, headers, payload, device.

Rule: nothing here does I/O, and the time is passed in.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

#: HTTP status of each reason.
STATUS = {
    "BadCollapseId": 400,
    "BadDeviceToken": 400,
    "BadExpirationDate": 400,
    "BadMessageId": 400,
    "BadPriority": 400,
    "BadTopic": 400,
    "DeviceTokenNotForTopic": 400,
    "DuplicateHeaders": 400,
    "IdleTimeout": 400,
    "InvalidPushType": 400,
    "MissingDeviceToken": 400,
    "MissingTopic": 400,
    "PayloadEmpty": 400,
    "TopicDisallowed": 400,
    "BadCertificate": 403,
    "BadCertificateEnvironment": 403,
    "BadEnvironmentKeyIdInToken": 403,
    "ExpiredProviderToken": 403,
    "Forbidden": 403,
    "InvalidProviderToken": 403,
    "MissingProviderToken": 403,
    "UnrelatedKeyIdInToken": 403,
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "ExpiredToken": 410,
    "Unregistered": 410,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}

#: The reason a status has when a fault names none; other statuses come from a proxy, with a page instead of JSON.
USUAL_REASON = {
    400: "BadDeviceToken",
    403: "Forbidden",
    404: "BadPath",
    405: "MethodNotAllowed",
    410: "Unregistered",
    413: "PayloadTooLarge",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable",
}

#: What each push type appends to the app's bundle id.
TOPIC_SUFFIX = {
    b"alert": b"",
    b"background": b"",
    b"complication": b".complication",
    b"controls": b".push-type.controls",
    b"fileprovider": b".pushkit.fileprovider",
    b"liveactivity": b".push-type.liveactivity",
    b"location": b".location-query",
    b"mdm": b"",
    b"pushtotalk": b".voip-ptt",
    b"voip": b".voip",
    b"widgets": b".push-type.widgets",
}

#: Topics of device management, whose payload is the command alone (Apple, "MDM protocol reference").
MDM_TOPIC = b"com.apple.mgmt."
SUFFIXES = tuple(suffix for suffix in TOPIC_SUFFIX.values() if suffix)
#: What an alert shows.
SHOWN = ("alert", "badge", "sound")

DEVICE_PATH = b"/3/device/"
PAYLOAD_BYTES = 4096
VOIP_PAYLOAD_BYTES = 5120
COLLAPSE_ID_BYTES = 64
TOKEN_UPDATE_S = 20 * 60  #: a team shows one new provider token in this time (Apple staff, forum thread 702056)
CLOCK_SKEW_S = 60  #: how far in the future a provider token may be issued
REMEMBERED_TOKENS = 1000

Payload = dict[str, Any]

UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
HEXADECIMAL = re.compile(rb"[0-9a-fA-F]+\Z")
UNRESERVED = re.compile(rb"[0-9A-Za-z._~-]+\Z")
TOPIC = re.compile(rb"[0-9A-Za-z.-]+\Z")
NUMBER = re.compile(rb"[0-9]{1,19}\Z")


@dataclass(frozen=True)
class AppleRules:
    """What this provider knows and how strict it is. Empty sets stand for "any"."""

    topics: frozenset[str] = frozenset()  #: bundle ids, without the suffix of a push type
    key_ids: frozenset[str] = frozenset()
    team_ids: frozenset[str] = frozenset()
    verification_key: ec.EllipticCurvePublicKey | None = None  #: without it signatures are not looked at
    any_token: bool = False  #: device tokens of any unreserved characters (RFC 3986, 2.3), not only hexadecimal ones
    require_push_type: bool = False  #: as on watchOS 6 and later
    token_lifetime_s: float = 3600.0
    renewal_scope: Literal["connection", "team", "off"] = "team"  #: where renewals of provider tokens are limited
    wedge: bool = True  #: after ExpiredProviderToken a connection refuses newer tokens too (seen by users)


@dataclass(slots=True)
class TokenUse:
    """Provider tokens seen on a connection, or from a team, and when the newest came (s)."""

    tokens: set[bytes] = field(default_factory=set)
    since: float = 0.0


@dataclass(slots=True)
class ConnectionMemory:
    """What the provider remembers about one connection."""

    certificate_topic: bytes | None = None
    team_id: str | None = None
    token_use: TokenUse = field(default_factory=TokenUse)
    expired: bool = False
    trusted: bool = False  #: whether a valid request was seen


class Claims(NamedTuple):
    """What a provider token says."""

    key_id: str
    team_id: str
    issued_at: float


class PushRequest(NamedTuple):
    """One request as the rules see it."""

    method: bytes
    path: bytes
    headers: Mapping[bytes, bytes]
    repeated: tuple[bytes, ...]
    body: bytes

    @property
    def device_token(self) -> bytes:
        """The last part of the path; empty when the path is another."""
        return self.path[len(DEVICE_PATH) :] if self.path.startswith(DEVICE_PATH) else b""


class SimulatedApple:
    """Applies the rules; remembers the provider tokens it has examined."""

    def __init__(self, rules: AppleRules) -> None:
        self.rules = rules
        self._topics = frozenset(topic.encode() for topic in rules.topics)
        self._claims: dict[bytes, Claims | None] = {}
        self._teams: dict[str, TokenUse] = {}
        self._expired_until = 0
        self._device_token = UNRESERVED if rules.any_token else HEXADECIMAL

    def refusal(self, push: PushRequest, client: ConnectionMemory, now: float) -> str:
        """The reason to refuse a push, or "" to accept it. `now` is Unix time, s."""
        reason = _address(push) or self._authorization(push, client, now)
        if reason:
            return reason
        for check in _HEADER_CHECKS:
            reason = check(push)
            if reason:
                return reason
        return (
            self._push_type(push)
            or self._topic(push, client)
            or _payload(push)
            or _type_of_payload(push)
            or self._device(push)
        )

    def refusal_for_app(self, request: PushRequest, bundle_id: str, client: ConnectionMemory, now: float) -> str:
        """The reason to refuse what is about an app and names it in its path, or ""."""
        reason = _duplicates(request) or self._authorization(request, client, now)
        if reason:
            return reason
        app = bundle_id.encode()
        known = client.certificate_topic in {None, app} and app in (self._topics or {app})
        return "" if known else "TopicMismatch"

    @property
    def tokens_seen(self) -> int:
        """Different provider tokens, the last REMEMBERED_TOKENS at most."""
        return len(self._claims)

    def expire_tokens(self, now: float) -> None:
        """Tokens issued before this second have expired, whatever their age; the next ones come of need."""
        self._expired_until = int(now)
        self._teams.clear()

    def _authorization(self, push: PushRequest, client: ConnectionMemory, now: float) -> str:
        authorization = push.headers.get(b"authorization")
        if authorization is None:
            return "" if client.certificate_topic is not None else "MissingProviderToken"
        scheme, _, token = authorization.partition(b" ")
        claims = self._claims_of(token) if scheme.lower() == b"bearer" else None
        if claims is None or claims.issued_at > now + CLOCK_SKEW_S:
            return "InvalidProviderToken"
        old = now - claims.issued_at > self.rules.token_lifetime_s or claims.issued_at < self._expired_until
        if old or (client.expired and self.rules.wedge):
            client.expired = True
            return "ExpiredProviderToken"
        if client.team_id not in {None, claims.team_id}:
            return "InvalidProviderToken"
        client.team_id = claims.team_id
        return self._token_update(token, client, now)

    def _token_update(self, token: bytes, client: ConnectionMemory, now: float) -> str:
        if self.rules.renewal_scope == "off":
            return ""
        use = client.token_use
        if self.rules.renewal_scope == "team":
            use = self._teams.setdefault(client.team_id or "", use)
        if token in use.tokens:
            return ""
        if use.tokens and now - use.since < TOKEN_UPDATE_S:
            return "TooManyProviderTokenUpdates"
        use.tokens.add(token)
        use.since = now
        return ""

    def _claims_of(self, token: bytes) -> Claims | None:
        if token not in self._claims:
            if len(self._claims) >= REMEMBERED_TOKENS:
                self._claims.clear()
            self._claims[token] = self._examine(token)
        return self._claims[token]

    def _examine(self, token: bytes) -> Claims | None:
        """The claims of a token that is well formed, signed, and of a known key and team; else None."""
        key = self.rules.verification_key
        options: jwt.types.Options = {"verify_signature": key is not None, "verify_iat": False, "verify_exp": False}
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, key or "", algorithms=["ES256"], options=options)
        except jwt.PyJWTError:
            return None
        key_id: Any = header.get("kid")
        team_id: Any = claims.get("iss")
        issued_at: Any = claims.get("iat")
        if header["alg"] != "ES256" or not key_id or not isinstance(team_id, str) or not _is_number(issued_at):
            return None
        known = key_id in (self.rules.key_ids or {key_id}) and team_id in (self.rules.team_ids or {team_id})
        return Claims(key_id, team_id, float(issued_at)) if known else None

    def _push_type(self, push: PushRequest) -> str:
        push_type = push.headers.get(b"apns-push-type")
        if push_type is None:
            return "InvalidPushType" if self.rules.require_push_type else ""
        if push_type not in TOPIC_SUFFIX:
            return "InvalidPushType"
        if push_type == b"background" and push.headers.get(b"apns-priority") != b"5":
            return "BadPriority"  # left out means 10, which Apple calls an error for this type
        return ""

    def _topic(self, push: PushRequest, client: ConnectionMemory) -> str:
        topic = push.headers.get(b"apns-topic", client.certificate_topic or b"")
        if not topic:
            return "MissingTopic"
        if not TOPIC.match(topic):
            return "BadTopic"
        push_type = push.headers.get(b"apns-push-type")
        suffix = TOPIC_SUFFIX[push_type or b"alert"]
        if not topic.endswith(suffix):
            return "TopicDisallowed"
        if push_type is not None and not _fits(push_type, topic):
            return "InvalidPushType"
        if push_type is None:
            suffix = next((one for one in SUFFIXES if topic.endswith(one)), b"")
        app = topic.removesuffix(suffix)
        if client.certificate_topic not in {None, app} or app not in (self._topics or {app}):
            return "TopicDisallowed"
        return ""

    def _device(self, push: PushRequest) -> str:
        return "" if self._device_token.match(push.device_token) else "BadDeviceToken"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _address(push: PushRequest) -> str:
    if push.method != b"POST":
        return "MethodNotAllowed"
    if not push.path.startswith(DEVICE_PATH):
        return "BadPath"
    return "" if push.device_token else "MissingDeviceToken"


def _duplicates(push: PushRequest) -> str:
    return "DuplicateHeaders" if push.repeated else ""


def _apns_id(push: PushRequest) -> str:
    apns_id = push.headers.get(b"apns-id")
    return "" if apns_id is None or UUID.match(apns_id) else "BadMessageId"


def _expiration(push: PushRequest) -> str:
    return "" if NUMBER.match(push.headers.get(b"apns-expiration", b"0")) else "BadExpirationDate"


def _priority(push: PushRequest) -> str:
    return "" if push.headers.get(b"apns-priority", b"10") in {b"10", b"5", b"1"} else "BadPriority"


def _collapse_id(push: PushRequest) -> str:
    return "BadCollapseId" if len(push.headers.get(b"apns-collapse-id", b"")) > COLLAPSE_ID_BYTES else ""


def _payload(push: PushRequest) -> str:
    if not push.body:
        return "PayloadEmpty"
    limit = VOIP_PAYLOAD_BYTES if push.headers.get(b"apns-push-type") == b"voip" else PAYLOAD_BYTES
    return "PayloadTooLarge" if len(push.body) > limit else ""


def _fits(push_type: bytes, topic: bytes) -> bool:
    """Whether a topic is not another type's: a `.voip` topic with `alert` is refused (PyAPNs2#87, apnotic#87)."""
    if topic.startswith(MDM_TOPIC) != (push_type == b"mdm"):
        return False
    return bool(TOPIC_SUFFIX[push_type]) or not topic.endswith(SUFFIXES)


def _type_of_payload(push: PushRequest) -> str:
    """Apple: the push type "must accurately reflect the contents of your notification's payload"."""
    push_type = push.headers.get(b"apns-push-type")
    if push_type not in _OF_PAYLOAD and b'"mdm"' not in push.body:
        return ""
    try:
        payload = json.loads(push.body)
    except ValueError:
        return ""
    payload = payload if isinstance(payload, dict) else {}
    aps = payload.get("aps")
    aps = aps if isinstance(aps, dict) else {}
    if (payload.get("mdm") is not None) != (push_type == b"mdm") and push_type is not None:
        return "InvalidPushType"
    return "" if _OF_PAYLOAD.get(push_type or b"", _anything)(payload, aps) else "InvalidPushType"


def _anything(_: Payload, __: Payload) -> bool:
    return True


def _is_background(_: Payload, aps: Payload) -> bool:
    return aps.get("content-available") == 1 and all(aps.get(name) is None for name in SHOWN)


def _is_command(payload: Payload, _: Payload) -> bool:
    return payload.keys() == {"mdm"} and isinstance(payload["mdm"], str)


def _is_activity(_: Payload, aps: Payload) -> bool:
    return "event" in aps or "content-state" in aps


_OF_PAYLOAD: dict[bytes | None, Callable[[Payload, Payload], bool]] = {
    b"background": _is_background,
    b"mdm": _is_command,
    b"liveactivity": _is_activity,
}
_HEADER_CHECKS: tuple[Callable[[PushRequest], str], ...] = (_duplicates, _apns_id, _expiration, _priority, _collapse_id)
