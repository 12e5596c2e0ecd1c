import base64
import json
import re
from collections import Counter
from pathlib import Path

import orjson
import pytest

from lab.processes import ROOT
from pusher import config
from pusher.config import Config, ConfigError, SocketAddress, settings
from pusher.config.effective import effective, without_effect
from pusher.config.kinds import Duration, List, Number, ValueKind
from pusher.config.schema import Setting, variable
from pusher.config.values import Value
from pusher.daemon import statsd
from pusher.listener import settings as listener_settings
from pusher.listener.stores.postgres import settings as pg
from pusher.providers.apns import settings as apns_settings
from pusher.providers.google import settings as google_settings
from pusher.push.limits.settings import DEDUP_GAMES


def parse(text: str = "", *flags: str, **variables: str) -> Config:
    return config.parse(text, {f"PUSHER_{name}": value for name, value in variables.items()}, flags)


def error(text: str = "", *flags: str, **variables: str) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(text, *flags, **variables)
    message = str(raised.value)
    assert "\n" not in message
    return message


# --- which source wins


def test_no_setting_is_declared_twice() -> None:
    """The second one would take the place of the first, with another kind and another default."""
    keys = Counter(setting.key.lower() for setting in settings.declared())
    assert [key for key, number in keys.items() if number > 1] == []


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default() -> None:
    text = "apns: {port: 1}"
    assert parse()[apns_settings.PORT] == 443
    assert parse(text)[apns_settings.PORT] == 1
    assert parse(text, APNS_PORT="2")[apns_settings.PORT] == 2
    assert parse(text, "--apns.port=3", APNS_PORT="2")[apns_settings.PORT] == 3


def test_every_value_says_where_it_came_from() -> None:
    found = parse("apns:\n  port: 1\n", "--apns.host=h", QUEUE_GROUP="g")
    assert found.where(apns_settings.PORT) == "config.yaml:2"
    assert found.where(settings.QUEUE.group) == "variable PUSHER_QUEUE_GROUP"
    assert found.where(apns_settings.HOST) == "flag --apns.host"
    assert found.where(apns_settings.CA_FILE) == "default"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert parse("queue: {group: mine}", QUEUE_GROUP="")[settings.QUEUE.group] == "mine"


def test_an_empty_text_in_the_file_is_a_value_and_null_is_none() -> None:
    assert parse('queue: {invalidTopic: ""}')[settings.QUEUE_INVALID_TOPIC] == ""
    assert parse("queue: {invalidTopic: null}")[settings.QUEUE_INVALID_TOPIC] == "push-<game>-<platform>-invalid"
    assert parse("queue:\n  invalidTopic:\n")[settings.QUEUE_INVALID_TOPIC] == "push-<game>-<platform>-invalid"


# --- keys


@pytest.mark.parametrize(
    "text",
    [
        "queue:\n  fetch:\n    min:\n      bytes: 7",
        "queue:\n  fetch.min.bytes: 7",
        "queue.fetch.min.bytes: 7",
        "queue.fetch: {min.bytes: 7}",
        "QUEUE:\n  Fetch.MIN.bytes: 7",
    ],
)
def test_keys_may_be_nested_or_dotted_in_any_case(text: str) -> None:
    found = parse(text)
    assert found[settings.QUEUE.fetch_min_bytes] == 7
    assert not found.warnings


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("queue.fetch.min.bytes", "PUSHER_QUEUE_FETCH_MIN_BYTES"),
        ("apns.certs.mygame.keyID", "PUSHER_APNS_CERTS_MYGAME_KEYID"),
        ("apns.certs.my-game.keyID", "PUSHER_APNS_CERTS_MY-GAME_KEYID"),
    ],
)
def test_names_of_variables(key: str, name: str) -> None:
    assert variable(key) == name


@pytest.mark.parametrize("setting", [s for s in settings.declared() if "<app>" not in s.key], ids=lambda s: s.key)
def test_every_setting_is_read_from_file_variable_and_flag(setting: Setting[object]) -> None:
    shown = setting.default_shown
    for found in (
        config.parse(f'"{setting.key}": "{shown}"'),
        config.parse("", {variable(setting.key): shown or "x"} if shown else {}),
        config.parse("", {}, [f"--{setting.key}={shown}"]),
    ):
        assert found[setting] == setting.default
        assert not found.warnings


