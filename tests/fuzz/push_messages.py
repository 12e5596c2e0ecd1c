"""Push requests as anybody can write them into a topic: a push whose parts are what they should be, or InvalidMessage.

What a push must be is worked out here a second time, from the message as Python's own JSON reads it; header fields are
read by hpack, stanzas by ElementTree, feedbacks by Python's JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import hpack

from pusher.broker.interface import Header
from pusher.commands.replay.message import origin_ms, read_feedback, read_held, read_request, source_topic
from pusher.listener.sorter import topic_name
from pusher.providers.apns.feedback import apns_feedback
from pusher.providers.apns.message import ApnsParser
from pusher.providers.google.fcm.message import parse as parse_fcm
from pusher.providers.google.feedback import google_feedback
from pusher.providers.google.request import MESSAGE, NOTIFICATION, FieldType
from pusher.providers.google.xmpp.engine import PAYLOAD_NAMESPACE, message_stanza
from pusher.providers.google.xmpp.message import parse as parse_gcm
from pusher.push import topics
from pusher.push.feedback import SentFrom
from pusher.push.fields import MAX_BODY_BYTES, InvalidMessage, encode
from pusher.push.origin import origin
from pusher.push.outcome import CONNECTION_ERROR, DELIVERED, Outcome
from pusher.push.outcome import Kind as OutcomeKind
from pusher.push.push import Push
from tests.fuzz.draw import Draw
from tests.records import FakeRecord, record

Json = Any

ORIGIN = SentFrom("game", "apns", "host")
OUTCOMES = (
    DELIVERED,
    CONNECTION_ERROR,
    Outcome(OutcomeKind.REJECTED, 410, "Unregistered", "unregistered", "dead", True, 1_700_000_000_000),
)
#: Headers that a record may have.
HEADERS: Sequence[Sequence[Header]] = (
    (),
    (("pusher-origin", b"push-game_apns-single/0/7/1700000000000"),),
    (("pusher-origin", b"\xff/x"), ("error", b"bad-token: \xfe")),
    (("pusher-origin", b""), ("error", b""), ("source-topic", b"")),
    (("pusher-origin", b"a/0/1/" + b"9" * 5000), ("source-topic", b"push-game_gcm")),
)
_REASON = re.compile(r"[a-z][a-z_-]{2,40}")
_RESERVED = re.compile(r"from\Z|message_type\Z|collapse_key\Z|google|gcm")
_FORBIDDEN = re.compile(rb"[\x00-\x1f\x7f]")


def apns(data: bytes) -> None:
    taken, value = _record(data)
    push = _parsed(ApnsParser("com.example.game"), taken)
    if push is None:
        return
    fields = _fields(value)
    metadata, payload = fields.get("metadata"), fields.get("payload")
    if metadata is not None and push.kind.push_type != b"mdm":
        payload = _with_metadata(payload, metadata)
    _same(json.loads(push.body), payload)
    headers = dict(hpack.Decoder().decode(push.literals, raw=True))
    if push.kind.broadcast:
        assert not fields.get("devicetoken")
        assert push.token == fields["channel_id"] == headers.pop(b"apns-channel-id").decode()
        assert push.path == b"/4/broadcasts/apps/" + push.kind.topic
        assert headers.pop(b"apns-request-id") == push.id.encode()
        assert headers[b"apns-expiration"].isdigit()
        assert push.kind[1:3] in [(b"liveactivity", priority) for priority in (b"1", b"5", b"10")]
    else:
        assert push.token == fields["devicetoken"]
        assert push.path == b"/3/device/" + fields["devicetoken"].encode()
        assert headers.pop(b"apns-id") == push.id.encode()
        _check_kind(push.kind, fields)
    _same(None if push.metadata is None else json.loads(encode(push.metadata)), metadata)
    expiry = max(0, fields.get("push_expiry") or 0)
    assert push.expires_ms == expiry
    expires = headers.pop(b"apns-expiration", None)
    otherwise = b"0" if push.kind.broadcast else None
    assert expires == (str(expiry // 1000).encode() if expiry else otherwise) or fields.get("expiration") is not None
    collapse = headers.pop(b"apns-collapse-id", b"").decode()
    assert collapse == "" or collapse == str(fields["collapse_id"])
    assert not headers
    assert not _FORBIDDEN.search(collapse.encode())
    _check_feedbacks(lambda outcome, user: apns_feedback(ORIGIN, push, outcome, 1, user_metadata=user), push)


def _check_kind(kind: Any, fields: dict[str, Json]) -> None:
    given = fields.get("push_type")
    if isinstance(given, str) and re.fullmatch(r"[A-Za-z]{1,64}", given):
        assert kind.push_type.decode() == given.lower()
    topic = fields.get("topic")
    assert kind.topic.decode().startswith("com.example.game" if kind.own_topic else str(topic))
    assert kind.own_topic or kind.topic.decode() == topic
    assert kind.priority in (b"", b"1", b"5", b"10")
    assert all(not _FORBIDDEN.search(value) and len(value) <= 300 for value in kind[:3])


def gcm(data: bytes) -> None:
    taken, value = _record(data)
    push = _parsed(parse_gcm, taken)
    if push is None:
        return
    wanted = _google(value, push, MESSAGE)
    shown = {name: one for name, one in wanted.pop("notification", {}).items() if name not in ("image", "image_url")}
    if shown:
        wanted["notification"] = shown
    body = json.loads(push.body)
    _same(body, wanted)
    assert list(body) == [name for name in MESSAGE if name in body]
    stanza = ElementTree.fromstring(message_stanza(push.id, push.body))
    assert stanza.get("id") == push.id
    _same(json.loads(stanza.findtext(f"{{{PAYLOAD_NAMESPACE}}}gcm", "")), wanted)
    _check_feedbacks(lambda outcome, user: google_feedback(ORIGIN, push, outcome, 1, user_metadata=user), push)


def fcm(data: bytes) -> None:
    taken, value = _record(data)
    push = _parsed(parse_fcm, taken)
    if push is None:
        return
    wanted = _google(value, push, MESSAGE)
    body = json.loads(push.body)
    message = body.pop("message")
    assert body == ({"validate_only": True} if wanted.get("dry_run") else {})
    to = wanted.get("to", "")
    target = ("topic", to.removeprefix("/topics/")) if to.startswith("/topics/") else ("token", to)
    target = ("condition", wanted["condition"]) if wanted.get("condition") else target
    assert [(name, message[name]) for name in ("token", "topic", "condition") if name in message] == [target]
    data_out, data_in = message.get("data", {}), wanted.get("data", {})
    assert data_out.keys() == data_in.keys()
    for name, text in data_out.items():
        given = data_in[name]
        _same(text if isinstance(given, str) else json.loads(text), given)
    assert push.ttl_s is None or push.ttl_s >= 0
    if "time_to_live" in wanted and "android" not in _fields(value):
        assert message["android"]["ttl"] == f"{wanted['time_to_live']}s"
    _check_notification(message, wanted.get("notification", {}), push.left_out, _fields(value).keys())
    _check_feedbacks(lambda outcome, user: google_feedback(ORIGIN, push, outcome, 1, user_metadata=user), push)


def _check_for_apple(message: Json, given: Json) -> None:
    aps = message.get("apns", {}).get("payload", {}).get("aps", {})
    for name, key in (("sound", "sound"), ("click_action", "category")):
        assert aps.get(key) == given.get(name)
    for name, key in (("title_loc_key", "title-loc-key"), ("body_loc_key", "loc-key")):
        assert aps.get("alert", {}).get(key) == given.get(name)


def _check_notification(message: Json, given: Json, left_out: tuple[str, ...], overridden: Collection[str]) -> None:
    """Every member has its place, or is named as left out."""
    everywhere = message.get("notification", {})
    if "apns" not in overridden:
        _check_for_apple(message, given)
    for name in ("title", "body"):
        assert everywhere.get(name) == given.get(name)
    image = given.get("image") or given.get("image_url")
    assert everywhere.get("image") == image
    if "android" in overridden:
        return
    android = message.get("android", {}).get("notification", {})
    for name, value in given.items():
        if name.endswith("_args"):
            assert all(isinstance(one, str) for one in android[name])
            assert len(android[name]) == len(value) or isinstance(value, str)
        elif name == "badge":
            assert ("notification_count" in android) != ("notification.badge" in left_out)
        elif name == "subtitle":
            assert "apns" in overridden or message["apns"]["payload"]["aps"]["alert"]["subtitle"] == value
        elif name not in ("image", "image_url"):
            assert android["channel_id" if name == "android_channel_id" else name] == value


def replay(data: bytes) -> None:
    """What replay reads besides requests: feedbacks, held ones, and records of invalid topics with their headers."""
    taken, value = _record(data)
    read_feedback(value)
    read_held(taken, "push-game_apns-single")
    origin_ms(taken)
    source_topic(taken)
    for parse in (ApnsParser(""), parse_gcm, parse_fcm):
        read_request(taken, "push-game_apns-single", parse)


def names(data: bytes) -> None:
    """Names of topics."""
    draw = Draw(data)
    apps = [draw.octets(draw.number(12)).decode("latin-1") for _ in range(draw.number(4))]
    rest = draw.rest().decode("utf-8", "replace")
    for topic in (rest, "push-" + rest, *(f"push-{app}{rest}" for app in apps)):
        name = topics.parse(topic, apps)
        possible = re.match(r"push-.+?[-_](apns|gcm)", topic, re.DOTALL)
        assert (name is None) == (possible is None)
        if name is not None:
            assert re.match(f"push-{re.escape(name.game)}[-_]{name.platform}", topic)
            assert name.game in apps or len(name.game) <= len(topic)
            longer = [app for app in apps if len(app) > len(name.game)]
            assert not [app for app in longer if re.match(f"push-{re.escape(app)}[-_](apns|gcm)", topic)]
    for app in apps:
        for platform in ("apns", "gcm"):
            if app:
                feedbacks = topics.feedback_topic(app, platform)
                assert topics.is_written_by_pusher(feedbacks)
                assert topic_name(feedbacks) == (app, platform)


def _record(data: bytes) -> tuple[FakeRecord, bytes]:
    headers = HEADERS[data[0] % len(HEADERS)] if data else ()
    return record(data[1:], headers=headers), data[1:]


def _parsed(parse: Callable[..., Any], taken: FakeRecord) -> Any:
    """None for an invalid message, which is described in one line."""
    try:
        push: Push = parse(taken.value, origin(taken))
    except InvalidMessage as invalid:
        assert _REASON.fullmatch(invalid.reason)
        assert 0 < len(invalid.detail) <= 400
        assert len(invalid.detail.splitlines()) == 1
        return None
    assert len(push.body) <= MAX_BODY_BYTES  # type: ignore[attr-defined]  # of every kind of push
    return push


def _fields(value: bytes) -> dict[str, Json]:
    """The members by their names in lower case; of several the last that is not null, of metadata all."""
    return _merged([(name.lower(), field) for name, field in _pairs(value)])


def _pairs(value: bytes) -> list[tuple[str, Json]]:
    """The outermost members in their order, each time that they are given."""
    outermost: list[tuple[str, Json]] = []

    def note(pairs: list[tuple[str, Json]]) -> Json:
        nonlocal outermost
        outermost = pairs
        return dict(pairs)

    json.loads(value.decode("utf-8", "replace"), object_pairs_hook=note)
    return [(_whole(name), _whole(field)) for name, field in outermost]


def _merged(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, field in pairs:
        before = found.get(name)
        both = name.lower() == "metadata" and isinstance(before, dict) and isinstance(field, dict)
        if field is not None or before is None:
            found.pop(name, None)
            found[name] = before | field if both else field
    return found


def _whole(value: Json) -> Json:
    """With U+FFFD for each half of a character."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return {_whole(k): _whole(v) for k, v in value.items()} if isinstance(value, dict) else value


