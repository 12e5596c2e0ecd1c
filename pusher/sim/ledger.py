"""What a simulator saw and answered, for tests that compare it with what the sender reports.

Counts go on for ever; single deliveries are kept up to a limit, and how many were left out is told. A delivery is a
request the simulated provider accepted, whether or not its answer reached the sender: after a cut link or a reset
stream that is exactly the difference between lost, delivered, and delivered twice.
"""

from collections import Counter
from typing import Any, NamedTuple


class Received(NamedTuple):
    """One request: its id (apns-id, message id), the device token, and what was decided (status 0: nothing)."""

    request_id: str
    token: str
    status: int
    reason: str


class Ledger:
    """Counts and, up to `limit` entries, the list of requests."""

    def __init__(self, limit: int = 100_000) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.received: list[Received] = []
        self.delivered: dict[str, int] = {}
        self.answers: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.left_out = 0

    def record(self, request_id: str, token: str, status: int, reason: str = "") -> None:
        """Notes one request and its fate; status 200 with a reason (a dry run) is no delivery."""
        self.answers[f"{status} {reason}" if reason else str(status)] += 1
        if len(self.received) >= self.limit:
            self.left_out += 1
            return
        self.received.append(Received(request_id, token, status, reason))
        if status == 200 and not reason:
            self.delivered[request_id] = self.delivered.get(request_id, 0) + 1

    def counts(self) -> dict[str, Any]:
        """The counts alone; `delivered` is the number of different ids, `duplicates` that of repeated deliveries."""
        return {
            "answers": dict(self.answers),
            "faults": dict(self.faults),
            "delivered": len(self.delivered),
            "duplicates": sum(self.delivered.values()) - len(self.delivered),
            "left_out": self.left_out,
        }