#: What files for the earlier program contain.
KEYS_OF_OLD_FILES = """
gracefulShutdownTimeout log.level sentry.url apns.apps apns.certs.game.authKeyPath apns.certs.game.keyID
apns.certs.game.teamID apns.certs.game.topic apns.concurrentWorkers apns.connectionPoolSize apns.pushQueueSize
apns.responseChannelSize apns.logStatsInterval apns.retry.interval apns.retry.maxAttempts apns.retry.maxRetryAttempts
apns.rateLimit.rpm apns.dedup.ttl gcm.apps gcm.certs.game.apiKey gcm.certs.game.senderID gcm.firebaseCredentials.game
gcm.pingInterval gcm.pingTimeout gcm.maxPendingMessages gcm.logStatsInterval gcm.client.initialization.retries
gcm.rateLimit.rpm gcm.dedup.ttl gcm.concurrentWorkers queue.topics queue.brokers queue.group queue.sessionTimeout
queue.fetch.min.bytes queue.fetch.wait.max.ms queue.offsetResetStrategy queue.channelSize
queue.handleAllMessagesBeforeExiting feedback.reporters feedback.kafka.brokers feedback.kafka.topics
feedback.kafka.topic feedback.kafka.linger.ms feedback.kafka.batch.size feedback.cache.requestTimeout
feedback.cache.cleaningInterval stats.reporters stats.statsd.host stats.statsd.prefix stats.statsd.buflen
stats.statsd.flushIntervalMs stats.flush.s feedbackListeners.gracefulShutdownTimeout feedbackListeners.queue.topics
feedbackListeners.queue.brokers feedbackListeners.queue.group feedbackListeners.queue.sessionTimeout
feedbackListeners.queue.fetch.min.bytes feedbackListeners.queue.fetch.wait.max.ms
feedbackListeners.queue.offsetResetStrategy feedbackListeners.queue.channelSize
feedbackListeners.queue.handleAllMessagesBeforeExiting feedbackListeners.broker.invalidTokenChan.size
feedbackListeners.broker.invalidTokenEnabled feedbackListeners.invalidToken.flush.time.ms
feedbackListeners.invalidToken.buffer.size feedbackListeners.invalidToken.pg.host feedbackListeners.invalidToken.pg.port
feedbackListeners.invalidToken.pg.user feedbackListeners.invalidToken.pg.pass
feedbackListeners.invalidToken.pg.database feedbackListeners.invalidToken.pg.poolSize
feedbackListeners.invalidToken.pg.maxRetries feedbackListeners.invalidToken.pg.connectionTimeout
feedbackListeners.invalidToken.pg.sslmode pprof.enabled pprof.host pprof.port rateLimiter.redis.host
rateLimiter.redis.port rateLimiter.redis.password rateLimiter.tls.disabled dedup.redis.host dedup.redis.port
dedup.redis.password dedup.tls.disabled dedup.games invalidToken.pg.host invalidToken.pg.table invalidToken.handlers
"""

VALID = {
    "log.level": "warn",
    "queue.sessionTimeout": "6000",
    "feedbackListeners.queue.sessionTimeout": "6000",
    "queue.offsetResetStrategy": "latest",
    "feedbackListeners.queue.offsetResetStrategy": "smallest",
    "feedback.reporters": "kafka",
    "invalidToken.handlers": "pg",
    "stats.reporters": "statsd",
    "feedbackListeners.invalidToken.pg.sslmode": "true",
    "apns.apps": "game",
    "gcm.apps": "game",
    "sentry.url": "https://key@sentry.example/1",
    "dedup.games": "'{\"game\": 50}'",
}


@pytest.mark.parametrize("key", KEYS_OF_OLD_FILES.split())
def test_keys_of_old_files_are_known_in_file_and_variable(key: str) -> None:
    value = VALID.get(key, "1")
    apps = "apns.apps: game\ngcm.apps: game\n"
    text = f"{key}: {value}\n" if key in {"apns.apps", "gcm.apps"} else f"{apps}{key}: {value}\n"
    assert not config.parse(text).warnings
    assert not config.parse(apps, {variable(key): value.strip("'")}).warnings


@pytest.mark.parametrize(
    ("name", "value", "setting", "expected"),
    [
        ("GRACEFULLSHUTDOWNTIMEOUT", "7", settings.GRACEFUL_SHUTDOWN_TIMEOUT, 7.0),
        ("INVALIDTOKEN_PG_HOST", "db", pg.HOST, "db"),
        ("INVALIDTOKEN_PG_PORT", "8585", pg.PORT, 8585),
        ("INVALIDTOKEN_PG_USER", "u", pg.USER, "u"),
        ("INVALIDTOKEN_PG_PASS", "p", pg.PASSWORD, "p"),
        ("INVALIDTOKEN_PG_DATABASE", "d", pg.DATABASE, "d"),
        ("INVALIDTOKEN_PG_POOLSIZE", "3", pg.POOL_SIZE, 3),
        ("STATS_STATSD_FLUSHINTERVALINMS", "250", settings.STATS_REPORT_INTERVAL, 0.25),
        ("APNS_RETRY_MAXRETRYATTEMPTS", "9", apns_settings.RETRY_MAX_ATTEMPTS, 9),
    ],
)
def test_further_spellings(name: str, value: str, setting: Setting[object], expected: object) -> None:
    found = parse(**{name: value})
    assert found[setting] == expected
    assert not found.warnings
    assert not parse(INVALIDTOKEN_HANDLERS="pg").warnings