def _with_metadata(payload: Json, metadata: dict[str, Json]) -> Json:
    payload = {} if payload is None else payload
    if isinstance(payload, dict):
        inner = {} if payload.get("M") is None else payload["M"]
        payload["M"] = {**inner, **_missing(metadata, inner)} if isinstance(inner, dict) else inner
    return payload


def _missing(metadata: dict[str, Json], into: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in metadata.items() if into.get(name) is None}


def _google(value: bytes, push: Push, known: Mapping[str, FieldType]) -> dict[str, Json]:
    """What Google must be told, in XMPP's names."""
    fields = _read(_merged(_pairs(value)), known)
    if fields.get("to"):
        fields.pop("condition", None)
    metadata = fields.pop("metadata", None)
    assert push.expires_ms == max(0, fields.pop("push_expiry", 0) or 0)
    _same(None if push.metadata is None else json.loads(encode(push.metadata)), metadata)
    fields["message_id"] = fields.get("message_id") or push.id
    if metadata:
        data = fields.get("data") or {}
        added = {name: one for name, one in metadata.items() if not _RESERVED.match(name)}
        fields["data"] = {**data, **_missing(added, data)}
    notification = fields.get("notification")
    if notification:
        shown = _read(notification, NOTIFICATION)
        fields["notification"] = {name: one for name, one in shown.items() if _says_something(one)}
    return {name: one for name, one in fields.items() if _says_something(one)}


