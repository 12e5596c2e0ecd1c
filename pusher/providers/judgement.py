"""What an answer means, as values: a provider's service judges, the dispatcher acts.

A judgement says what becomes of the push, and what the answer shows of the app's credentials. Which statuses mean
success is the provider's word.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pusher.push.outcome import DELIVERED, Outcome
from pusher.push.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Resend:
    """The provider surely did not process it: it is sent again, after ``wait_s``, without counting an attempt."""

    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Retry:
    """It is sent again after a wait; ``failure`` is its outcome where no further send is allowed."""

    failure: Outcome
    #: Seconds; None: the answer's Retry-After, else the back-off of the policy.
    wait_s: float | None = None
    #: None: the lane's.
    policy: RetryPolicy | None = None
    #: It waits for what other pushes need not wait for, such as its device's limit or a quota that is filled meanwhile:
    #: it does not fill the inbox.
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """Its final outcome."""

    outcome: Outcome


Verdict: TypeAlias = Resend | Retry | Finish


class Proof(enum.Enum):
    """What an answer shows of the credentials."""

    GOOD = "good"
    REFUSED = "refused"
    NONE = "none"


class Judgement(NamedTuple):
    """What follows from one answer."""

    verdict: Verdict
    credentials: Proof = Proof.NONE


#: The provider has accepted the push.
ACCEPTED = Judgement(Finish(DELIVERED), Proof.GOOD)


def accepted_as(outcome: Outcome) -> Judgement:
    """The provider has accepted the push, and the outcome says more of it than that."""
    return Judgement(Finish(outcome), Proof.GOOD)


#: The push is sent again at once; the answer shows nothing.
AGAIN = Judgement(Resend())
