"""The command ``channels``: creates, lists and deletes the broadcast channels of an app.

A channel carries one push to all devices that follow a Live Activity. Apple creates its id; the app passes it to the
devices, and a message contains it as ``channel_id``.

Sources: Apple, "Sending channel management requests to APNs" and "Handling error responses from Apple Push Notification
service".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

import orjson

from pusher.config.settings import of_provider
from pusher.config.values import Config
from pusher.errors import StartError
from pusher.providers.apns import settings
from pusher.providers.apns.credentials import Credentials
from pusher.providers.apns.message import CHANNEL_ID, TOPIC_SUFFIX
from pusher.providers.apns.provider import apns_credentials
from pusher.providers.apns.reasons import read_answer
from pusher.providers.apns.trial import answered, bearer
from pusher.providers.http2.exchange import Exchange
from pusher.providers.http2.header_block import Fields, literal_field
from pusher.providers.http2.transport import Origin
from pusher.providers.proxy import always

_DONE, _REFUSED = 0, 1
#: By ``--production``.
_ORIGINS = {
    True: Origin("api-manage-broadcast.push.apple.com", 2196),
    False: Origin("api-manage-broadcast.sandbox.push.apple.com", 2195),
}
_NOTHING_STORED, _MOST_RECENT_STORED = 0, 1


class Refused(Exception):
    """Apple's reason."""


class Channels(NamedTuple):
    """The channels of one app. Each call waits for Apple; raises ``Refused``, or ``StartError`` without an answer."""

    credentials: Credentials
    origin: Origin
    bundle_id: str
    timeout_s: float

    def create(self, *, store: bool) -> str:
        """Returns its id; with ``store`` Apple keeps the last push of it for devices that are offline, 8 h at most."""
        policy = _MOST_RECENT_STORED if store else _NOTHING_STORED
        body = orjson.dumps({"message-storage-policy": policy, "push-type": "LiveActivity"})
        channel_id = (self._ask("POST", "channels", body=body).header(b"apns-channel-id") or b"").decode(
            "ascii", "replace"
        )
        if CHANNEL_ID.fullmatch(channel_id) is None:
            raise StartError(f"{self.origin}: the channel was created, but the answer has no usable apns-channel-id")
        return channel_id

    def ids(self) -> list[str]:
        """The ids of all its channels."""
        try:
            answer = orjson.loads(self._ask("GET", "all-channels").body_in)
        except orjson.JSONDecodeError:
            answer = None
        ids = answer.get("channels") if isinstance(answer, dict) else None
        if not isinstance(ids, list) or not all(isinstance(one, str) and CHANNEL_ID.fullmatch(one) for one in ids):
            raise StartError(f"{self.origin}: the answer is not a list of channels")
        return ids

    def delete(self, channel_id: str) -> None:
        """For good: the same id is never given again."""
        self._ask("DELETE", "channels", literal_field(b"apns-channel-id", channel_id.encode()))

    def _ask(self, method: str, what: str, literals: bytes = b"", body: bytes = b"") -> Exchange:
        pairs = ((b"authorization", bearer(self.credentials)), (b"content-type", b"application/json" if body else b""))
        fields = Fields(*[(name, value) for name, value in pairs if value], method=method.encode())
        path = f"/1/apps/{self.bundle_id}/{what}".encode()
        exchange = answered(Exchange(None, fields, path, literals, body), self.credentials, self.origin, self.timeout_s)
        if not 200 <= exchange.status < 300:
            raise Refused(read_answer(exchange.status, exchange.body_in).outcome.reason)
        return exchange


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``channels``."""
    parser.add_argument(
        "action", choices=list(_ACTIONS), help="create prints the new channel's id, list prints all ids"
    )
    parser.add_argument("--app", required=True, metavar="APP", help="name of the app, one of apns.apps")
    parser.add_argument("--channel", default="", metavar="ID", help="with delete: id of the channel")
    parser.add_argument(
        "--store", action="store_true", help="with create: Apple stores the last push for devices that are offline"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Returns 0, or 1 if Apple refuses. Raises ``StartError`` if Apple cannot be reached."""
    if (args.action == "delete") != bool(CHANNEL_ID.fullmatch(args.channel)):
        raise StartError(
            "channels delete needs --channel with the id of a channel"
            if args.action == "delete"
            else "only delete takes --channel"
        )
    try:
        _ACTIONS[args.action](channels_of(config, args.app), args)
    except Refused as error:
        sys.stderr.write(f"pusher: Apple refuses the request: {error}\n")
        return _REFUSED
    return _DONE


def channels_of(config: Config, app: str) -> Channels:
    """Raises ``StartError`` where the app, its bundle id or its credentials are missing."""
    apps = config[of_provider("apns").apps]
    if app not in apps:
        raise StartError(f"--app {app}: apns.apps has {', '.join(apps) or 'no app'}")
    bundle_id = config.of(settings.TOPIC, app).removesuffix(TOPIC_SUFFIX["liveactivity"])
    if not bundle_id:
        raise StartError(f"apns.certs.{app}.topic is not set: it is the bundle id that channels belong to")
    return Channels(apns_credentials(config, app), channels_origin(config), bundle_id, config[settings.CONNECT_TIMEOUT])


def channels_origin(config: Config) -> Origin:
    """A host and a port of their own for each environment; raises ``StartError`` for a proxy that is none."""
    apples = _ORIGINS[config.production]
    host, port = config[settings.CHANNELS_HOST] or apples.host, config[settings.CHANNELS_PORT] or apples.port
    return Origin(host, port, proxy=always(config[settings.PROXY])(host))


def _create(channels: Channels, args: argparse.Namespace) -> None:
    sys.stdout.write(f"{channels.create(store=args.store)}\n")


def _list(channels: Channels, _: argparse.Namespace) -> None:
    sys.stdout.writelines(f"{one}\n" for one in channels.ids())


def _delete(channels: Channels, args: argparse.Namespace) -> None:
    channels.delete(args.channel)


_ACTIONS: dict[str, Callable[[Channels, argparse.Namespace], None]] = {
    "create": _create,
    "list": _list,
    "delete": _delete,
}