def test_a_further_spelling_gives_way_to_the_key_itself_in_the_same_source() -> None:
    found = parse("invalidToken.pg.host: old\nfeedbackListeners.invalidToken.pg.host: new")
    assert found[pg.HOST] == "new"
    found = parse("feedbackListeners.invalidToken.pg.host: file", INVALIDTOKEN_PG_HOST="variable")
    assert found[pg.HOST] == "variable"


# --- apps


def test_names_of_apps_keep_their_case_and_their_settings_ignore_it() -> None:
    found = parse("apns: {apps: MyGame, certs: {mygame: {keyID: A}}}", APNS_CERTS_MYGAME_TEAMID="T")
    assert found[settings.of_provider("apns").apps] == ("MyGame",)
    assert found.of(apns_settings.KEY_ID, "MyGame") == "A"
    assert found.of(apns_settings.TEAM_ID, "MyGame") == "T"
    assert not found.warnings


def test_a_parent_variable_sets_the_certificate_and_erases_nothing() -> None:
    text = "apns: {apps: game, certs: {game: {authKeyPath: a.p8, keyID: K, teamID: T, topic: com.x}}}"
    found = parse(text, APNS_CERTS_GAME="/certs/game.pem")
    assert found.of(apns_settings.CERT_PATH, "game") == "/certs/game.pem"
    assert found.of(apns_settings.AUTH_KEY_PATH, "game") == "a.p8"
    assert found.of(apns_settings.TOPIC, "game") == "com.x"
    assert not found.warnings


def test_variables_of_apps_with_underscores_and_dashes() -> None:
    found = parse(
        "apns: {apps: 'a, a_b, a-b'}",
        **{
            "APNS_CERTS_A_KEYID": "1",
            "APNS_CERTS_A_B_KEYID": "2",
            "APNS_CERTS_A-B_KEYID": "3",
            "APNS_CERTS_A_B": "ab.pem",
        },
    )
    assert [found.of(apns_settings.KEY_ID, app) for app in ("a", "a_b", "a-b")] == ["1", "2", "3"]
    assert [found.of(apns_settings.CERT_PATH, app) for app in ("a", "a_b", "a-b")] == ["", "ab.pem", ""]
    assert not found.warnings


def test_the_full_name_of_one_app_wins_over_the_short_one_of_another() -> None:
    found = parse("apns: {apps: 'a, a_keyid'}", APNS_CERTS_A_KEYID="1")
    assert found.of(apns_settings.KEY_ID, "a") == "1"
    assert found.of(apns_settings.CERT_PATH, "a_keyid") == ""


def test_an_app_with_a_dot_in_its_name() -> None:
    found = parse("apns: {apps: g.x}\napns.certs: {g.x: {keyID: K}}")
    assert found.of(apns_settings.KEY_ID, "g.x") == "K"


def test_service_accounts_as_text_or_as_mapping() -> None:
    accounts = """{a: '{"project_id": "x"}', b: {project_id: "ü"}, c: {}}"""
    found = parse(f"gcm: {{apps: a b c, firebaseCredentials: {accounts}}}")
    assert found.of(google_settings.FIREBASE_CREDENTIALS, "a") == '{"project_id": "x"}'
    assert found.of(google_settings.FIREBASE_CREDENTIALS, "b") == '{"project_id": "ü"}'
    assert found.of(google_settings.FIREBASE_CREDENTIALS, "c") == "{}"


@pytest.mark.parametrize(
    ("account", "text"),
    [
        ("{project_id: 0123, private_key_id: null, x: [1.50, yes]}",
         '{"project_id": "0123", "private_key_id": null, "x": ["1.50", "yes"]}'),
        ("{a: !!int x, b: !!bool x, c: 2001-99-99, d: !!python/none x}",
         '{"a": "x", "b": "x", "c": "2001-99-99", "d": "x"}'),
        ("{<<: [{a: 1, b: 1}, {b: 2, c: 2}], a: 3}", '{"b": "1", "c": "2", "a": "3"}'),
    ],
)  # fmt: skip
def test_a_service_account_as_mapping_is_taken_as_written(account: str, text: str) -> None:
    found = parse(f"gcm: {{apps: a, firebaseCredentials: {{a: {account}}}}}")
    assert orjson.loads(found.of(google_settings.FIREBASE_CREDENTIALS, "a")) == orjson.loads(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gcm: {apps: a, firebaseCredentials: {a: {[1, 2]: x}}}", "config.yaml:1: a key is not text"),
        ("gcm: {apps: a, firebaseCredentials: {a: &a {a: *a}}}", "config.yaml: nested far deeper than 20 levels"),
        ("a: &a {<<: *a}", "config.yaml: nested far deeper than 20 levels"),
        ("a: " + "[" * 2_000 + "]" * 2_000, "config.yaml: nested far deeper than 20 levels"),
        (r'{"a\nb": 1}', r"config.yaml:1: 'a\nb' contains characters that are not allowed in a key"),
        (r'apns: {apps: "a\ud800"}', "config.yaml:1: apns.apps expects a list of texts"),
        (r'apns: {host: "a\0"}', "config.yaml:1: apns.host expects a host"),
    ],
)
def test_odd_yaml_is_one_line(text: str, words: str) -> None:
    assert error(text).startswith(words)


