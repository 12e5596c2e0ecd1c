"""What may be a sender id and a server key: nothing else reaches the stream."""

from __future__ import annotations

import string

import pytest

from pusher.errors import CredentialError
from pusher.providers.google.xmpp.account import XmppAccount, account
from pusher.providers.google.xmpp.engine import Engine

KEY = "AAAAabcdefg:APA91bFoi3lMMre9G3XzR1LrF4ZT82_15MsMdEICogXSLB8-MrdkRuRQFwNI5u8Dh0cI90ABD3BOKnxkEla"


@pytest.mark.parametrize("around", ["", " ", "\n", "\t \r\n", "\u00a0", "\u2003", "\x1f"])
def test_white_space_around_is_cut_off(around: str) -> None:
    given = (f"{around}123456789012{around}", f"{around}{KEY}{around}")
    assert account("game", *given) == XmppAccount("123456789012", KEY)


@pytest.mark.parametrize(
    "sender_id",
    [
        *(f"123{character}456" for character in " \t\r\n\x00\x0b\x7f\x85\u2028\u200b\ufeff\ud800\"&'/:<>@"),
        *("١٢٣", "12٣", "\uff11\uff12\uff13", "ünit", "ß", "\u00ad1", "1" * 1_024, "", " \n"),
        "123@gcm.googleapis.com",
    ],
)
def test_what_cannot_be_a_sender_id_is_refused_in_one_line(sender_id: str) -> None:
    with pytest.raises(CredentialError, match=r"^gcm\.certs\.game\.senderID ") as caught:
        account("game", sender_id, KEY)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


@pytest.mark.parametrize("key", [*(f"AAAA{c}secret" for c in "\r\n\x00\x1b\x7f\u2028\ud800"), "k" * 5_000, "", "\t"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(CredentialError, match=r"^gcm\.certs\.game\.apiKey ") as caught:
        account("game", "123", key)
    assert "secret" not in str(caught.value)


def test_a_key_in_the_place_of_the_sender_id_is_not_shown() -> None:
    with pytest.raises(CredentialError, match="has ':' in it") as caught:
        account("game", KEY, "123")
    assert "APA91b" not in str(caught.value)


def test_the_engine_takes_every_sender_id_that_is_accepted() -> None:
    allowed = set(string.printable) - set(string.whitespace) - set("\"&'/:<>@\\")
    for character in allowed:
        login = account("game", f"1{character}2", KEY)
        Engine(login.sender_id, login.api_key, None)  # type: ignore[arg-type]
