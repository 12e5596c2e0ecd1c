"""The meaning of an answer from Google, over FCM or XMPP."""

from __future__ import annotations

from typing import NamedTuple

from pusher.push.outcome import Outcome


class Meaning(NamedTuple):
    """The consequences of an error."""

    #: The device token is dead for this app.
    delete_token: bool = False
    #: Worth another try after a wait.
    retry: bool = False
    #: A quota is used up: the first wait is longer, unless the answer names one.
    quota: bool = False
    #: The access token is refused: another try with a new one.
    access_token: bool = False
    #: The app's credentials, not this push, are refused.
    credentials: bool = False


class Answer(NamedTuple):
    """An answer read: what it makes of the push, and what follows from its error."""

    outcome: Outcome
    meaning: Meaning


FINAL = Meaning()
RETRY = Meaning(retry=True)
CREDENTIALS = Meaning(credentials=True)
DEAD_TOKEN = Meaning(delete_token=True)