def test_anchors_that_multiply_each_other_end_in_one_line() -> None:
    levels = [f"l{n}: &l{n} {{{', '.join(f'{name}: *l{n - 1}' for name in 'abcdefghij')}}}" for n in range(1, 12)]
    text = "\n".join(["l0: &l0 {a: 1}", *levels])
    assert re.search(r"anchors make more than 20000 values of the file; use fewer$", error(text))


def test_octets_of_a_variable_that_are_no_text_are_refused() -> None:
    assert error(APNS_HOST="a\udc80").startswith("variable PUSHER_APNS_HOST: apns.host expects a host")


def test_what_does_not_print_is_refused_and_shown_escaped() -> None:
    assert r"a\rb\x85c" in error(APNS_HOST="a\rb\x85c", ZZZ="x")


@pytest.mark.parametrize("kind", [Duration("s"), Number()], ids=["duration", "number"])
def test_long_numbers_that_are_none_cost_no_more_than_their_length(kind: ValueKind[float]) -> None:
    """Squared, this one would take minutes."""
    with pytest.raises(ValueError, match=r"a time such as|a number"):
        kind.parse("1" * 1_000_000 + "x")


def test_settings_of_an_app_that_is_not_served_cost_one_warning() -> None:
    found = parse("apns: {apps: game, certs: {gmae: {keyID: K, teamID: T}}}", APNS_CERTS_OLD_KEYID="K")
    assert found.warnings == (
        "apns.certs.gmae: nothing reads it, because 'gmae' is not in apns.apps",
        "PUSHER_APNS_CERTS_OLD: nothing reads it, because 'OLD' is not in apns.apps",
    )


# --- kinds of values


@pytest.mark.parametrize(
    "text", ["^push-a_apns ^push-b_apns", "^push-a_apns,^push-b_apns", " ^push-a_apns ,\n^push-b_apns"]
)
def test_lists_from_text_split_at_commas_and_white_space(text: str) -> None:
    expected = ("^push-a_apns", "^push-b_apns")
    assert parse(QUEUE_TOPICS=text)[settings.QUEUE.topics] == expected
    assert parse("", f"--queue.topics={text}")[settings.QUEUE.topics] == expected
    assert parse(f'queue: {{topics: "{text}"}}')[settings.QUEUE.topics] == expected


def test_items_of_a_sequence_stay_whole() -> None:
    found = parse('queue:\n  topics:\n    - "^push-[a-z]{1,3}_(apns), x"\n    - "^[b]"\n    - --c\n')
    assert found[settings.QUEUE.topics] == ("^push-[a-z]{1,3}_(apns), x", "^[b]", "--c")
    assert parse("apns: {apps: ['a b']}")[settings.of_provider("apns").apps] == ("a b",)
    assert parse("queue: {topics: []}")[settings.QUEUE.topics] == ()


def test_braces_and_brackets_stay_whole_in_text() -> None:
    assert List().parse("^push-a{1,3}_apns [ab, ]x") == ("^push-a{1,3}_apns", "[ab, ]x")


def test_brackets_around_a_variable_are_nothing_special() -> None:
    assert parse(QUEUE_TOPICS="^[a]b[c]")[settings.QUEUE.topics] == ("^[a]b[c]",)


@pytest.mark.parametrize("text", ["apns: {apps: 'a, b'}", "apns: {apps: a b}", "apns: {apps: [a, b, a]}"])
def test_lists_of_apps(text: str) -> None:
    assert parse(text)[settings.of_provider("apns").apps] == ("a", "b")
    assert parse(APNS_APPS="a, b")[settings.of_provider("apns").apps] == ("a", "b")


def test_no_app_is_no_app() -> None:
    assert parse("apns: {apps: ''}")[settings.of_provider("apns").apps] == ()


def test_brokers_are_kept_as_they_are_written() -> None:
    assert parse(QUEUE_BROKERS="a:1,b:2")[settings.QUEUE.brokers] == "a:1,b:2"
    assert parse("queue: {brokers: [a:1, '[::1]:2', c]}")[settings.QUEUE.brokers] == "a:1,[::1]:2,c"
    assert parse(QUEUE_BROKERS="sqlite:///var/q.db")[settings.QUEUE.brokers] == "sqlite:///var/q.db"
    for wrong in ("http://a", "sqlite:/x", "sqlite:///", "a:99999", "a:b", ","):
        assert "queue.brokers expects host:port" in error(QUEUE_BROKERS=wrong)


