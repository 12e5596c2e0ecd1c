"""``restore``: restores rows that the feedback listener has deleted, from the archives of stores that have one.

Without ``--yes`` it only prints what it would do.
"""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from pusher.config import settings
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.listener import settings as listener_settings
from pusher.listener.opening import open_stores
from pusher.listener.store import NotDeleted, RestoringStore, Wanted
from pusher.providers.provider import words
from pusher.push.topics import TopicName

DONE, FAILED = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--game", required=True, help="name of the game, as in the topic's name")
    parser.add_argument("--platform", required=True, choices=words())
    parser.add_argument("--since", required=True, help="earliest time of deletion, such as '2026-01-31 14:00+00'")
    parser.add_argument("--until", default="", help="latest time of deletion; default: now")
    parser.add_argument(
        "--reason", default="", help="only rows that were deleted for this reason, such as BadDeviceToken"
    )
    parser.add_argument(
        "--yes",
        action="store_true",
        help="restore the rows; without this flag the command only prints what it would do",
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Returns the exit code. Raises ``StartError`` if there is no archive or it cannot be read."""
    _warn_of_apps(args, config)
    wanted = Wanted(TopicName(args.game, args.platform), args.since, args.until, args.reason)
    stores = open_stores(config)
    restoring = {name: store for name, store in stores.items() if isinstance(store, RestoringStore)}
    if not restoring:
        raise StartError(f"no store of {listener_settings.HANDLERS.key} keeps deleted rows: {', '.join(stores)}")
    try:
        results = [_restore(name, store, wanted, really=args.yes) for name, store in restoring.items()]
    except NotDeleted as error:
        what = "--since or --until is not a time" if error.of_token else "the archive cannot be read"
        raise StartError(f"restore: {what}: {error}") from None
    finally:
        for store in stores.values():
            store.close()
    return max(results)


def _restore(name: str, store: RestoringStore, wanted: Wanted, *, really: bool) -> int:
    rows = 0
    for kept in store.kept(wanted):
        rows += kept.rows
        _say(f"{name}: {kept.rows:,} rows deleted as {kept.reason or 'dead'} from {kept.first} to {kept.last}")
    if not rows:
        _say(f"{name}: nothing to restore")
        return DONE
    if not really:
        _say(f"{name}: {rows:,} rows would be restored; add --yes to do it")
        return DONE
    done = restored = 0
    tqdm.monitor_interval = 0  # its thread would only look whether this one is still alive
    try:
        with tqdm(total=rows, desc=name, unit=" rows", leave=False, disable=None) as bar:
            for part in store.restore(wanted):
                done, restored = done + part.rows, restored + part.restored
                bar.update(part.rows)
    except NotDeleted as error:
        _say(f"{name}: {restored:,} rows restored, {rows - done:,} are left: {error}; run the command again")
        return FAILED
    _say(f"{name}: {restored:,} rows restored, {done - restored:,} already existed")
    return DONE


def _warn_of_apps(args: argparse.Namespace, config: Config) -> None:
    apps = config[settings.apps()[args.platform]]
    if apps and args.game not in apps:
        _say(f"{args.game} is not in {args.platform}.apps ({', '.join(apps)})")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
