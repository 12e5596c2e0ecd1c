"""The feedback listener's settings. Those of a store are beside it."""

from __future__ import annotations

from pusher.config import doors
from pusher.config.doors import PLATFORMS
from pusher.config.schema import Bool, Choice, Doors, Duration, Int, Number, Setting
from pusher.config.settings import queue_settings

#: The only command that reads them.
READ_BY = "start-feedback-listener"

#: What the feedback listener consumes.
QUEUE = queue_settings("feedbackListeners.queue", f"^push-.+-({PLATFORMS})-feedbacks$", "Consumed feedback topics.")
GRACEFUL_SHUTDOWN_TIMEOUT = Setting(
    "feedbackListeners.gracefulShutdownTimeout", Duration("s"), 1.0, "Longest time that the listener takes to stop."
)
INBOX_SIZE = Setting(
    "feedbackListeners.broker.invalidTokenChan.size",
    Int(1, unit="tokens"),
    1_000,
    "Dead tokens that wait for the deleter before consuming pauses.",
)
DELETES = Setting(
    "feedbackListeners.broker.invalidTokenEnabled", Bool(), default=True, text="false: read and confirm, never delete."
)
FLUSH_INTERVAL = Setting(
    "feedbackListeners.invalidToken.flush.time.ms",
    Duration("ms", minimum_s=0.001),
    5.0,
    "Longest time that a dead token waits for others to be deleted with.",
)
BUFFER_SIZE = Setting(
    "feedbackListeners.invalidToken.buffer.size", Int(1, unit="tokens"), 1_000, "Tokens that are deleted together."
)
HANDLERS = Setting(
    "feedbackListeners.invalidToken.handlers",
    Doors(doors.TOKENS),
    ("postgres",),
    "Stores that dead tokens are deleted from: `postgres` (or `pg`), other doors of `pusher.tokens`.",
    aliases=("invalidToken.handlers",),
)

# --- the guard

GUARD_ENABLED = Setting(
    "feedbackListeners.guard.enabled",
    Bool(),
    default=True,
    text="Stop deleting when the reasons for it become too frequent.",
)
GUARD_ACTION = Setting(
    "feedbackListeners.guard.action",
    Choice("hold", "drop"),
    "hold",
    "What becomes of feedbacks that the guard stops: published to `push-<game>-<platform>-held`, or dropped.",
)
GUARD_WINDOW = Setting("feedbackListeners.guard.window", Duration("s", minimum_s=1.0), 600.0, "Time that is looked at.")
GUARD_SHARE = Setting(
    "feedbackListeners.guard.share",
    Number(0, 1),
    0.2,
    "Share, in all outcomes, of refusals that a wrong set-up also causes that is too much.",
)
GUARD_MINIMUM = Setting(
    "feedbackListeners.guard.minimum", Int(1, unit="feedbacks"), 20, "Fewer of these refusals never stop deletion."
)
GUARD_PROVEN_SHARE = Setting(
    "feedbackListeners.guard.provenShare",
    Number(0, 1),
    0.8,
    "Share, in all outcomes, of refusals that speak of the token alone that is too much.",
)
GUARD_PROVEN_MINIMUM = Setting(
    "feedbackListeners.guard.provenMinimum",
    Int(1, unit="feedbacks"),
    50,
    "Fewer of these refusals never stop deletion.",
)
GUARD_SUCCESSES_EXPECTED = Setting(
    "feedbackListeners.guard.successesExpected",
    Bool(),
    default=True,
    text="Senders feed back successes too; false: without successes `guard.maximum` decides instead of the share.",
)
GUARD_MAXIMUM = Setting(
    "feedbackListeners.guard.maximum",
    Int(1, unit="feedbacks"),
    1_000,
    "Refusals in the window that are too many where the share cannot be taken.",
)
