"""The meaning of Apple's answers: one row for each reason.

Sources: Apple, "Handling notification responses from APNs" and, for broadcasts and their channels, "Handling error
responses from Apple Push Notification service". The key is the reason in kebab case; a reason that is not
in the table is ``unexpected``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

from pusher.push.fields import Json
from pusher.push.outcome import DELIVERED, Kind, Outcome

UNEXPECTED = "unexpected"


class Reason(NamedTuple):
    """The consequences of a reason."""

    #: The device token is dead for this app; ``of_own_topic``: only where the push went to the app's own topic.
    delete_token: bool = False
    of_own_topic: bool = False
    #: The app's credentials, not this push, are refused.
    credentials: bool = False
    #: Worth another try after a wait.
    retry: bool = False
    #: Says nothing of the push: Apple accepts no new provider token of the team for a while.
    team: bool = False


_TOKEN = Reason(delete_token=True)
_CREDENTIALS = Reason(credentials=True)
_RETRY = Reason(retry=True)
_FINAL = Reason()

REASONS: dict[str, Reason] = {
    "BadDeviceToken": _TOKEN,
    "Unregistered": _TOKEN,
    "ExpiredToken": _TOKEN,
    # "Pushing to this topic is not allowed": of the sender's set-up, not of the token
    "TopicDisallowed": _FINAL,
    "DeviceTokenNotForTopic": Reason(delete_token=True, of_own_topic=True),
    "BadCertificate": _CREDENTIALS,
    "BadCertificateEnvironment": _CREDENTIALS,
    "Forbidden": _CREDENTIALS,
    "ExpiredProviderToken": _CREDENTIALS,
    "InvalidProviderToken": _CREDENTIALS,
    "MissingProviderToken": _CREDENTIALS,
    "UnrelatedKeyIdInToken": _CREDENTIALS,
    "BadEnvironmentKeyIdInToken": _CREDENTIALS,
    # How the wire spells the one above.
    "BadEnvironmentKeyInToken": _CREDENTIALS,
    "TopicMismatch": _CREDENTIALS,
    "TooManyRequests": _RETRY,
    "TooManyProviderTokenUpdates": Reason(team=True),
    "InternalServerError": _RETRY,
    "ServiceUnavailable": _RETRY,
    "Shutdown": _RETRY,
    "IdleTimeout": _FINAL,
    "BadCollapseId": _FINAL,
    "BadExpirationDate": _FINAL,
    "BadMessageId": _FINAL,
    "BadPath": _FINAL,
    "BadPriority": _FINAL,
    "BadTopic": _FINAL,
    "DuplicateHeaders": _FINAL,
    "InvalidPushType": _FINAL,
    "MethodNotAllowed": _FINAL,
    "MissingDeviceToken": _FINAL,
    "MissingTopic": _FINAL,
    "PayloadEmpty": _FINAL,
    "PayloadTooLarge": _FINAL,
    "BadChannelId": _FINAL,
    "BadRequestParams": _FINAL,
    "BadRequestPayload": _FINAL,
    "CannotCreateChannelConfig": _FINAL,
    "ChannelNotRegistered": _FINAL,
    "FeatureNotEnabled": _FINAL,
    "MissingChannelId": _FINAL,
    "MissingPushType": _FINAL,
}
#: The reason of an answer whose body names none.
_BY_STATUS = {
    403: "Forbidden",
    404: "BadPath",
    405: "MethodNotAllowed",
    413: "PayloadTooLarge",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable",
}
#: Without a reason these are a proxy's words, not Apple's.
_OF_A_PROXY = (403, 404, 410)
#: What a proxy on the way answers when it cannot reach Apple.
_GATEWAY_ERRORS = (502, 504)
_CAMEL = re.compile(r"(?<!^)(?=[A-Z])")


class AppleAnswer(NamedTuple):
    """An answer read: what it makes of the push, and what follows from its reason."""

    outcome: Outcome
    meaning: Reason


def key_of(reason: str) -> str:
    """``BadDeviceToken`` becomes ``bad-device-token``; a reason that Apple does not document becomes ``unexpected``."""
    if reason == "BadEnvironmentKeyInToken":
        reason = "BadEnvironmentKeyIdInToken"
    return _CAMEL.sub("-", reason).lower() if reason in REASONS else UNEXPECTED


def read_answer(status: int, body: bytes, *, own_topic: bool = True) -> AppleAnswer:
    """Judges an answer: 200 is success and nothing else; a body that cannot be read leaves the status to decide.

    A token is dead only where Apple's own body says so: a page of a proxy says nothing of it, whatever its status.
    """
    if status == 200:
        return AppleAnswer(DELIVERED, _FINAL)
    facts = _facts(body)
    reason = facts.get("reason")
    given = isinstance(reason, str) and bool(reason)
    if not isinstance(reason, str) or not reason:
        reason = _BY_STATUS.get(status, f"HTTP {status}")
    unknown = _RETRY if status in _GATEWAY_ERRORS or status in (429, 500, 503) else _FINAL
    meaning = REASONS.get(reason, unknown) if given else unknown
    timestamp = facts.get("timestamp")
    outcome = Outcome(
        Kind.FAILED if meaning.retry or meaning.team or (status in _OF_A_PROXY and not given) else Kind.REJECTED,
        status=status,
        reason=reason,
        key=key_of(reason),
        description=reason,
        delete_token=meaning.delete_token and (own_topic or not meaning.of_own_topic),
        unregistered_at_ms=timestamp if status == 410 and type(timestamp) is int else 0,
    )
    return AppleAnswer(outcome, meaning)


def _facts(body: bytes) -> dict[str, Json]:
    try:
        facts = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return facts if isinstance(facts, dict) else {}