@pytest.mark.parametrize("word", ["1", "t", "T", "true", "TRUE", "True", "yes", "on"])
def test_true(word: str) -> None:
    assert parse(f"feedbackListeners.guard.enabled: {word}")[listener_settings.GUARD_ENABLED] is True
    assert parse(ADMIN_DEBUG=word)[settings.ADMIN_DEBUG] is True


@pytest.mark.parametrize("word", ["0", "f", "F", "false", "FALSE", "False", "no", "off"])
def test_false(word: str) -> None:
    assert parse(f"feedbackListeners.guard.enabled: {word}")[listener_settings.GUARD_ENABLED] is False


@pytest.mark.parametrize(
    ("unit", "text", "seconds"),
    [
        ("s", "300ms", 0.3),
        ("s", "1s", 1),
        ("ms", "1m30s", 90),
        ("ms", "250ms", 0.25),
        ("s", "1.5h", 5400),
        ("s", "100us", 0.0001),
        ("s", "100µs", 0.0001),
        ("d", "7d", 604_800),
        ("d", "7", 604_800),
        ("ms", "250", 0.25),
        ("s", "30", 30),
        ("s", "0.5", 0.5),
        ("s", "0", 0),
    ],
)
def test_durations(unit: str, text: str, seconds: float) -> None:
    assert Duration(unit).parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["-1", "1x", "s", "1 s", "", "1e3", "1s2", "ms"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="a time such as"):
        Duration("s").parse(text)


def test_durations_are_shown_in_the_unit_of_their_key() -> None:
    assert Duration("ms").show(0.25) == "250"
    assert Duration("d").show(604_800.0) == "7"
    assert Duration("s").show(0.1 + 0.2) == "0.3"


def test_scalars_are_the_text_that_the_file_has() -> None:
    text = "apns: {apps: 007, certs: {007: {keyID: 0123456789, teamID: 12345E6789}}}\ngcm.apps: 1_0\n"
    found = parse(text)
    assert found[settings.of_provider("apns").apps] == ("007",)
    assert found.of(apns_settings.KEY_ID, "007") == "0123456789"
    assert found.of(apns_settings.TEAM_ID, "007") == "12345E6789"
    assert found[settings.of_provider("gcm").apps] == ("1_0",)


def test_addresses() -> None:
    assert parse()[statsd.HOST] == SocketAddress("localhost", 8125)
    assert parse(STATS_STATSD_HOST="[::1]:99")[statsd.HOST] == SocketAddress("::1", 99)
    assert parse(STATS_STATSD_HOST="h")[statsd.HOST] == SocketAddress("h", 8125)
    assert "stats.statsd.host expects host:port" in error(STATS_STATSD_HOST="h:0")


def test_words_with_other_spellings() -> None:
    assert parse(LOG_LEVEL="WARN")[settings.LOG_LEVEL] == "warning"
    assert parse("queue.offsetResetStrategy: smallest")[settings.QUEUE.offset_reset_strategy] == "earliest"
    assert parse("feedbackListeners.invalidToken.pg.sslmode: true")[pg.SSL_MODE] == "require"


# --- what is wrong, in one line


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("apns:\n  port: many", 2, "apns.port expects a whole number from 1 to 65535; 'many' is not"),
        ("apns.port: 70000", 1, "apns.port expects a whole number from 1 to 65535; '70000' is not"),
        ("apns.port: 1.5", 1, "apns.port expects a whole number from 1 to 65535; '1.5' is not"),
        ("apns.port: ''", 1, "apns.port expects a whole number from 1 to 65535; '' is not"),
        ("apns.port: [1]", 1, "apns.port expects a whole number from 1 to 65535; a list is not"),
        ("apns.port: {x: 1}", 1, "apns.port expects a whole number from 1 to 65535; keys below it are not"),
        ("apns.connectionPoolSize: 0", 1, "apns.connectionPoolSize expects a whole number, at least 1; '0' is not"),
        ("admin.debug: maybe", 1, "admin.debug expects true or false; 'maybe' is not"),
        (
            "feedback.reporters: [kafka, rabbit]",
            1,
            "feedback.reporters expects a list of pusher.feedback that are installed (kafka); 'kafka rabbit' is not",
        ),
        ("log.level: loud", 1, "log.level expects one of debug, info, warning, error, fatal, panic; 'loud' is not"),
        ("queue.group: ''", 1, "queue.group expects text that is not empty; '' is not"),
        (
            "feedbackListeners.guard.share: 2",
            1,
            "feedbackListeners.guard.share expects a number from 0 to 1; '2' is not",
        ),
        ("gcm.fcm.endpoint: http://x", 1, "gcm.fcm.endpoint expects https://host:port; 'http://x' is not"),
        ("apns: 5", 1, "apns is a group; write its keys below it, such as apns.apps"),
        ("- a\n- b", 1, "not a mapping; write settings as `key: value`"),
        ("apns: {apps: [[a]]}", 1, "apns.apps expects a list of texts; a list with items that are not text is not"),
        ("? [a]\n: 1", 1, "a key is not text; write it as `key: value`"),
        ("a: 1\n---\nb: 2", 2, "not valid YAML (but found another document); correct this line or the one before it"),
        ("a: *x", 1, "not valid YAML (found undefined alias 'x'); correct this line or the one before it"),
        ("a: &x {b: *x}", 1, "nested deeper than 20 levels; write flat keys"),
        ("<<: 1", 1, "`<<` expects a mapping; give it one by its anchor"),
    ],
)
def test_errors_say_what_and_where(text: str, line: int, message: str) -> None:
    assert error(text) == f"config.yaml:{line}: {message}"


