"""The feedback listener's settings. Those of a store are beside it."""

from __future__ import annotations

from pusher.config import doors
from pusher.config.addresses import Doors
from pusher.config.doors import PLATFORMS
from pusher.config.kinds import Bool, Choice, Duration, Int, Number
from pusher.config.schema import Setting
from pusher.config.settings import queue_settings

#: The only command that reads them.
READ_BY = "start-feedback-listener"

#: What the feedback listener consumes.
QUEUE = queue_settings("feedbackListeners.queue", f"^push-.+-({PLATFORMS})-feedbacks$", "Feedback topics to consume.")
GRACEFUL_SHUTDOWN_TIMEOUT = Setting(
    "feedbackListeners.gracefulShutdownTimeout", Duration("s"), 1.0, "Time limit for the listener to stop."
)
INBOX_SIZE = Setting(
    "feedbackListeners.broker.invalidTokenChan.size",
    Int(1, unit="tokens"),
    1_000,
    "When this many dead tokens wait for the deleter, consuming pauses.",
)
DELETES = Setting(
    "feedbackListeners.broker.invalidTokenEnabled",
    Bool(),
    default=True,
    text="false: consume and commit feedbacks, but never delete a token.",
)
FLUSH_INTERVAL = Setting(
    "feedbackListeners.invalidToken.flush.time.ms",
    Duration("ms", minimum_s=0.001),
    5.0,
    "Longest time that a dead token waits so that several are deleted together.",
)
BUFFER_SIZE = Setting(
    "feedbackListeners.invalidToken.buffer.size",
    Int(1, unit="tokens"),
    1_000,
    "Maximum number of tokens that are deleted together.",
)
HANDLERS = Setting(
    "feedbackListeners.invalidToken.handlers",
    Doors(doors.TOKENS),
    ("postgres",),
    "Stores from which dead tokens are deleted: `postgres` (or `pg`), or names of plug-ins (`pusher.tokens`).",
    aliases=("invalidToken.handlers",),
)

# --- the guard

GUARD_ENABLED = Setting(
    "feedbackListeners.guard.enabled",
    Bool(),
    default=True,
    text="Stop deleting the tokens of a game when providers suddenly refuse too many of them.",
)
GUARD_ACTION = Setting(
    "feedbackListeners.guard.action",
    Choice("hold", "drop"),
    "hold",
    "What the guard does with the feedbacks whose deletion it stops: `hold` publishes them to "
    "`push-<game>-<platform>-held`, `drop` discards them.",
)
GUARD_WINDOW = Setting(
    "feedbackListeners.guard.window",
    Duration("s", minimum_s=1.0),
    600.0,
    "Length of the sliding window in which the guard counts outcomes.",
)
GUARD_SHARE = Setting(
    "feedbackListeners.guard.share",
    Number(0, 1),
    0.2,
    "The guard stops deletion when doubtful refusals (a wrong configuration also causes them) exceed this share of all "
    "outcomes.",
)
GUARD_MINIMUM = Setting(
    "feedbackListeners.guard.minimum",
    Int(1, unit="feedbacks"),
    20,
    "Fewer doubtful refusals than this never stop deletion.",
)
GUARD_PROVEN_SHARE = Setting(
    "feedbackListeners.guard.provenShare",
    Number(0, 1),
    0.8,
    "The guard stops deletion when proven refusals (only a dead token causes them) exceed this share of all outcomes.",
)
GUARD_PROVEN_MINIMUM = Setting(
    "feedbackListeners.guard.provenMinimum",
    Int(1, unit="feedbacks"),
    50,
    "Fewer proven refusals than this never stop deletion.",
)
GUARD_SUCCESSES_EXPECTED = Setting(
    "feedbackListeners.guard.successesExpected",
    Bool(),
    default=True,
    text="Whether senders publish feedbacks of successes. false: while no success is seen, `guard.maximum` decides "
    "instead of the shares.",
)
GUARD_MAXIMUM = Setting(
    "feedbackListeners.guard.maximum",
    Int(1, unit="feedbacks"),
    1_000,
    "Number of refusals in the window that stops deletion when no share can be computed.",
)
