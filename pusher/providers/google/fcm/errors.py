"""What FCM's answers mean: one row an error code, one row a status where no code is given.

Sources: FCM HTTP v1 reference, "ErrorCode"; "REST error codes for the HTTP v1 API" for how an error looks; "Scale up
FCM" and "Throttling and quotas" for what is retried. An error's body is a ``google.rpc.Status`` under ``error``; FCM's
own code stands in a detail of type ``FcmError``. The names that we report are those of Google's XMPP protocol, so that
readers of feedbacks need not know which protocol a push used.

Rule: the code decides what it is called, the code and else the HTTP status whether it is worth another try. Only the
explicit code UNREGISTERED says that a token is dead, a bare 404 may come from a wrong project; an INVALID_ARGUMENT that
names the registration token says that it is none.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from pusher.providers.google.answer import CREDENTIALS, DEAD_TOKEN, FINAL, RETRY, Answer, Meaning
from pusher.push.fields import Json
from pusher.push.outcome import DELIVERED, Kind, Outcome

UNKNOWN = "UNKNOWN"
#: Google: after a 429 without Retry-After the first wait is at least a minute.
QUOTA_WAIT_S = 60.0
_MAX_DESCRIPTION_CHARACTERS = 500
_MAX_NAME_CHARACTERS = 500
_FCM_ERROR = "google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "google.rpc.BadRequest"
_INVALID_ARGUMENT = "INVALID_ARGUMENT"
#: How Google names the token in an INVALID_ARGUMENT: as a field, or in words alone.
_TOKEN_FIELD = "message.token"  # noqa: S105
_TOKEN_WORDS = "not a valid fcm registration token"  # noqa: S105


class Code(NamedTuple):
    """An error code: what the XMPP protocol calls it, and what follows from it."""

    name: str
    meaning: Meaning


_QUOTA = Meaning(retry=True, quota=True)
_ACCESS_TOKEN = Meaning(access_token=True, credentials=True)

CODES: dict[str, Code] = {
    "INVALID_ARGUMENT": Code("INVALID_JSON", FINAL),
    "UNREGISTERED": Code("DEVICE_UNREGISTERED", DEAD_TOKEN),
    "SENDER_ID_MISMATCH": Code("SENDER_ID_MISMATCH", FINAL),
    "QUOTA_EXCEEDED": Code("DEVICE_MESSAGE_RATE_EXCEEDED", _QUOTA),
    "UNAVAILABLE": Code("SERVICE_UNAVAILABLE", RETRY),
    "INTERNAL": Code("INTERNAL_SERVER_ERROR", RETRY),
    # The project's certificate for APNs or key for web push, which its operator has to repair: a 401 all the same.
    "THIRD_PARTY_AUTH_ERROR": Code("THIRD_PARTY_AUTH_ERROR", FINAL),
    # How the one above has been spelled too.
    "APNS_AUTH_ERROR": Code("THIRD_PARTY_AUTH_ERROR", FINAL),
}
#: An INVALID_ARGUMENT of which the token is the reason.
_INVALID_REGISTRATION = Code("INVALID_REGISTRATION", DEAD_TOKEN)
#: Canonical codes of ``google.rpc.Code`` that say the same where the detail is missing. INVALID_ARGUMENT does not: what
#: stands between FCM and us says it too, and consumers know such a push as UNKNOWN.
_SAME_AS = {
    "RESOURCE_EXHAUSTED": "QUOTA_EXCEEDED",
    "UNAVAILABLE": "UNAVAILABLE",
    "INTERNAL": "INTERNAL",
}
#: 502 and 504 come from what stands between FCM and us.
_BY_STATUS = {
    401: _ACCESS_TOKEN,
    403: CREDENTIALS,
    429: _QUOTA,
    500: RETRY,
    502: RETRY,
    503: RETRY,
    504: RETRY,
}


def read_answer(status: int, body: bytes) -> Answer:
    """Judges an answer: 200 is success and nothing else; a body that cannot be read leaves the status to decide."""
    if status == 200:
        return Answer(_delivered(body), FINAL)
    error = _error(body)
    name = _code(error)
    code = CODES.get(name) or Code(UNKNOWN, _BY_STATUS.get(status, FINAL))
    if status == 400 and _INVALID_ARGUMENT in (name, _text(error, "status")) and _names_the_token(error):
        code = _INVALID_REGISTRATION
    outcome = Outcome(
        Kind.FAILED if code.meaning.retry else Kind.REJECTED,
        status=status,
        reason=code.name,
        key=code.name.lower(),
        description=_description(error, status),
        delete_token=code.meaning.delete_token,
    )
    return Answer(outcome, code.meaning)


def _delivered(body: bytes) -> Outcome:
    """With the name that FCM gave the message, where it is there."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return DELIVERED
    name = answer.get("name") if isinstance(answer, dict) else None
    if not isinstance(name, str) or not name:
        return DELIVERED
    return Outcome(Kind.DELIVERED, status=200, provider_id=name[:_MAX_NAME_CHARACTERS])


def _error(body: bytes) -> dict[str, Json]:
    """The ``google.rpc.Status`` in a body, empty where there is none."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _code(error: dict[str, Json]) -> str:
    for detail in _objects(error, "details"):
        if _text(detail, "@type").endswith(_FCM_ERROR):
            return _text(detail, "errorCode")
    return _SAME_AS.get(_text(error, "status"), "")


def _names_the_token(error: dict[str, Json]) -> bool:
    if _TOKEN_WORDS in _text(error, "message").lower():
        return True
    return any(
        _text(violation, "field") == _TOKEN_FIELD
        for detail in _objects(error, "details")
        if _text(detail, "@type").endswith(_BAD_REQUEST)
        for violation in _objects(detail, "fieldViolations")
    )


def _objects(fields: dict[str, Json], name: str) -> list[dict[str, Json]]:
    """The objects in an array; none of anything else."""
    items = fields.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _text(fields: dict[str, Json], name: str) -> str:
    """Of anything but a string "": the text of what is nested deeply cannot be had."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _description(error: dict[str, Json], status: int) -> str:
    message = error.get("message")
    if isinstance(message, str) and message:
        return message[:_MAX_DESCRIPTION_CHARACTERS]
    return f"HTTP {status}"
