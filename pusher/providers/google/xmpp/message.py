"""A push request made into the JSON of its XMPP stanza, in the order of Google's "XMPP protocol reference" (legacy)."""

from __future__ import annotations

from pusher.providers.google.request import MESSAGE, NOTIFICATION, LeftOut, read
from pusher.push.fields import MAX_BODY_BYTES, InvalidMessage, Json, encode
from pusher.push.push import Push

_FOR_FCM_ALONE = ("image_url", "image")


class GcmPush(Push):
    """A push for Google over XMPP. ``body`` is the JSON of its stanza."""

    __slots__ = ("__weakref__", "body", "left_out")

    body: bytes
    #: Fields that have no place in it.
    left_out: list[str]


class GcmParser:
    """Makes pushes from the requests of one app. Never waits."""

    def __init__(self, app: str, *, compares: bool = False) -> None:
        self._left_out, self._compares = LeftOut(app, "XMPP"), compares

    def __call__(self, value: bytes | None, origin: str) -> GcmPush:
        """Raises ``InvalidMessage``."""
        push = parse(value, origin, compares=self._compares)
        if push.left_out:
            self._left_out.warn(push.left_out)
        return push


def parse(value: bytes | None, origin: str, *, compares: bool = False) -> GcmPush:
    """The push that a record asks for. Never waits; raises ``InvalidMessage``."""
    push = GcmPush()
    fields, push.left_out = read(push, value, origin, compares=compares)
    push.body = encode(_for_xmpp(fields, push.left_out))
    if len(push.body) > MAX_BODY_BYTES:
        raise InvalidMessage("payload-too-large", f"the message has {len(push.body)} bytes")
    return push


def _for_xmpp(message: dict[str, Json], left_out: list[str]) -> dict[str, Json]:
    """In Google's order, without what FCM alone knows."""
    ordered = {name: message[name] for name in MESSAGE if name in message}
    given = ordered.get("notification", {})
    left_out += [f"notification.{name}" for name in _FOR_FCM_ALONE if name in given]
    shown = {name: given[name] for name in NOTIFICATION if name in given and name not in _FOR_FCM_ALONE}
    if shown:
        ordered["notification"] = shown
    else:
        ordered.pop("notification", None)
    return ordered