@pytest.mark.parametrize("topic", ["{a: b}", "{a: {b: c}}", "{}", "[com.x, com.y]", "[[com.x]]", "[{a: b}]"])
def test_what_is_no_value_costs_the_app_whose_it_is(topic: str) -> None:
    text = f"apns: {{apps: [bad, good], certs: {{bad: {{topic: {topic}}}, good: {{topic: com.good}}}}}}"
    found = config.parse(text)
    assert found.of(apns_settings.TOPIC, "good") == "com.good"
    if topic == "{}":
        assert found.of(apns_settings.TOPIC, "bad") == ""
        return
    with pytest.raises(
        ConfigError, match=r"^config\.yaml:1: apns\.certs\.bad\.topic expects a bundle id .* (is|are) not$"
    ):
        found.of(apns_settings.TOPIC, "bad")


@pytest.mark.parametrize(
    "key",
    [
        "queue.sessionTimeout",
        "queue.fetch.wait.max.ms",
        "queue.metadataRefresh",
        "feedback.kafka.linger.ms",
        "feedbackListeners.queue.sessionTimeout",
        "feedbackListeners.invalidToken.pg.statementTimeout",
    ],
)
@pytest.mark.parametrize("hours", ["597h", "9999999999h"])
def test_times_that_others_keep_in_few_bits_are_refused_where_they_do_not_fit(key: str, hours: str) -> None:
    """2^31 ms are 597 hours: Kafka's clients and PostgreSQL wrap around, refuse to start or answer with errors."""
    words = f"config\\.yaml:1: {re.escape(key)} expects a time .*, at most .*; '{hours}' is not"
    assert re.fullmatch(words, error(f"{key}: {hours}"))


def test_broken_yaml_names_the_line() -> None:
    assert re.match(r"config\.yaml:3: not valid YAML \(.+\); correct", error("a: 1\nb: [1, 2\nc: 3\n"))
    assert re.match(r"config\.yaml:2: not valid YAML \(.+\); correct", error("a: 1\n\tb: 2\n"))
    assert "not valid YAML" in error("a: \x00")


def test_errors_name_the_variable_or_the_flag() -> None:
    assert error(APNS_PORT="x").startswith("variable PUSHER_APNS_PORT: apns.port expects")
    assert error("", "--apns.port=x").startswith("flag --apns.port: apns.port expects")
    assert error("", "--apns.prot=1") == "unknown flag --apns.prot=1; see --help"


