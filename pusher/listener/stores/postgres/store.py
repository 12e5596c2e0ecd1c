"""The token store ``postgres``: a table for each game and platform, and the archive of what was deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from pusher.config import settings as all_settings
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.listener.store import DeadToken, Kept, NotDeleted, Restored, TokenStore, Wanted
from pusher.listener.stores.postgres import settings
from pusher.listener.stores.postgres.address import Address
from pusher.listener.stores.postgres.archive import Archive, restoration, summary, writable_columns
from pusher.listener.stores.postgres.pool import ConnectionPool, DatabaseError, let_others_run
from pusher.listener.stores.postgres.statement import is_text
from pusher.listener.stores.postgres.table import Naming, Table, names_tables, refuse_long
from pusher.providers.provider import Check
from pusher.push.topics import TopicName
from pusher.telemetry.log import logger

log = logger(__name__)

#: Rows that are brought back in one transaction.
_RESTORED_AT_ONCE = 1_000
NO_ARCHIVE = f"no archive: deleted rows cannot be restored; set {settings.ARCHIVE_TABLE.key} to a table"


def open_store(config: Config) -> Postgres:
    """The door's object. Does not wait; raises ``StartError``."""
    let_others_run()
    return Postgres(config)


class Postgres(TokenStore):
    """A ``TokenStore``, and a ``RestoringStore``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pool = ConnectionPool(Address.from_config(config), config[settings.POOL_SIZE])
        self._archive = _archive_of(config)
        template = config[settings.TABLE]
        if not names_tables(template):
            log.warning(
                "the pattern of table names has neither <game> nor <platform> and is ignored",
                setting=settings.TABLE.key,
                used=settings.TABLE.default,
            )
            template = settings.TABLE.default
        self._naming = Naming.of(template, config[settings.TOKEN_COLUMN], config[settings.UPDATED_AT_COLUMN])

    def table(self, owner: TopicName) -> Table:
        """Of a game and platform."""
        return Table(owner, self._naming, self._archive)

    def delete(self, owner: TopicName, dead: Sequence[DeadToken]) -> int:
        """See ``TokenStore``. A token that is not a valid text of PostgreSQL is in no row."""
        possible = [one for one in dead if is_text(one.token)]
        return self._pool.execute(self.table(owner).delete(possible)) if possible else 0

    def prepare(self) -> None:
        """Waits until the database answers, and makes the archive's table. Raises ``StartError``."""
        self._pool.probe(self._config[settings.CONNECTION_TIMEOUT])
        if self._archive is None:
            log.warning(NO_ARCHIVE)
            return
        try:
            if not self._pool.execute(self._archive.presence()):
                self._pool.execute(self._archive.creation())
        except DatabaseError as error:
            key = settings.ARCHIVE_TABLE.key
            table = self._archive.table
            raise StartError(f"{key}: the table {table} cannot be created: {error}; create it yourself") from None

    def reload(self, config: Config) -> bool:
        """New connections log in as the settings say now."""
        self._config = config
        return self._pool.move_to(Address.from_config(config))

    def close(self) -> None:
        """Closes what is idle."""
        self._pool.close()

    # --- check --------------------------------------------------------------------------------------------------------
    def checks(self) -> Iterator[Check]:
        """The database, the archive, and the tables of the apps that the settings name."""
        yield "PostgreSQL", self._check_database
        if self._archive is None:
            yield settings.ARCHIVE_TABLE.key, lambda: NO_ARCHIVE
        for platform, apps in all_settings.apps().items():
            for app in self._config[apps]:
                yield f"table of {app} {platform}", partial(self._check_table, TopicName(app, platform))

    def _check_database(self) -> str:
        self._pool.probe(self._config[settings.CONNECTION_TIMEOUT])
        found = f"{self._pool.address} answers"
        if self._archive is None:
            return found
        try:
            present = self._pool.execute(self._archive.presence())
        except DatabaseError as error:
            raise StartError(f"{settings.ARCHIVE_TABLE.key}: {error}") from None
        name = self._archive.name
        there = f"the archive {name} exists" if present else f"the archive {name} will be created at the start"
        return f"{found}, {there}"

    def _check_table(self, owner: TopicName) -> str:
        table = self.table(owner)
        try:
            name = table.quoted.replace("%%", "%")
            ((present, index, columns),) = self._pool.ask(table.found()).rows
        except NotDeleted as error:
            raise StartError(str(error)) from None
        token = self._naming.column
        if not present:
            return f"warning: {name} does not exist: tokens of this game wait until it does"
        for column in filter(None, (token, self._naming.updated_at)):
            if column not in columns:
                return f"warning: {name} has no column {column}: tokens of this game wait until it has"
        if not index:
            return f"warning: {name} has no index on {token}: each DELETE reads the whole table; create one"
        return f"{name} has an index on {token}"

    # --- undo ---------------------------------------------------------------------------------------------------------
    def kept(self, wanted: Wanted) -> list[Kept]:
        """See ``RestoringStore``."""
        archive = self._present_archive()
        return [
            Kept(str(reason), int(rows), str(first), str(last))
            for reason, rows, first, last in self._pool.ask(summary(archive, wanted)).rows
        ]

    def restore(self, wanted: Wanted) -> Iterator[Restored]:
        """See ``RestoringStore``."""
        archive, name = self._present_archive(), self.table(wanted.owner).quoted
        columns = [str(column) for (column,) in self._pool.ask(writable_columns(name)).rows]
        if not columns:
            raise StartError(f"the table {name.replace('%%', '%')} does not exist")
        statement = restoration(archive, wanted, name, columns, _RESTORED_AT_ONCE)
        while True:
            ((rows, restored),) = self._pool.ask(statement).rows
            if not rows:
                return
            yield Restored(rows, restored)

    def _present_archive(self) -> Archive:
        if self._archive is None:
            raise StartError(f"{settings.ARCHIVE_TABLE.key} is not set: there is no archive, no row was kept")
        self._pool.probe(self._config[settings.CONNECTION_TIMEOUT])
        if not self._pool.execute(self._archive.presence()):
            raise StartError(f"the archive {self._archive.name} does not exist: no row was ever kept there")
        return self._archive


def _archive_of(config: Config) -> Archive | None:
    name = config[settings.ARCHIVE_TABLE]
    for part in name.split("."):
        refuse_long(part)
    return Archive(name) if name else None
