"""What Google's answers over XMPP mean: one row an error that has consequences.

Sources: "Downstream message error response codes" and "XMPP protocol reference" (legacy); for the conditions of stanza
errors, written in lower case, RFC 6120, 8.3.3. An error without a row is final and says nothing about the token.
"""

from __future__ import annotations

from pusher.providers.google.answer import CREDENTIALS, DEAD_TOKEN, FINAL, RETRY, Answer, Meaning
from pusher.push.fields import Json
from pusher.push.outcome import DELIVERED, Kind, Outcome

UNKNOWN = "UNKNOWN"
_MAX_CHARACTERS = 2_000


ERRORS: dict[str, Meaning] = {
    "DEVICE_UNREGISTERED": DEAD_TOKEN,
    "BAD_REGISTRATION": DEAD_TOKEN,
    "SERVICE_UNAVAILABLE": RETRY,
    "INTERNAL_SERVER_ERROR": RETRY,
    "CONNECTION_DRAINING": RETRY,
    "DEVICE_MESSAGE_RATE_EXCEEDED": RETRY,
    "TOPICS_MESSAGE_RATE_EXCEEDED": RETRY,
    "AUTHENTICATION_FAILED": CREDENTIALS,
    # How two of the above were spelled once.
    "Unavailable": RETRY,
    "InternalServerError": RETRY,
    # Conditions of stanza errors that are the server's, not the message's.
    "internal-server-error": RETRY,
    "remote-server-timeout": RETRY,
    "resource-constraint": RETRY,
    "service-unavailable": RETRY,
}


def read_answer(message: dict[str, Json]) -> Answer:
    """Judges an ack or a nack."""
    if message.get("message_type") != "ack":
        return read_error(text(message, "error") or UNKNOWN, text(message, "error_description"))
    new_id = text(message, "registration_id")
    return Answer(DELIVERED._replace(registration_id=new_id) if new_id else DELIVERED, FINAL)


def read_error(name: str, description: str) -> Answer:
    """Judges an error by its name, or the condition of a stanza error."""
    meaning = ERRORS.get(name, FINAL)
    outcome = Outcome(
        Kind.FAILED if meaning.retry else Kind.REJECTED,
        reason=name,
        key=name.lower(),
        description=description,
        delete_token=meaning.delete_token,
    )
    return Answer(outcome, meaning)


def text(message: dict[str, Json], field: str) -> str:
    """A field's text, cut at its maximum length; "" if there is none."""
    value = message.get(field)
    return value[:_MAX_CHARACTERS] if isinstance(value, str) else ""
