"""Broadcast channels: who has which, and what Apple refuses of them and of the pushes that go through them.

Sources: developer.apple.com/documentation/usernotifications, pages "Sending channel management requests to APNs",
"Sending broadcast push notification requests to APNs" and "Handling error responses from Apple Push Notification
service". Where these leave the order of checks open, ours is: address, provider, feature, channel, headers, payload.

Rule: nothing here does I/O, and the time is passed in.
"""

import base64
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

#: HTTP status of each reason that pushes to devices do not have.
STATUS = {
    "BadChannelId": 400,
    "BadRequestParams": 400,
    "BadRequestPayload": 400,
    "CannotCreateChannelConfig": 400,
    "ChannelNotRegistered": 400,
    "FeatureNotEnabled": 400,
    "MissingChannelId": 400,
    "MissingPushType": 400,
    "TopicMismatch": 403,
}
BROADCAST_PATH = re.compile(rb"/4/broadcasts/apps/([0-9A-Za-z.-]+)\Z")
CHANNELS_PATH = re.compile(rb"/1/apps/([0-9A-Za-z.-]+)/(channels|all-channels)\Z")
SUFFIX = b".push-type."
MOST_CHANNELS = 10_000
PAYLOAD_BYTES = 5_120
ID_OCTETS = 16
LONGEST_ID = 128
NUMBER = re.compile(rb"[0-9]{1,19}\Z")
PRIORITIES = {b"1", b"5", b"10"}
PUSH_TYPE = "LiveActivity"
POLICIES = (0, 1)
Headers = Mapping[bytes, bytes]


class Managed(NamedTuple):
    """An answer of the management host: a reason, or a status with what belongs to it."""

    reason: str = ""
    status: int = 200
    channel_id: str = ""
    body: dict[str, Any] | None = None


class BroadcastChannels:
    """All channels: of each app, by id, the storage policy. `featured`: bundle ids with the capability; empty = any."""

    def __init__(self, featured: frozenset[str] = frozenset(), most: int = MOST_CHANNELS) -> None:
        self._featured, self._most = featured, most
        self._apps: dict[str, dict[str, int]] = {}

    def of(self, bundle_id: str) -> dict[str, int]:
        """The channels of an app; changes when they do."""
        return self._apps.setdefault(bundle_id, {})

    def refusal(self, bundle_id: str, headers: Headers, body: bytes) -> str:
        """The reason to refuse a broadcast, or ""."""
        return (
            self._not_featured(bundle_id)
            or self._of_channel(bundle_id, headers)
            or _of_headers(headers, self.of(bundle_id)[_channel_id(headers)])
            or _of_payload(body)
        )

    def manage(self, method: bytes, bundle_id: str, what: str, headers: Headers, body: bytes) -> Managed:
        """A request to the management host."""
        reason = self._not_featured(bundle_id)
        if reason:
            return Managed(reason)
        match what, method:
            case "all-channels", b"GET":
                return Managed(body={"channels": list(self.of(bundle_id))})
            case "channels", b"POST":
                return self._create(bundle_id, body)
            case "channels", (b"GET" | b"DELETE"):
                return self._of_one(method, bundle_id, headers)
        return Managed("MethodNotAllowed")

    def _of_one(self, method: bytes, bundle_id: str, headers: Headers) -> Managed:
        reason = self._of_channel(bundle_id, headers)
        if reason:
            return Managed(reason)
        channels, channel_id = self.of(bundle_id), _channel_id(headers)
        if method == b"GET":
            return Managed(body={"message-storage-policy": channels[channel_id], "push-type": PUSH_TYPE})
        del channels[channel_id]
        return Managed(status=204)

    def _create(self, bundle_id: str, body: bytes) -> Managed:
        reason, policy = _asked(body)
        if not reason and len(self.of(bundle_id)) >= self._most:
            reason = "CannotCreateChannelConfig"
        if reason:
            return Managed(reason)
        channel_id = base64.b64encode(secrets.token_bytes(ID_OCTETS)).decode()
        self.of(bundle_id)[channel_id] = policy
        return Managed(status=201, channel_id=channel_id)

    def _not_featured(self, bundle_id: str) -> str:
        if SUFFIX.decode() in bundle_id:
            return "TopicDisallowed"
        return "" if bundle_id in (self._featured or {bundle_id}) else "FeatureNotEnabled"

    def _of_channel(self, bundle_id: str, headers: Headers) -> str:
        if not headers.get(b"apns-channel-id"):
            return "MissingChannelId"
        channel_id = _channel_id(headers)
        try:
            base64.b64decode(channel_id, validate=True)
        except ValueError:
            return "BadChannelId"
        if len(channel_id) > LONGEST_ID:
            return "BadChannelId"
        return "" if channel_id in self.of(bundle_id) else "ChannelNotRegistered"


def _asked(body: bytes) -> tuple[str, int]:
    """The reason to refuse the order of a channel, or "" and its storage policy."""
    try:
        asked = json.loads(body)
    except ValueError:
        return "BadRequestPayload", 0
    if not isinstance(asked, dict) or asked.keys() - {"message-storage-policy", "push-type"}:
        return "BadRequestParams", 0
    policy, push_type = asked.get("message-storage-policy"), asked.get("push-type")
    if isinstance(policy, bool) or policy not in POLICIES:
        return "BadRequestParams", 0
    if push_type != PUSH_TYPE:
        return "MissingPushType" if push_type is None else "InvalidPushType", 0
    return "", policy


def _channel_id(headers: Headers) -> str:
    return headers.get(b"apns-channel-id", b"").decode("latin-1")


def _of_headers(headers: Headers, policy: int) -> str:
    push_type = headers.get(b"apns-push-type")
    if push_type is None:
        return "MissingPushType"
    if push_type.lower() != b"liveactivity":
        return "InvalidPushType"
    expiration = headers.get(b"apns-expiration", b"")
    if not NUMBER.match(expiration) or (int(expiration) and not policy):
        return "BadExpirationDate"
    return "" if headers.get(b"apns-priority") in PRIORITIES else "BadPriority"


def _of_payload(body: bytes) -> str:
    if not body:
        return "PayloadEmpty"
    return "PayloadTooLarge" if len(body) > PAYLOAD_BYTES else ""
