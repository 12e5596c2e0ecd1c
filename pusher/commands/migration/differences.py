"""Every difference from the Go program, with its reason: docs/migration.md is made from here, and ``migrate-check``.

``met`` says in a few words what of it applies to a given configuration; "" = nothing. Rows without it always apply.
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
        "offsets are committed when messages are read, so a crash loses the messages in memory",
        "an offset is committed when the push has an outcome and its feedback is stored; a crash repeats the pushes in "
        "flight",
        "no message is lost",
    ),
    Difference(
        "Delivery",
        "`apns-id` or `message_id` is random",
        "the id is derived from topic, partition, offset and time of the message",
        "a repeated push can be recognized by its id",
    ),
    Difference(
        "Delivery",
        "undecodable messages and messages of unknown games or bad topics are dropped with a log line",
        "they are published unchanged to `push-<game>-<platform>-invalid` (`queue.invalidTopic`); create these topics",
        "they can be corrected and replayed",
    ),
    Difference(
        "Delivery",
        "one slow app delays all others",
        "each app has its own inbox",
        "one router thread was the bottleneck of all apps",
    ),
    Difference(
        "Apple",
        "`apns-push-type`, `apns-priority` and `apns-expiration` are not sent",
        "they are sent: taken from the message, or derived from the payload and `push_expiry`",
        "Apple requires the type since iOS 13",
    ),
    Difference(
        "Apple",
        "a 429 is retried after a constant `apns.retry.interval`; meanwhile no other answer is processed",
        "retries use exponential back-off with jitter; Retry-After takes precedence",
        "retries every second keep a throttling provider throttling",
        _any(r"apns\.retry\.interval"),
    ),
    Difference(
        "Apple",
        "`apns.retry.maxAttempts` (newest: `maxRetryAttempts`) limits attempts that are answered 429",
        "the same, under both names; after 500, 503, a time-out or a lost connection a push is retried for "
        "`apns.retry.maxElapsed`",
        "a push survives an outage that is shorter than its life",
        _retries,
    ),
    Difference(
        "Apple",
        "a lost connection or a time-out silently ends a push",
        "the push is retried; when its retries are used up it fails with the reason `connection-error` or `timeout`",
        "each push has an outcome",
    ),
    Difference(
        "Apple",
        "an answer without a reason is a success, whatever its status",
        "only status 200 is a success",
        "a proxy's error page counted as a success",
    ),
    Difference(
        "Google",
        "XMPP (newest: FCM through the Admin SDK)",
        "FCM HTTP v1 if `gcm.firebaseCredentials.<app>` is set, else XMPP",
        "Google shut XMPP down in 2024; an app needs a service account",
        _xmpp,
    ),
    Difference(
        "Google",
        "newest: `data` values that are not text, and ttl, priority and collapse key of data messages are dropped; "
        "`dry_run` is ignored and the push is sent",
        "all of them are passed on; `dry_run` becomes `validate_only`",
        "these fields were lost in the move to FCM",
        lambda given: ", ".join(given.apps("gcm")) if given.is_of_the_newest else "",
    ),
    Difference(
        "Messages",
        "numbers are converted to a double; a text that is cut inside a character is repaired",
        "numbers keep their digits; texts are repaired in the same way",
        "ids above 2^53 were changed",
    ),
    Difference(
        "Messages",
        "an optional field of a wrong type makes a message undecodable",
        "the field is converted if its meaning is clear, else left out with a warning",
        "one wrong field should not stop a push",
    ),
    # --- topics and groups
    Difference(
        "Topics",
        "the platform of a topic is not checked: with the default expression, `apns` sends Google's messages to Apple",
        "each process reads only the topics of its own platform",
        "both platforms may use the same expression",
        _both_platforms,
    ),
    Difference(
        "Topics",
        "the default of `queue.topics` in the code is `com.games.test`",
        "the default is `^push-.+_(apns|gcm)[_-](single|massive)`",
        "no game could be read from the old default",
        _no_platform_suffix,
    ),
    Difference(
        "Topics",
        "the name of a game is cut at `_` or `-` (earlier version)",
        "the name of a configured app takes precedence; for the listener the end of the topic's name decides",
        "`my_game` is one game",
        _games_with_marks,
    ),
    Difference(
        "Topics",
        "newest: `push-<app>_<platform>-single` and `-massive` of each app are read besides `queue.topics`",
        "only `queue.topics` is read; its default matches these topics",
        "one setting lists all topics that are read",
        lambda given: "queue.topics is given" if given.is_of_the_newest and given.text("queue.topics") else "",
    ),
    Difference(
        "Groups",
        "a group without commits starts at `queue.offsetResetStrategy`, and so do topics that appear later",
        "only the first start of a group does so; topics that appear later are read from their beginning",
        "the first messages of a new topic were skipped",
    ),
    Difference(
        "Groups",
        "only offsets are committed",
        "the commit's metadata also lists the messages that are finished above the offset; the Go program ignores it",
        "a restart repeats only the pushes that were in flight",
    ),
    # --- feedback
    Difference(
        "Feedback",
        "newest: failures only; earlier: successes too",
        "successes too, in the earlier version's shape; `feedback.successes: false` does what the newest version does",
        "the guard and `replay` need them",
        _successes,
    ),
    Difference(
        "Feedback",
        "newest: Apple's feedback has `Notification`; Google's has no metadata, timestamp and id",
        "both have the earlier version's fields, in the same order",
        "all consumers see one shape",
        lambda given: "consumers of feedbacks" if given.is_of_the_newest else "",
    ),
    Difference(
        "Feedback",
        "newest: the reason of a failure is upper case in Google's metric",
        "it is lower case, as in the earlier version",
        "dashboards need one spelling",
        lambda given: ", ".join(given.apps("gcm")) if given.is_of_the_newest else "",
    ),
    Difference(
        "Feedback",
        "`feedback.kafka.linger.ms` is 0",
        "its default is 20",
        "a feedback costs half as much CPU time when it is sent in a batch",
        lambda given: "" if given.text("feedback.kafka.linger.ms") else "feedback.kafka.linger.ms is not given",
    ),
    Difference(
        "Feedback",
        "`feedback.kafka.topics` and `.topic` are never read",
        "they have no effect; a warning at the start names them",
        "topics are named `push-<game>-<platform>-feedbacks`",
        _any(r"feedback\.kafka\.topics?"),
    ),
    # --- limits
    Difference(
        "Rate limit",
        "newest: `rateLimit.rpm` missing or 0 stops every push",
        "the rate limit is off",
        "a missing key must not stop a service",
        _no_limit,
    ),
    Difference(
        "Rate limit",
        "newest: it reads with GET and counts with INCR, so two senders together may exceed the limit",
        "one script for each batch counts exactly; the keys are the same, so both programs may share one Redis",
        "all senders share one limit",
        _any(r".*\.rateLimit\.rpm"),
    ),
    Difference(
        "Rate limit",
        "newest: if Redis is down, each message waits for seconds",
        "pushes wait 100 ms at most and are then sent without being counted (`rate_limit_failed`)",
        "an outage of Redis must not stop pushes",
        _any(r"rateLimiter\.redis\.host"),
    ),
    Difference(
        "Rate limit",
        "newest: TLS to Redis uses the library's defaults",
        "the certificate is always verified; set `rateLimiter.tls.caFile` and `dedup.tls.caFile` for your own CA",
        "the connection carries a password",
        _redis_with_tls,
    ),
    Difference(
        "Duplicates",
        "newest: duplicates are counted and sent",
        "the same with `dedup.action: count` (the default); with `drop` they are not sent",
        "duplicates can be prevented",
        _any(r"dedup\.games"),
    ),
    Difference(
        "Duplicates",
        "newest: if `<platform>.dedup.ttl` is 0 or missing, keys in Redis never expire",
        "if it is missing, keys expire after 60 s; 0 turns the search for duplicates off",
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
        "`TopicDisallowed` deletes a token, and so does any 410 and 404",
        "only a reason with which the provider calls the token dead deletes it",
        "a wrong configuration must not delete the tokens of all users",
        _any(_LISTENER + r"invalidToken\.pg\.host"),
    ),
    Difference(
        "Listener",
        "every feedback that asks for a deletion is obeyed",
        "when there are too many refusals a guard stops deletions and publishes the feedbacks to "
        "`push-<game>-<platform>-held`",
        "with a wrong environment Apple refuses every token",
        _any(_LISTENER + r"invalidToken\.pg\.host"),
    ),
    Difference(
        "Listener",
        "`invalidToken.handlers` and `invalidToken.pg.table` have no effect",
        "they name the stores (`pg` is PostgreSQL) and the pattern of table names; a pattern with neither `<game>` nor "
        "`<platform>` is ignored with a warning",
        "other stores, schemas and table names can be used",
        _any(r".*invalidToken\.(handlers|pg\.table)"),
    ),
    Difference(
        "Listener",
        "`tokens_delete_error` counts the tokens of each failed DELETE, and these tokens are lost",
        "it counts the tokens of each failed attempt, and the DELETE is retried; a row that the database refuses is "
        "isolated and counts 1",
        "no token is lost, and one row does not stop the others",
    ),
    Difference(
        "Listener",
        "offsets are committed before the DELETE; a stop loses the tokens in the buffer",
        "offsets are committed after the DELETE; a stop flushes the buffer",
        "no token is lost",
    ),
    Difference(
        "Listener",
        "newest: at most 10 tokens a second are deleted",
        "PostgreSQL sets the limit",
        "the old loop sleeps",
    ),
    Difference(
        "Listener",
        "`pg.maxRetries` limits retries",
        "it has no effect: a DELETE is retried until it succeeds, and the game's partitions are paused meanwhile",
        "pushes would still be sent to a token that is not deleted",
        _any(r".*\.pg\.maxRetries"),
    ),
    Difference(
        "Listener",
        "newest: `pg.sslmode: true` uses TLS without verification",
        "`true` means `require`, which does the same; `verify-full` verifies the certificate",
        "these are libpq's modes",
        _any(r".*\.pg\.sslmode"),
    ),
    # --- configuration
    Difference(
        "Configuration",
        "a duration without a unit is nanoseconds",
        "it is in the key's unit, seconds",
        "`60` was meant as 60 s",
        _bare_durations,
    ),
    Difference(
        "Configuration",
        "a variable for a parent key hides all keys below it",
        "it does not; `PUSHER_APNS_CERTS_<APP>` is the path of a certificate",
        "the old README documents this variable",
        _parents,
    ),
    Difference(
        "Configuration",
        "a text that is not a number counts as 0, one that is not true as false",
        "a wrong value prevents the start with one line; unknown keys are reported",
        "typing errors are found before a push is lost",
    ),
    Difference(
        "Configuration",
        "`feedback.cache.*`, `gcm.client.initialization.retries`, `*.channelSize`, `*.buflen`, `responseChannelSize`",
        "they have no effect; a warning at the start names them",
        "queues and retries work differently",
        _any(
            r"feedback\.cache\..*|gcm\.client\.initialization\.retries|.*queue\.channelSize|stats\.statsd\.buflen|"
            r"apns\.responseChannelSize"
        ),
    ),
    Difference(
        "Configuration",
        "`pprof.*` (newest)",
        "they have no effect; `admin.*` serves health, metrics, a status page and, with `admin.debug`, stacks",
        "pprof does not exist for Python",
        _any(r"pprof\..*"),
    ),
    # --- running it
    Difference(
        "Running",
        "a start error prints a stack trace and exits with 2 (or 1); an unknown flag exits with 255",
        "a start error prints one line and exits with 2; when a part dies the exit status is 1, and the supervisor "
        "starts the process again",
        "people and supervisors can act on it",
    ),
    Difference(
        "Running",
        "newest: an app that cannot be set up prevents the start; earlier: it is skipped for good",
        "the app is skipped, `/readyz` names it, and it is tried again every minute",
        "one bad key must not stop the other apps",
    ),
    Difference(
        "Running",
        "after any undecodable message a stop takes the whole `gracefulShutdownTimeout`, and it loses the messages in "
        "queues",
        "a stop ends when all consumed messages are finished; unfinished messages are left to the next start",
        "deployments are quick",
    ),
    Difference(
        "Running",
        "no port is opened (newest: pprof)",
        "`admin.port` is 8081 on 127.0.0.1; several processes on one host need different ports, or 0",
        "it serves health checks and metrics",
        lambda given: "" if given.text("admin.port") else "admin.port is not given",
    ),
    # --- watching it
    Difference(
        "Metrics",
        "each metric is its own datagram; counts are always 1",
        "counts are added up for `stats.statsd.flushIntervalMs`; a datagram of at most 1,432 bytes holds many metrics",
        "a push costs less CPU time than its metrics did",
        _any(r"stats\.statsd\.host"),
    ),
    Difference(
        "Metrics",
        "`send_notification_latency` is always about 0 (newest) or missing (earlier)",
        "it is the time from handing a push to a link to its final answer, with the tag `client`",
        "it was measured at the wrong moment",
    ),
    Difference(
        "Metrics",
        "`num_goroutine`, `heap_objects` and `next_gc_bytes` describe the Go runtime",
        "under the same names: greenlets, Python's memory blocks and peak memory",
        "dashboards keep working; review their thresholds",
    ),
    Difference(
        "Metrics",
        "no metric counts expired, invalid and retried pushes",
        "`expired`, `invalid`, `retried`, `queue_latency`, `start_skipped` and `guard_*` are new",
        "operators need to see them",
    ),
    Difference(
        "Logs",
        "tokens and payloads are logged, some at level warning",
        "they are logged only at level debug",
        "they are personal data",
    ),
    Difference(
        "Logs",
        "`flushing stats` does not name the app; the newest version has no such line",
        "the line names the app and also has `limitedMessages`",
        "each app has its own line",
    ),
)


def _zero(given: GoConfiguration, pattern: str) -> str:
    keys = [key for key in given.keys(pattern) if given.text(key) in ("0", "0s")]
    return ", ".join(f"{key} is 0 ({given.where(key)})" for key in keys)
