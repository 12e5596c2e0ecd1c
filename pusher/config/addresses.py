"""The kinds of values that name something elsewhere: hosts, brokers, pages, databases, topics, apps, plug-ins."""

from __future__ import annotations

import re
from typing import NamedTuple

from pusher.config import doors
from pusher.config.kinds import ITEM_END, List, Secret, Text, ValueKind, Word, masked

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,253}")
_IPV6_ADDRESS = re.compile(r"\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9]+)?\]?")


class Host(Text):
    """A host's name or address; "" = none, unless it must not be empty."""

    label = "a host"

    def __init__(self, *, empty: bool = True) -> None:
        super().__init__(empty=empty)
        self.expects = "a host's name or address"

    def _value(self, text: str) -> str:
        text = super()._value(text)
        if text and not (_HOST_NAME.fullmatch(text) or _IPV6_ADDRESS.fullmatch(text)):
            raise ValueError
        return text.strip("[]")


class BundleId(Word):
    """A bundle identifier, which is the topic of its pushes; "" = none."""

    label = "a bundle id"

    def __init__(self) -> None:
        super().__init__()
        self.expects = 'a bundle id (letters, digits, ".", "-", "_"), 255 characters at most'

    def _value(self, text: str) -> str:
        text = super()._value(text)
        if not re.fullmatch(r"[A-Za-z0-9._-]*", text):
            raise ValueError
        return text


class SocketAddress(NamedTuple):
    """A host's name or address, and a port."""

    host: str
    port: int


def parse_address(text: str, default_port: int) -> SocketAddress:
    """``host``, ``host:port``, ``[::1]`` or ``[::1]:port``. Raises ValueError."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/\[\],]+))(?::([0-9]{1,5}))?", text.strip())
    if found is None or not 0 < int(found[3] or default_port) < 65_536:
        raise ValueError("host:port")
    return SocketAddress(found[1] or found[2], int(found[3] or default_port))


class HostPort(ValueKind[SocketAddress]):
    """``host:port``."""

    expects = "host:port"

    def __init__(self, default_port: int) -> None:
        self.default_port = default_port

    def _value(self, text: str) -> SocketAddress:
        return parse_address(text, self.default_port)

    def _shown(self, value: SocketAddress) -> str:
        return f"[{value.host}]:{value.port}" if ":" in value.host else f"{value.host}:{value.port}"


#: The door of ``pusher.brokers`` for an address without a scheme.
DEFAULT_SCHEME = "kafka"


def scheme(address: str) -> str:
    """The scheme of a broker's address, which names its door."""
    found = re.match(r"([a-z][a-z0-9+-]*):/", address)
    return found[1] if found else DEFAULT_SCHEME


class Brokers(ValueKind[str]):
    """Kafka's bootstrap servers, ``host:port`` separated by commas, or another broker's address with its scheme."""

    expects = "host:port[,host:port...] or sqlite:///path"

    def _value(self, text: str) -> str:
        text = ",".join(text.split(ITEM_END)[:-1]) if ITEM_END in text else text.strip()
        text = text.removeprefix(f"{DEFAULT_SCHEME}://")
        if (word := scheme(text)) != DEFAULT_SCHEME:
            if word not in doors.installed(doors.BROKERS) or not re.fullmatch(r"[a-z0-9+-]+://.*[^/]", text):
                raise ValueError
            return text
        servers = [server for server in re.split(r"[\s,]+", text) if server]
        if not servers or "://" in text:
            raise ValueError
        for server in servers:
            parse_address(server, 9092)
        return ",".join(servers)


class Url(ValueKind[str]):
    """``https://host[:port]``, without a slash at its end."""

    expects = "https://host:port"

    def _value(self, text: str) -> str:
        text = text.strip().rstrip("/")
        found = re.fullmatch(r"https://([^\s/?#@]+)", text)
        if found is None:
            raise ValueError
        parse_address(found[1], 443)
        return text


class SiteUrl(Text):
    """``https://host/path`` or ``http://...``, without a slash at its end; "" = none."""

    label = "https://host/path"
    expects = label

    def _value(self, text: str) -> str:
        text = super()._value(text).strip().rstrip("/")
        if text and not re.fullmatch(r"https?://[^\s\"'<>?#@]+", text):
            raise ValueError
        return text


class ProxyUrl(Text):
    """``http://[user:password@]host:port``; "" = none. The password is not shown."""

    label = "http://[user:password@]host:port"
    expects = label

    def show(self, value: str) -> str:
        """Without user and password."""
        return masked(value)

    def _value(self, text: str) -> str:
        text = super()._value(text).strip().rstrip("/")
        found = re.fullmatch(r"http://(?:[^\s/?#@]*@)?([^\s/?#@]+)", text)
        if text and found is None:
            raise ValueError
        if found is not None:
            parse_address(found[1], 80)
        return text


class Topics(List):
    """Names of topics, and regular expressions that begin with ``^``."""

    def __init__(self) -> None:
        super().__init__()
        self.expects = "a list of topics, and of regular expressions that begin with ^"

    def _value(self, text: str) -> tuple[str, ...]:
        items = super()._value(text)
        for item in items:
            try:
                good = re.compile(item) if item.startswith("^") else re.fullmatch(r"[A-Za-z0-9._-]{1,249}", item)
            except (re.error, RecursionError, OverflowError):
                good = None
            if good is None:
                raise ValueError
        return items


class Dsn(Secret):
    """Where Sentry is, with its key."""

    label = "a DSN, kept secret"

    def _value(self, text: str) -> str:
        text = super()._value(text).strip()
        if text and not re.fullmatch(r"https?://[^\s/@]+@[^\s/@]+/\S*\d+", text):
            raise ValueError
        return text


class DatabaseHost(Text):
    """A host, or the directory of a socket."""

    label = "a host, or the directory of a socket"

    def __init__(self) -> None:
        super().__init__()
        self.expects = self.label

    def _value(self, text: str) -> str:
        text = super()._value(text)
        return text if text.startswith("/") else Host().parse(text)


class TopicName(Text):
    """The name of a Kafka topic, in which ``<game>`` and ``<platform>`` may stand; "" = none."""

    def __init__(self) -> None:
        super().__init__()
        self.expects = 'the name of a topic (letters, digits, ".", "_", "-"), which may contain <game> and <platform>'

    @property
    def label(self) -> str:
        """The kind in a word or two, for tables."""
        return self.expects

    def _value(self, text: str) -> str:
        text = text.strip()
        if not re.fullmatch(r"([A-Za-z0-9._-]|<game>|<platform>){0,249}", text):
            raise ValueError
        return text


class Doors(List):
    """Names of what is plugged in, of one group of doors."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self.group = group

    @property
    def label(self) -> str:
        """The kind in a word or two, for tables."""
        return f"a list of names of {self.group}"

    def _value(self, text: str) -> tuple[str, ...]:
        installed = doors.installed(self.group)
        # Asked for here and not at the declaration: that imports nothing and looks for nothing.
        self.expects = f"a list of {self.group} that are installed ({', '.join(installed) or 'none'})"
        names = super()._value(text)
        if not installed.keys() >= set(names):
            raise ValueError
        return names
