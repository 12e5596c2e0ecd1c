"""What Google's answers mean."""

import pytest

from pusher.providers.google.xmpp.errors import ERRORS, read_answer, read_error
from pusher.push.outcome import DELIVERED, Kind

DEAD = {"DEVICE_UNREGISTERED", "BAD_REGISTRATION"}
RETRIED = {
    "SERVICE_UNAVAILABLE",
    "INTERNAL_SERVER_ERROR",
    "CONNECTION_DRAINING",
    "DEVICE_MESSAGE_RATE_EXCEEDED",
    "TOPICS_MESSAGE_RATE_EXCEEDED",
    "Unavailable",
    "InternalServerError",
}


def test_an_ack_is_success() -> None:
    assert read_answer({"message_type": "ack", "message_id": "1"}).outcome is DELIVERED


def test_an_ack_may_bring_a_new_registration_id() -> None:
    assert read_answer({"message_type": "ack", "registration_id": "NEW"}).outcome.registration_id == "NEW"


@pytest.mark.parametrize("error", [*ERRORS, "INVALID_JSON", "SENDER_ID_MISMATCH", "BAD_ACK", "NEVER_HEARD_OF"])
def test_a_nack_is_called_by_googles_name(error: str) -> None:
    outcome, meaning = read_answer({"message_type": "nack", "error": error, "error_description": "words"})
    assert (outcome.reason, outcome.key, outcome.description) == (error, error.lower(), "words")
    assert outcome.delete_token == meaning.delete_token == (error in DEAD)
    assert meaning.retry == (outcome.kind is Kind.FAILED)
    if error.isupper():
        assert meaning.retry == (error in RETRIED)


@pytest.mark.parametrize("answer", [{}, {"error": None}, {"error": 7}, {"error": ["x"]}, {"error": ""}])
def test_a_nack_without_a_name_is_final(answer: dict[str, object]) -> None:
    outcome, meaning = read_answer({"message_type": "nack", **answer})
    assert (outcome.kind, outcome.reason, meaning.retry) == (Kind.REJECTED, "UNKNOWN", False)


def test_the_conditions_of_stanza_errors() -> None:
    assert read_error("bad-request", "words").outcome.kind is Kind.REJECTED
    assert read_error("service-unavailable", "").meaning.retry
