"""Brings back rows that the feedback listener has deleted, from the table `feedbackListeners.archive.table`.

Says what it would do, and does it with --yes only. Where PostgreSQL is, and the archive's name, comes from pusher's
configuration, variables included.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import psycopg2
import psycopg2.extensions

from pusher import config as configuration
from pusher.config import settings
from pusher.errors import StartError
from pusher.listener.archive import Archive, Wanted, restoration, summary, writable_columns
from pusher.listener.database import Address, arguments
from pusher.listener.tokens import table_of
from pusher.push.topics import TopicName

OK, CANNOT_START = 0, 2


def restore(
    connection: psycopg2.extensions.connection, archive: Archive, wanted: Wanted, *, really: bool
) -> tuple[int, int]:
    """Prints what there is; with ``really`` brings it back. Numbers of rows found and of rows restored."""
    table = table_of(wanted.owner)
    with connection, connection.cursor() as cursor:
        cursor.execute(*arguments(summary(archive, wanted)))
        found = 0
        for reason, number, first, last in cursor.fetchall():
            print(f"{number} rows of {table} deleted as {reason} from {first} to {last}")
            found += number
        if not (really and found):
            return found, 0
        cursor.execute(*arguments(writable_columns(table)))
        columns = [name for (name,) in cursor.fetchall()]
        if not columns:
            raise StartError(f"the table {table} does not exist")
        cursor.execute(*arguments(restoration(archive, wanted, table, columns)))
        return found, cursor.rowcount


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=configuration.DEFAULT_PATH, help="pusher's configuration file")
    parser.add_argument("--since", required=True, help="time of deletion, such as '2026-01-31 14:00+00'")
    parser.add_argument("--until", default="", help="time of deletion; default: now")
    parser.add_argument("--game", required=True, help="as in the topic's name")
    parser.add_argument("--platform", required=True, choices=("apns", "gcm"))
    parser.add_argument("--reason", default="", help="only rows deleted for this one, such as BadDeviceToken")
    parser.add_argument("--yes", action="store_true", help="do it; without, only say what would be done")
    return parser.parse_args()


def main() -> int:
    """Carries out the command line; returns the exit code."""
    args = parsed()
    try:
        config = configuration.load(args.config, os.environ)
        if not config[settings.ARCHIVE_TABLE]:
            raise StartError(f"{settings.ARCHIVE_TABLE.key} is not set: nothing was kept")
        wanted = Wanted(TopicName(args.game, args.platform), args.since, args.until, args.reason)
        connection = psycopg2.connect(**Address.from_config(config).parameters())
        found, restored = restore(connection, Archive(config[settings.ARCHIVE_TABLE]), wanted, really=args.yes)
    except (StartError, OSError, psycopg2.Error) as error:
        print(f"restore_tokens: {' '.join(str(error).split())}", file=sys.stderr)
        return CANNOT_START
    if not found:
        print("nothing to restore")
    elif args.yes:
        print(f"{restored} rows restored, {found - restored} were there already")
    else:
        print(f"{found} rows would be restored; add --yes to do it")
    return OK


if __name__ == "__main__":
    sys.exit(main())
