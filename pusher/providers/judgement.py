"""The meaning of an answer, as a value: a provider's service judges the answer, the dispatcher acts on the judgement.

A judgement says what happens to the push, and what the answer shows about the app's credentials. The provider decides
which statuses mean success.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pusher.push.outcome import DELIVERED, Outcome
from pusher.push.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Resend:
    """The provider certainly did not process the push: it is sent again after ``wait_s``; no attempt is counted."""

    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Retry:
    """The push is sent again after a wait; ``failure`` is its outcome if no further attempt is allowed."""

    failure: Outcome
    #: Seconds; None: the answer's Retry-After, else the back-off of the policy.
    wait_s: float | None = None
    #: None: the lane's.
    policy: RetryPolicy | None = None
    #: It waits for something that does not affect other pushes, such as its device's limit, or a quota that is refilled
    #: meanwhile: it does not count towards the inbox.
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """The final outcome of the push."""

    outcome: Outcome


Verdict: TypeAlias = Resend | Retry | Finish


class Proof(enum.Enum):
    """What an answer shows about the credentials."""

    GOOD = "good"
    REFUSED = "refused"
    NONE = "none"


class Judgement(NamedTuple):
    """The judgement of one answer."""

    verdict: Verdict
    credentials: Proof = Proof.NONE


#: The provider has accepted the push.
ACCEPTED = Judgement(Finish(DELIVERED), Proof.GOOD)


def accepted_as(outcome: Outcome) -> Judgement:
    """The provider has accepted the push; ``outcome`` has more details, such as the provider's own id."""
    return Judgement(Finish(outcome), Proof.GOOD)


#: The push is sent again at once; the answer shows nothing about the credentials.
AGAIN = Judgement(Resend())