def _read(given: Json, kinds: Mapping[str, FieldType]) -> dict[str, Json]:
    """The known fields under their names; of a field that is given twice the last holds that is not null."""
    names = {name.replace("_", ""): name for name in kinds} | {"validateonly": "dry_run"}
    fields: dict[str, Json] = {}
    for spelling, value in given.items():
        name = names.get(spelling.replace("_", "").lower(), "")
        kind = kinds.get(name)
        if kind is None:
            continue
        good = type(value) in kind.types and (kind.holds is None or kind.holds(value))
        one = value if good or value is None else kind.meant(value) if kind.meant else None
        if name == "metadata" and isinstance(one, dict) and isinstance(fields.get(name), dict):
            one = fields[name] | one
        if one is not None or name not in fields:
            fields[name] = one
    return fields


def _says_something(value: Json) -> bool:
    return bool(value) or type(value) in (int, float)


def _same(got: Json, wanted: Json) -> None:
    """Equal as JSON: 1 is not true, 1.0 is not 1."""
    assert json.dumps(got, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def _check_feedbacks(make: Callable[[Outcome, bool], bytes], push: Push) -> None:
    for outcome in OUTCOMES:
        for user_metadata in (True, False):
            feedback = json.loads(make(outcome, user_metadata))
            assert push.token in (feedback.get("from"), feedback.get("DeviceToken"))
            assert push.id in (feedback.get("message_id"), feedback.get("ApnsID"))
            given = json.loads(encode(push.metadata)) if push.metadata and user_metadata else {}
            own = {
                "game",
                "platform",
                "hostname",
                "deviceToken",
                "deleteToken",
                "unregisteredAt",
                "timestamp",
                "Reason",
            }
            _same(
                {k: v for k, v in feedback["metadata"].items() if k not in own},
                {k: v for k, v in given.items() if k not in own},
            )
