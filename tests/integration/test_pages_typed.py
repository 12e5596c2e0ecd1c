"""What docs/ tells a reader to type and to configure, run against the simulators, the embedded broker and a PostgreSQL.

Names of what is the reader's own (paths, ports, numbers of processes, times) are replaced, nothing else.
``tests/unit/docs/test_pages.py`` verifies the commands that cannot be run here.
"""

from __future__ import annotations

import re
import shutil
import ssl
from pathlib import Path

import psycopg2.extensions
import pytest
import yaml

from lab import pages, shell
from lab.kafka.server import free_port
from lab.processes import ROOT
from pusher.sim.certificate import make_p8
from tests.integration.listening import Database

TOKEN = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"


def block(page: str, words: str, language: str = "sh") -> str:
    """The only block of a page that contains these words."""
    (found,) = [one.text for one in pages.blocks(language) if one.page == page and words in one.text]
    return found


def configure(directory: Path, *texts: str, apps: str = "") -> None:
    """These settings as ``config/default.yaml``, with a queue of its own."""
    settings: dict[str, object] = {
        "queue": {"brokers": f"sqlite:///{directory}/queue.db", "group": "typed", "offsetResetStrategy": "earliest"},
        "feedback": {"reporters": ["kafka"], "kafka": {"brokers": f"sqlite:///{directory}/queue.db"}},
    }
    for text in texts:
        settings |= yaml.safe_load(text.replace("/etc/pusher", str(directory)))
    (directory / "config").mkdir()
    (directory / "config/default.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture
def apple(tmp_path: Path, simulated_providers: dict[str, str]) -> dict[str, str]:
    """A configuration for Apple, as docs/providers.md has it; the variables for a shell."""
    configure(tmp_path, block("docs/providers.md", "authKeyPath", "yaml"))
    return simulated_providers


def test_a_certificate_of_apple(tmp_path: Path) -> None:
    shell.run(block("docs/providers.md", "openssl req"), tmp_path, {})
    sign = "openssl x509 -req -in game.csr -signkey game.key -outform der -out aps.cer"
    convert = block("docs/providers.md", "openssl x509").replace("/etc/pusher", str(tmp_path))
    shell.run(f"{sign}\n{convert}", tmp_path, {})
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(tmp_path / "game.pem")


def test_a_key_of_apple_and_channels(tmp_path: Path, apple: dict[str, str]) -> None:
    create, list_, delete = block("docs/providers.md", "channels create").splitlines()
    script = f"""
        pusher apns --check
        channel=$({create.partition("#")[0]})
        {list_}
        {delete.replace("dHN0LXNyY2gtY2hubA==", "$channel")}
        echo now; {list_}
    """
    before, after = shell.run(script, tmp_path, apple).split("now\n")
    assert len(before.splitlines()[-1]) > 10
    assert before.splitlines()[-1] not in after


def test_a_service_account_of_google(tmp_path: Path, simulated_providers: dict[str, str]) -> None:
    (tmp_path / "service-account.json").rename(tmp_path / "game-firebase.json")
    configure(tmp_path, block("docs/providers.md", "game-firebase.json", "yaml"))
    printed = shell.run(block("docs/providers.md", "send gcm"), tmp_path, simulated_providers)
    assert '"message_type":"ack"' in printed


def test_the_lines_of_another_game(tmp_path: Path) -> None:
    flags = "--key AuthKey_ABC123DEFG.p8 --key-id ABC123DEFG --team-id DEF123GHIJ --topic com.example.arena"
    (command,) = re.findall(r"`(pusher init .*? --output -)`", pages.text("docs/games.md"))
    (tmp_path / "AuthKey_ABC123DEFG.p8").write_bytes(make_p8())
    printed = yaml.safe_load(shell.run(f"{command} {flags}", tmp_path, {}))
    printed["apns"]["certs"]["arena"]["authKeyPath"] = "/etc/pusher/AuthKey_ABC123DEFG.p8"
    written = yaml.safe_load(block("docs/games.md", "arena", "yaml"))
    assert printed["apns"]["certs"] == written["apns"]["certs"]


@pytest.mark.parametrize("page", ["docs/messages.md", "docs/providers.md"])
def test_messages_are_accepted(tmp_path: Path, apple: dict[str, str], page: str) -> None:
    for found in (one for one in pages.blocks("json") if one.page == page):
        message = found.text.replace("…", TOKEN)
        platform = "gcm" if '"to"' in message else "apns"
        (tmp_path / "message.json").write_text(message)
        command = f"pusher enqueue push-game_{platform}-single message.json 2>&1"
        printed = shell.run(command, tmp_path, apple | {"PUSHER_GCM_APPS": "game"})
        assert "refuse" not in printed, printed


def test_looking_at_a_sender(tmp_path: Path, apple: dict[str, str]) -> None:
    port = free_port()
    look = block("docs/operations.md", "/readyz").replace("8081", str(port)).replace(" PID", " %1")
    look = look.replace("-n 20", "-n 1 --from-start")  # the next 20 would never come
    script = f"""
        pusher enqueue push-game_apns-single message
        pusher apns > sender.log 2>&1 &
        pusher tail push-game-apns-feedbacks --from-start --wait -n 1
        {look}
        kill %1
        wait %1
    """
    (tmp_path / "message").write_text(f'{{"DeviceToken": "{TOKEN}", "Payload": {{"aps": {{"alert": "hi"}}}}}}\n')
    printed = shell.run(script, tmp_path, apple | {"PUSHER_ADMIN_PORT": str(port)})
    assert "# TYPE pusher_" in printed
    assert printed.count('"Sent":true') == 2
    assert "greenlet" in (tmp_path / "sender.log").read_text().lower()


def test_sending_again(tmp_path: Path, apple: dict[str, str]) -> None:
    replay = re.sub(r"--from \S+ --to \S+", "--from -1h", block("docs/replay.md", "--failed-only"))
    script = f"""
        pusher enqueue push-game_apns-single pushes
        pusher apns > sender.log 2>&1 &
        pusher tail push-game-apns-feedbacks --from-start --wait -n 2
        kill %1; wait %1
        echo now; {replay}
    """
    texts = ("delivered", "too large" * 600)
    pushes = [f'{{"DeviceToken": "{TOKEN}", "Payload": {{"aps": {{"alert": "{text}"}}}}}}\n' for text in texts]
    (tmp_path / "pushes").write_text("".join(pushes))
    printed = shell.run(script, tmp_path, apple).partition("now\n")[2]
    shown = block("docs/replay.md", "dry run", "text")
    assert without_numbers(printed) == without_numbers(shown)


def without_numbers(text: str) -> list[str]:
    return [re.sub(r"offsets .*|[\d,]+", "", line).strip() for line in text.splitlines()]


def test_the_listener_and_its_undo(tmp_path: Path, database: Database) -> None:
    database.run("CREATE TABLE game_apns (token text NOT NULL)")
    database.run("CREATE UNIQUE INDEX ON game_apns (token)")
    database.run(block("docs/listener.md", "CREATE TABLE", "sql"))
    database.run(
        "INSERT INTO dead_tokens (deleted_at, game, platform, token, reason, deleted_row) VALUES "
        """('2026-01-31 15:00+00', 'game', 'apns', 'T', 'BadDeviceToken', '{"token": "T"}')"""
    )
    address = psycopg2.extensions.parse_dsn(database.dsn)
    postgres = {
        "HOST": address["host"],
        "PORT": address["port"],
        "USER": address["user"],
        "DATABASE": address["dbname"],
    }
    variables = {f"PUSHER_FEEDBACKLISTENERS_INVALIDTOKEN_PG_{name}": value for name, value in postgres.items()}
    variables["PUSHER_FEEDBACKLISTENERS_ARCHIVE_TABLE"] = "dead_tokens"
    variables["PUSHER_FEEDBACKLISTENERS_QUEUE_BROKERS"] = f"sqlite:///{tmp_path}/queue.db"
    configure(tmp_path, "apns: {apps: game}")

    check = block("docs/listener.md", "--check").splitlines()[1]
    shell.run(f"{check}\n{block('docs/listener.md', 'pusher restore')}", tmp_path, variables)

    assert database.tokens("game_apns") == ["T"]


def test_changing_over(tmp_path: Path, apple: dict[str, str]) -> None:
    text = (tmp_path / "config/default.yaml").read_text()
    commands = re.findall(
        r"`(pusher (?:migrate-check|apns --check)[^`]* apns\.yaml[^`]*)`", pages.text("docs/migration.md")
    )
    assert len(commands) == 2
    for name in ("apns", "gcm", "listener"):
        (tmp_path / f"{name}.yaml").write_text(text)
    shell.run("\n".join(commands), tmp_path, apple)


def test_completion(tmp_path: Path) -> None:
    commands = block("docs/installation.md", "pusher completion")
    files = [tmp_path / found for found in re.findall(r"> ~/(\S+)", commands)]
    assert len(files) == 3
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    shell.run(commands, tmp_path, {})
    assert all("migrate-check" in file.read_text() for file in files)


def test_supervisord(tmp_path: Path) -> None:
    for name in ("pusher", "pusher.py", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    start, outcome = block("docs/operations.md", "supervisord.conf status"), block("docs/operations.md", "shutdown &&")
    port = str(free_port())
    start = start.replace("make services && ", "").replace("8443", port)
    queue = f"sqlite:///{tmp_path}/queue.db"
    names = ("QUEUE", "FEEDBACK_KAFKA", "FEEDBACKLISTENERS_QUEUE")
    printed = shell.run(
        start + outcome,
        tmp_path,
        {f"PUSHER_{name}_BROKERS": queue for name in names},
        end=".venv/bin/supervisorctl -c config/supervisord.conf shutdown || true",
    )
    assert printed.count('"Sent":true') == 1
    assert printed.count("pusher-apns:pusher-apns-") == 2
