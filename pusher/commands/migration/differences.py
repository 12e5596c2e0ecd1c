"""Every difference from the Go program, with its reason: docs/migration.md is made from here, and ``migrate-check``.

``met`` says what a configuration in hand has of it, in a few words; "" for nothing. Those without it hold always.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from pusher.commands.migration.go_configuration import GoConfiguration


class Difference(NamedTuple):
    """One row: what the Go program does (which version, where they differ), what pusher does, and why."""

    area: str
    there: str
    here: str
    why: str
    met: Callable[[GoConfiguration], str] | None = None


def _any(pattern: str) -> Callable[[GoConfiguration], str]:
    """Met where a key is given that matches."""
    return lambda given: ", ".join(f"{key} ({given.where(key)})" for key in given.keys(pattern))


def _bare_durations(given: GoConfiguration) -> str:
    keys = [key for key in given.keys(r"apns\.retry\.interval|.*\.dedup\.ttl") if re.fullmatch(r"\d+", given.text(key))]
    return ", ".join(f"{key} is {given.text(key)} ({given.where(key)})" for key in keys)


def _no_limit(given: GoConfiguration) -> str:
    if not given.is_of_the_newest:
        return ""
    words = [word for word in ("apns", "gcm") if given.apps(word) and given.text(f"{word}.rateLimit.rpm") in ("", "0")]
    return ", ".join(f"{word}.rateLimit.rpm is missing or 0" for word in words)


def _redis_with_tls(given: GoConfiguration) -> str:
    named = [key for key in ("rateLimiter", "dedup") if given.keys(rf"{key}\.redis\..*")]
    on = [key for key in named if given.text(f"{key}.tls.disabled").lower() not in ("1", "t", "true")]
    return ", ".join(f"{key} connects with TLS" for key in on)


def _parents(given: GoConfiguration) -> str:
    apps = [app for word in ("apns", "gcm") for app in given.apps(word)]
    names = [name for app in apps if (name := f"PUSHER_APNS_CERTS_{app.upper()}") in given.variables]
    return ", ".join(names)


def _both_platforms(given: GoConfiguration) -> str:
    topics = given.text("queue.topics")
    return f"queue.topics is {topics!r}" if "apns" in topics and "gcm" in topics else ""


def _xmpp(given: GoConfiguration) -> str:
    apps = [app for app in given.apps("gcm") if not given.text(f"gcm.firebaseCredentials.{app}")]
    return ", ".join(f"{app} has no gcm.firebaseCredentials" for app in apps)


def _successes(given: GoConfiguration) -> str:
    return "" if given.text("feedback.successes") or not given.is_of_the_newest else "feedback.successes is not given"


def _retries(given: GoConfiguration) -> str:
    return _any(r"apns\.retry\.max(Retry)?Attempts")(given)


def _no_platform_suffix(given: GoConfiguration) -> str:
    return "" if given.text("queue.topics") else "queue.topics is not given"


def _games_with_marks(given: GoConfiguration) -> str:
    return ", ".join(app for word in ("apns", "gcm") for app in given.apps(word) if re.search(r"[_-]", app))


_LISTENER = r"feedbackListeners\..*"

DIFFERENCES = (
    # --- what is sent
    Difference(
        "Delivery",
        "offsets are committed when messages are read: what was in memory at a crash is lost",
        "an offset is committed when the push has ended and its feedback is stored; a crash repeats what was in flight",
        "nothing is lost",
    ),
    Difference(
        "Delivery",
        "a random `apns-id` or `message_id`",
        "derived from topic, partition, offset and time of the message",
        "a repeated push can be told by its id",
    ),
    Difference(
        "Delivery",
        "undecodable messages, those of unknown games and bad topics vanish with a log line",
        "they go unchanged to `push-<game>-<platform>-invalid` (`queue.invalidTopic`): make these topics",
        "they can be corrected and replayed",
    ),
    Difference(
        "Delivery",
        "one slow app delays all others",
        "each app has an inbox of its own",
        "one router thread was the bottleneck of all",
    ),
    Difference(
        "Apple",
        "no `apns-push-type`, `apns-priority`, `apns-expiration`",
        "sent: from the message, or derived from the payload and `push_expiry`",
        "Apple requires the type since iOS 13",
    ),
    Difference(
        "Apple",
        "a 429 is tried again after `apns.retry.interval`, always the same, while nothing else is answered",
        "exponential back-off with jitter; Retry-After wins",
        "a constant second is what keeps a throttled provider throttled",
        _any(r"apns\.retry\.interval"),
    ),
    Difference(
        "Apple",
        "`apns.retry.maxAttempts` (newest: `maxRetryAttempts`) counts sends that were answered 429",
        "the same, under both names; 500, 503, time-outs, lost connections: retried for `apns.retry.maxElapsed`",
        "an outage shorter than the push's life does not end it",
        _retries,
    ),
    Difference(
        "Apple",
        "a lost connection or a time-out ends a push without a trace",
        "it is sent again, and in the end fails with the key `connection-error` or `timeout`",
        "each push has an outcome",
    ),
    Difference(
        "Apple",
        "success is an answer without a reason, whatever its status",
        "success is status 200",
        "a proxy's error page counted as a success",
    ),
    Difference(
        "Google",
        "XMPP (newest: FCM through the Admin SDK)",
        "FCM HTTP v1 where `gcm.firebaseCredentials.<app>` is given, else XMPP",
        "Google shut XMPP down in 2024: such an app needs a service account",
        _xmpp,
    ),
    Difference(
        "Google",
        "newest: `data` that is no text, and ttl, priority, collapse key of data messages are dropped; `dry_run` sends",
        "all are passed on; `dry_run` is `validate_only`",
        "lost in the move to FCM",
        lambda given: ", ".join(given.apps("gcm")) if given.is_of_the_newest else "",
    ),
    Difference(
        "Messages",
        "numbers pass through a double; a text that is cut inside a character is repaired",
        "numbers keep their text; texts are repaired likewise",
        "ids above 2^53 came out wrong",
    ),
    Difference(
        "Messages",
        "an optional field of a wrong kind makes a message undecodable",
        "it is taken where its meaning is plain, else left out with a warning",
        "a push is worth more than one of its fields",
    ),
    # --- topics and groups
    Difference(
        "Topics",
        "the platform of a topic is never checked: with the default expression `apns` sends Google's messages to Apple",
        "each process reads the topics of its own platform only; the others' stay for their process",
        "one expression may serve both",
        _both_platforms,
    ),
    Difference(
        "Topics",
        "the default of the code is `com.games.test`",
        "the default is `^push-.+_(apns|gcm)[_-](single|massive)`",
        "the default could not be parsed",
        _no_platform_suffix,
    ),
    Difference(
        "Topics",
        "games with `_` or `-` are cut (earlier version)",
        "a configured app's name wins; for the listener the end of the topic's name decides",
        "`my_game` is one game",
        _games_with_marks,
    ),
    Difference(
        "Topics",
        "newest: `push-<app>_<platform>-single` and `-massive` of each app are read besides `queue.topics`",
        "`queue.topics` alone; its default has them",
        "what is read stands in one place",
        lambda given: "queue.topics is given" if given.is_of_the_newest and given.text("queue.topics") else "",
    ),
    Difference(
        "Groups",
        "a group without commits begins at `queue.offsetResetStrategy`, and so do topics found later",
        "the same for the group's first start; topics that appear later are read from their beginning",
        "the first messages of a new topic were skipped",
    ),
    Difference(
        "Groups",
        "offsets alone are committed",
        "the commit's metadata holds what is finished above the offset; the Go program ignores it",
        "a restart repeats only what was in flight",
    ),
    # --- feedback
    Difference(
        "Feedback",
        "newest: failures only; earlier: successes too",
        "successes too, in the earlier version's shape; `feedback.successes: false` as the newest",
        "the guard and `replay` live on them",
        _successes,
    ),
    Difference(
        "Feedback",
        "newest: `Notification` in Apple's, no metadata, timestamp and id in Google's feedback",
        "the earlier version's fields and order for both",
        "one shape for all consumers",
        lambda given: "consumers of feedbacks" if given.is_of_the_newest else "",
    ),
    Difference(
        "Feedback",
        "the reason of a failure is upper case in Google's metric (newest)",
        "lower case, as in the earlier version",
        "one spelling on a dashboard",
        lambda given: ", ".join(given.apps("gcm")) if given.is_of_the_newest else "",
    ),
    Difference(
        "Feedback",
        "`feedback.kafka.linger.ms` is 0",
        "20 where it is not given",
        "a feedback costs half as much when it goes with others",
        lambda given: "" if given.text("feedback.kafka.linger.ms") else "feedback.kafka.linger.ms is not given",
    ),
    Difference(
        "Feedback",
        "`feedback.kafka.topics` and `.topic` are never read",
        "the same; named at start",
        "topics are named `push-<game>-<platform>-feedbacks`",
        _any(r"feedback\.kafka\.topics?"),
    ),
    # --- limits
    Difference(
        "Rate limit",
        "newest: `rateLimit.rpm` missing or 0 stops every push",
        "it is off",
        "a missing key must not stop a service",
        _no_limit,
    ),
    Difference(
        "Rate limit",
        "newest: GET, then INCR: two senders together may pass the limit",
        "one script for each batch counts exactly; the keys are the same, so both programs may run on one Redis",
        "the limit is one",
        _any(r".*\.rateLimit\.rpm"),
    ),
    Difference(
        "Rate limit",
        "newest: each message waits seconds for a Redis that is down",
        "100 ms at most, then pushes are sent uncounted (`rate_limit_failed`)",
        "Redis protects; it must not stop",
        _any(r"rateLimiter\.redis\.host"),
    ),
    Difference(
        "Rate limit",
        "newest: TLS of Redis by the library's defaults",
        "always verified; `rateLimiter.tls.caFile`, `dedup.tls.caFile` for an authority of your own",
        "a password goes over it",
        _redis_with_tls,
    ),
    Difference(
        "Duplicates",
        "newest: counted and sent",
        "the same with `dedup.action: count` (the default); `drop` does not send them",
        "what is detected can be prevented",
        _any(r"dedup\.games"),
    ),
    Difference(
        "Duplicates",
        "newest: `<platform>.dedup.ttl` 0 or missing makes keys that never end",
        "missing is 60 s, 0 is off",
        "Redis filled up",
        lambda given: (
            "a dedup.ttl is missing"
            if given.keys(r"dedup\.games") and not given.keys(r".*\.dedup\.ttl")
            else _zero(given, r".*\.dedup\.ttl")
        ),
    ),
    # --- the listener
    Difference(
        "Listener",
        "TopicDisallowed deletes a token; any 410 and 404 does",
        "only the provider's word on the token does",
        "a wrong set-up must not cost a user base",
        _any(_LISTENER + r"invalidToken\.pg\.host"),
    ),
    Difference(
        "Listener",
        "deletes whatever it is told",
        "a guard stops deletions when refusals are too many, and holds feedbacks in `push-<game>-<platform>-held`",
        "a wrong environment makes Apple refuse every token",
        _any(_LISTENER + r"invalidToken\.pg\.host"),
    ),
    Difference(
        "Listener",
        "`invalidToken.handlers` and `invalidToken.pg.table` are read by nothing",
        "they name the stores (`pg` is PostgreSQL) and the pattern of tables; a pattern with neither `<game>` nor "
        "`<platform>` is left out with a warning",
        "other stores, schemas and names of tables",
        _any(r".*invalidToken\.(handlers|pg\.table)"),
    ),
    Difference(
        "Listener",
        "`tokens_delete_error` counts the tokens of each DELETE that fails, which are lost",
        "the same of each try, and tries again; a row that the database refuses stands alone and counts 1",
        "nothing is lost, and one row stops no other",
    ),
    Difference(
        "Listener",
        "offsets are committed before the DELETE; tokens in the buffer are lost at a stop",
        "after it; the buffer is flushed",
        "nothing is lost",
    ),
    Difference(
        "Listener",
        "newest: at most 10 tokens a second",
        "as fast as PostgreSQL",
        "a sleep in its loop",
    ),
    Difference(
        "Listener",
        "`pg.maxRetries`",
        "no effect: a DELETE is retried for ever, while the game's partitions are paused",
        "a token that is not deleted is pushed to again",
        _any(r".*\.pg\.maxRetries"),
    ),
    Difference(
        "Listener",
        "`pg.sslmode: true` (newest): TLS that is not verified",
        "`require`, the same; `verify-full` verifies",
        "libpq's words",
        _any(r".*\.pg\.sslmode"),
    ),
    # --- configuration
    Difference(
        "Configuration",
        "a duration without a unit is nanoseconds",
        "it counts in the key's unit, seconds",
        "`60` was meant as 60 s",
        _bare_durations,
    ),
    Difference(
        "Configuration",
        "a variable of a parent key empties all keys below it",
        "it does not; `PUSHER_APNS_CERTS_<APP>` is the path of a certificate",
        "the variable stood in the README",
        _parents,
    ),
    Difference(
        "Configuration",
        "what is not a number is 0, what is not true is false",
        "a wrong value stops the start in one line; unknown keys are named",
        "typing errors are found before they cost a push",
    ),
    Difference(
        "Configuration",
        "`feedback.cache.*`, `gcm.client.initialization.retries`, `*.channelSize`, `*.buflen`, `responseChannelSize`",
        "no effect; named at start",
        "queues and retries work otherwise",
        _any(
            r"feedback\.cache\..*|gcm\.client\.initialization\.retries|.*queue\.channelSize|stats\.statsd\.buflen|"
            r"apns\.responseChannelSize"
        ),
    ),
    Difference(
        "Configuration",
        "`pprof.*` (newest)",
        "no effect: `admin.*` serves health, metrics, a status page and, with `admin.debug`, stacks",
        "there is no pprof for Python",
        _any(r"pprof\..*"),
    ),
    # --- running it
    Difference(
        "Running",
        "a start error is a stack trace and status 2 (or 1); unknown flags 255",
        "one line and status 2; status 1 when a part dies, so that the supervisor starts it again",
        "people and supervisors read it",
    ),
    Difference(
        "Running",
        "newest: an app that cannot be set up stops the start; earlier: it is left out for good",
        "it is left out, named by `/readyz`, and tried again every minute",
        "one bad key must not stop the others",
    ),
    Difference(
        "Running",
        "a stop waits for `gracefulShutdownTimeout` whenever anything was undecodable, and loses what waits in queues",
        "it ends as soon as what is in hand has ended; the rest is left to the next start",
        "deploys are quick",
    ),
    Difference(
        "Running",
        "no port is opened (newest: pprof)",
        "`admin.port` 8081 on 127.0.0.1; several processes on one host need several, or 0",
        "health checks and metrics",
        lambda given: "" if given.text("admin.port") else "admin.port is not given",
    ),
    # --- watching it
    Difference(
        "Metrics",
        "one datagram a metric; counts are always 1",
        "added up for `stats.statsd.flushIntervalMs`, many in a datagram of at most 1,432 bytes",
        "a push costs less than its metrics did",
        _any(r"stats\.statsd\.host"),
    ),
    Difference(
        "Metrics",
        "`send_notification_latency` is always about 0 (newest), missing (earlier)",
        "from handing over to the final answer, with the tag `client`",
        "it was measured at the wrong moment",
    ),
    Difference(
        "Metrics",
        "`num_goroutine`, `heap_objects`, `next_gc_bytes` are Go's",
        "greenlets, memory blocks of Python, peak memory under the same names",
        "dashboards go on; thresholds need another look",
    ),
    Difference(
        "Metrics",
        "nothing counts expired, invalid and retried pushes",
        "`expired`, `invalid`, `retried`, `queue_latency`, `start_skipped`, `guard_*` are new",
        "what is not counted is not seen",
    ),
    Difference(
        "Logs",
        "tokens and payloads stand in the log, some at warning",
        "at debug only",
        "they are personal data",
    ),
    Difference(
        "Logs",
        "`flushing stats` does not name the app; the newest version has no such line",
        "it does, with `limitedMessages` besides",
        "one line an app",
    ),
)


def _zero(given: GoConfiguration, pattern: str) -> str:
    keys = [key for key in given.keys(pattern) if given.text(key) in ("0", "0s")]
    return ", ".join(f"{key} is 0 ({given.where(key)})" for key in keys)