def test_errors_never_show_a_secret() -> None:
    message = error("sentry.url: [very, secret]")
    assert message == "config.yaml:1: sentry.url expects text, kept secret; the given value is not"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.yaml", None, "no such file"),
        (".", None, "cannot be read"),
        ("latin.yaml", b"a: \xfc", "not UTF-8 text (byte 3)"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: {words}")):
        config.load(str(path))


# --- what nothing reads


def test_unknown_keys_and_variables_are_warnings_with_the_closest_known_one() -> None:
    found = parse("apns:\n  concurentWorkers: 5\nzzzzzz: 1", APNS_CONCURENTWORKERS="3", QQQQQQQ="1", EMPTY="")
    assert found.warnings == (
        "config.yaml:2: apns.concurentWorkers: nothing reads it; did you mean apns.concurrentWorkers?",
        "config.yaml:3: zzzzzz: nothing reads it",
        "variable PUSHER_APNS_CONCURENTWORKERS: nothing reads it; did you mean PUSHER_APNS_CONCURRENTWORKERS?",
        "variable PUSHER_QQQQQQQ: nothing reads it",
    )


def test_other_variables_are_none_of_our_business() -> None:
    assert not config.parse("", {"HOME": "/root", "APNS_PORT": "1"}).warnings


def test_keys_without_effect_take_anything() -> None:
    text = "pprof: {enabled: [1], port: x}\nqueue.channelSize: lots\n"
    assert not parse(text + "invalidToken: {pg: {table: t}}").warnings


@pytest.mark.parametrize("given", ["dedup: {games: {a: 10, B: 100}}", """dedup.games: '{"a": 10, "B": 100}'"""])
def test_percentages_are_json_or_a_mapping(given: str) -> None:
    assert parse(given)[DEDUP_GAMES] == {"a": 10, "B": 100}


@pytest.mark.parametrize(
    ("text", "line", "before"),
    [
        ("apns:\n  port: 1\n  port: 2", 3, 2),
        ("apns:\n  port: 1\n  PORT: 2", 3, 2),
        ("apns.port: 1\napns:\n  port: 2", 3, 1),
        ("apns: {port: 1}\ngcm.apps: a\napns:\n  port: 3\n  Port: 2", 5, 4),
    ],
)
def test_of_a_key_that_is_given_twice_the_last_holds_and_is_told(text: str, line: int, before: int) -> None:
    found = parse(text)
    assert found[apns_settings.PORT] == 2
    (warning,) = found.warnings
    said = rf".*:{line}: apns.port is also in line {before}; this line, the last, is used"
    assert re.fullmatch(said, warning, re.IGNORECASE)


@pytest.mark.parametrize("given", ["[1]", "a", '{"a": "b"}', '{"a": 1.5}', '{"a": true}', '{"a": null}'])
def test_what_are_no_percentages(given: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("dedup.games expects")):
        parse("", DEDUP_GAMES=given)


# --- files


@pytest.mark.parametrize("name", ["default.yaml", "demo.yaml"])
def test_the_files_that_ship_are_flawless(name: str) -> None:
    assert config.load(str(ROOT / "config" / name)).warnings == ()


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_a_file_may_be_empty(text: str) -> None:
    assert parse(text)[apns_settings.PORT] == 443


def test_merged_mappings() -> None:
    text = "x: &q {group: a, brokers: 'h:1'}\nqueue: {<<: *q, group: b}\nfeedbackListeners: {queue: {<<: [*q]}}\n"
    found = parse(text)
    assert found[settings.QUEUE.group] == "b"
    assert found[settings.QUEUE.brokers] == "h:1"
    assert found[listener_settings.QUEUE.group] == "a"


def test_production_is_a_flag_of_the_command() -> None:
    assert config.parse("", production=True).production
    assert not config.parse("").production


# --- the effective settings


def test_effective_settings_show_values_sources_and_no_secret() -> None:
    text = "apns: {apps: a, certs: {a: {certPassword: hush, keyID: K}}}\nrateLimiter.redis.password: hush\n"
    text += "sentry.url: https://hush@sentry.example/1"
    lines = list(effective(parse(text, APNS_PORT="444")))
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert re.fullmatch(r"444 +variable PUSHER_APNS_PORT", rows["apns.port"])
    assert re.fullmatch(r"K +config.yaml:1", rows["apns.certs.a.keyID"])
    assert re.fullmatch(r"\*{8} +config.yaml:1", rows["apns.certs.a.certPassword"])
    assert re.fullmatch(r"\*{8} +config.yaml:2", rows["rateLimiter.redis.password"])
    assert re.fullmatch(r'"" +default', rows["apns.host"])
    assert "pprof.port" not in rows
    assert "hush" not in "\n".join(lines)


def test_every_setting_is_described_and_its_default_is_valid() -> None:
    assert len({setting.key.lower() for setting in settings.declared()}) == len(settings.declared()) > 120
    for setting in settings.declared():
        assert setting.text.endswith(".") or setting.text.endswith(")")
        assert setting.kind.parse(setting.default_shown) == setting.default


CANARIES = {
    "URL": "https://user:canary@host:1/x",
    "database": "postgres://user:canary@host/x",
    "key": "-----BEGIN PRIVATE KEY-----\\ncanary\\n-----END PRIVATE KEY-----\\n",
    "key of lines": "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
    "key in base64": base64.b64encode(b"-----BEGIN PRIVATE KEY-----\ncanary").decode(),
}


@pytest.mark.parametrize("kind", CANARIES)
# Names of apps stand in topics and metrics, and in each key about them.
@pytest.mark.parametrize("key", [setting.key for setting in settings.declared() if not setting.key.endswith(".apps")])
def test_a_secret_in_the_wrong_place_is_shown_nowhere(key: str, kind: str) -> None:
    given = f"apns.apps: a\n{key.replace('<app>', 'a')}: {json.dumps(CANARIES[kind])}"
    try:
        shown = "\n".join(effective(parse(given)))
    except ConfigError as refused:
        shown = str(refused)
    assert "canary" not in shown
    assert CANARIES["key in base64"][30:] not in shown


# --- what becomes protocol


@pytest.mark.parametrize("space", [" {} ", "\t{}", "{}\n", "{}\r\n"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APNS_HOST", "api.example"),
        ("APNS_CERTS_A_TOPIC", "com.game"),
        ("APNS_CERTS_A_KEYID", "ABC123DEFG"),
        ("APNS_CERTS_A_TEAMID", "ABC123DEFG"),
        ("APNS_CERTS_A_CERTPATH", "certs/a.pem"),
        ("QUEUE_GROUP", "group"),
        ("QUEUE_INVALIDTOPIC", "invalid"),
        ("GCM_XMPP_HOST", "xmpp.example"),
        ("GCM_FCM_ENDPOINT", "https://fcm.example"),
        ("STATS_STATSD_HOST", "stats:1"),
        ("FEEDBACKLISTENERS_INVALIDTOKEN_PG_HOST", "db.example"),
        ("ADMIN_HOST", "0.0.0.0"),
    ],
)
def test_outer_white_space_is_cut_off(name: str, value: str, space: str) -> None:
    key = name.lower()
    (found,) = [
        one
        for one in parse("apns.apps: a", **{name: space.format(value)}).values()
        if one.setting.key.replace(".", "_").lower() == key
    ]
    assert one_text(found) == value


def one_text(found: Value) -> str:
    return found.setting.kind.show(found.value)


HOSTILE = [
    "a\nb",
    "a\r\nx: y",
    "a\0",
    "a\x7f",
    "ä b",
    "a b",
    "a\u2028b",
    "a@b",
    "a" * 300,
    "(",
    "[",
    "*",
    "https://u:p@h",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("key", ["topic", "keyID", "teamID"])
def test_what_cannot_be_a_header_costs_its_app_alone(key: str, value: str) -> None:
    text = json.dumps({"apns": {"apps": ["bad", "good"], "certs": {"bad": {key: value}, "good": {key: "fine"}}}})
    found = parse(text)
    setting = {"topic": apns_settings.TOPIC, "keyID": apns_settings.KEY_ID, "teamID": apns_settings.TEAM_ID}[key]
    assert found.of(setting, "good") == "fine"
    if value.isascii() and value.isprintable() and " " not in value and len(value) < 256 and key != "topic":
        assert found.of(setting, "bad") == value
        return
    with pytest.raises(ConfigError) as refused:
        found.of(setting, "bad")
    assert len(str(refused.value).splitlines()) == 1
    assert f"apns.certs.bad.{key} expects" in str(refused.value)
    assert "(not valid)" in "\n".join(effective(found))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APNS_HOST", "a b"),
        ("APNS_HOST", "https://api.push.apple.com"),
        ("APNS_HOST", "user:hush@host"),
        ("QUEUE_TOPICS", "^push-("),
        ("QUEUE_TOPICS", "^a{1,99999999999999999999}"),
        ("QUEUE_TOPICS", "töpic"),
        ("QUEUE_BROKERS", "user:hush@host:9092"),
        ("QUEUE_BROKERS", "kafka://user:hush@host:9092"),
        ("GCM_FCM_ENDPOINT", "https://user:hush@host"),
        ("GCM_FCM_ENDPOINT", "https://host:99999"),
        ("FEEDBACKLISTENERS_INVALIDTOKEN_PG_HOST", "postgres://user:hush@host/db"),
        ("SENTRY_URL", "hush"),
        ("ADMIN_HOST", "local\nhost"),
        ("QUEUE_GROUP", "a\nb"),
        ("STATS_STATSD_PREFIX", "a\nb"),
    ],
)
def test_what_can_be_no_such_value_is_one_line_that_shows_no_password(name: str, value: str) -> None:
    message = error(**{name: value})
    assert len(message.splitlines()) == 1
    assert "hush" not in message
    assert message.startswith(f"variable PUSHER_{name}: ")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("apns:\n  connectionPoolSize: 1\n  connectionpoolsize: 10", (3, 2)),
        ("apns:\n  connectionpoolsize: 1\nAPNS:\n  connectionPoolSize: 10", (4, 2)),
        ("apns.CONNECTIONPOOLSIZE: 1\napns:\n  connectionPoolSize: 10", (3, 1)),
        ("x: &x\n  connectionPoolSize: 1\n  connectionpoolsize: 10\napns: {<<: *x}", (3, 2)),
    ],
)
def test_the_last_of_two_spellings_holds(text: str, lines: tuple[int, int]) -> None:
    found = parse(text)
    assert found[apns_settings.CONNECTION_POOL_SIZE] == 10
    place, other = lines
    said = [line for line in found.warnings if "this line, the last, is used" in line and ": apns." in line.lower()]
    assert len(said) == 1
    assert said[0].startswith(f"config.yaml:{place}: ")
    assert f"in line {other};" in said[0]


def test_each_daemon_names_the_keys_without_effect_that_it_would_have_read() -> None:
    keys = ("queue.channelSize", "apns.dedup.ttl", "gcm.dedup.ttl", "pprof.port", "invalidToken.pg.maxRetries")
    found = parse("\n".join(f"{key}: 1" for key in keys))
    assert sorted(without_effect(found, "apns")) == [
        "config.yaml:1: queue.channelSize has no effect",
        "config.yaml:4: pprof.port has no effect: see `admin.port`",
    ]
    listener = " ".join(without_effect(found, "start-feedback-listener"))
    assert [key for key in keys if key in listener] == ["pprof.port", "invalidToken.pg.maxRetries"]
    assert not list(without_effect(parse(""), "gcm"))
