"""``start-feedback-listener --check``: could the listener do its work? Nothing is consumed, deleted or made."""

from __future__ import annotations

from pusher.broker.connect import check_broker
from pusher.commands.check import run_checks
from pusher.config import Config, settings
from pusher.errors import StartError
from pusher.listener.archive import Archive
from pusher.listener.database import Address, Database, DatabaseError, let_others_run


def check_listener(config: Config) -> int:
    """One line a check, exit code 0 or 2. May wait some seconds."""
    let_others_run()
    brokers = settings.LISTENER_QUEUE.brokers
    return run_checks(
        [
            (brokers.key, lambda: check_broker(config[brokers])),
            ("PostgreSQL", lambda: _check_database(config)),
        ]
    )


def _check_database(config: Config) -> str:
    address = Address.from_config(config)
    database = Database(address, 1)
    database.probe(config[settings.PG_CONNECTION_TIMEOUT])
    found = f"{address} answers"
    if config[settings.ARCHIVE_TABLE]:
        found += f", {_check_archive(database, config[settings.ARCHIVE_TABLE])}"
    database.close()
    return found


def _check_archive(database: Database, name: str) -> str:
    try:
        present = database.execute(Archive(name).presence())
    except DatabaseError as error:
        raise StartError(f"{settings.ARCHIVE_TABLE.key}: {error}") from None
    return f"the archive {name} is there" if present else f"the archive {name} will be made at the start"
