"""What Google's answers over XMPP mean: one row an error that has consequences.

Sources: "Downstream message error response codes" and "XMPP protocol reference" (legacy); for the conditions of stanza
errors, written in lower case, RFC 6120, 8.3.3. An error without a row is final and says nothing about the token.
"""

from __future__ import annotations

from typing import NamedTuple

from pusher.push.fields import Json
from pusher.push.outcome import DELIVERED, Kind, Outcome

UNKNOWN = "UNKNOWN"
_MAX_CHARACTERS = 2_000


class Meaning(NamedTuple):
    """What follows from an error."""

    #: The device token is dead for this app.
    delete_token: bool = False
    #: Worth another try after a wait.
    retry: bool = False
    #: The app's credentials, not this push, are refused.
    credentials: bool = False


class Answer(NamedTuple):
    """An answer read: what it makes of the push, and what follows from its error."""

    outcome: Outcome
    meaning: Meaning


_FINAL = Meaning()
_DEAD = Meaning(delete_token=True)
_RETRY = Meaning(retry=True)
_CREDENTIALS = Meaning(credentials=True)

ERRORS: dict[str, Meaning] = {
    "DEVICE_UNREGISTERED": _DEAD,
    "BAD_REGISTRATION": _DEAD,
    "SERVICE_UNAVAILABLE": _RETRY,
    "INTERNAL_SERVER_ERROR": _RETRY,
    "CONNECTION_DRAINING": _RETRY,
    "DEVICE_MESSAGE_RATE_EXCEEDED": _RETRY,
    "TOPICS_MESSAGE_RATE_EXCEEDED": _RETRY,
    "AUTHENTICATION_FAILED": _CREDENTIALS,
    # How two of the above were spelled once.
    "Unavailable": _RETRY,
    "InternalServerError": _RETRY,
    # Conditions of stanza errors that are the server's, not the message's.
    "internal-server-error": _RETRY,
    "remote-server-timeout": _RETRY,
    "resource-constraint": _RETRY,
    "service-unavailable": _RETRY,
}


def read_answer(message: dict[str, Json]) -> Answer:
    """Judges an ack or a nack."""
    if message.get("message_type") != "ack":
        return read_error(text(message, "error") or UNKNOWN, text(message, "error_description"))
    new_id = text(message, "registration_id")
    return Answer(DELIVERED._replace(registration_id=new_id) if new_id else DELIVERED, _FINAL)


def read_error(name: str, description: str) -> Answer:
    """Judges an error by its name, or the condition of a stanza error."""
    meaning = ERRORS.get(name, _FINAL)
    outcome = Outcome(
        Kind.FAILED if meaning.retry else Kind.REJECTED,
        reason=name,
        key=name.lower(),
        description=description,
        delete_token=meaning.delete_token,
    )
    return Answer(outcome, meaning)


def text(message: dict[str, Json], field: str) -> str:
    """A field's text, cut where it is longer than it can be; "" where there is none."""
    value = message.get(field)
    return value[:_MAX_CHARACTERS] if isinstance(value, str) else ""
