"""A company's proxy on the way out: a tunnel by HTTP CONNECT, through which TLS goes to the provider itself.

Sources: RFC 9110, 9.3.6 (CONNECT) and 11.7 (Proxy-Authorization); RFC 7617 (Basic). HTTPS_PROXY and NO_PROXY are read
as Python's own urllib reads them; addresses of this machine are never asked for through a proxy that stands there.
"""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import h11
from gevent import socket

from pusher.errors import StartError
from pusher.providers.budget import Turns

#: All that a proxy may say before the tunnel is open.
_MAX_OCTETS = 16_384
_READ_OCTETS = 4_096
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class Proxy:
    """Address and credentials of a proxy ("" = no user)."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"the proxy {_authority(self.host, self.port)}"


#: Gives the proxy on the way to a host; None: there is none.
ProxyOf = Callable[[str], Proxy | None]


def direct(_host: str) -> Proxy | None:
    """No proxy on any way."""
    return None


def always(url: str) -> ProxyOf:
    """The same proxy for every host; "" = none. Raises ``StartError``."""
    proxy = read(url, "the proxy") if url else None
    return lambda _host: proxy


def of_environment(host: str) -> Proxy | None:
    """The proxy for a host according to HTTPS_PROXY and NO_PROXY. Raises ``StartError``."""
    proxies = urllib.request.getproxies_environment()
    url = proxies.get("https", "")
    if not url or _is_here(host) or urllib.request.proxy_bypass_environment(host, proxies):  # type: ignore[attr-defined]
        return None
    return read(url, "HTTPS_PROXY")


def read(url: str, where: str) -> Proxy:
    """``http://[user:password@]host[:port]``. Raises ``StartError``, which does not show the password."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise StartError(f"{where} is not http://[user:password@]host:port") from None
    if parts.scheme != "http" or not host or not f"{host}".isprintable():
        raise StartError(f"{where} is not http://[user:password@]host:port")
    if parts.username is None:
        return Proxy(host, port)
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(host, port, f"Basic {base64.b64encode(login).decode()}")


def open_tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Asks a proxy, to which the socket is connected, for a way to the host. Waits; raises OSError.

    The caller limits the time; what the proxy says is bounded here.
    """
    connection = h11.Connection(h11.CLIENT)
    target = _authority(host, port)
    headers = [("Host", target)]
    if proxy.authorization:
        headers.append(("Proxy-Authorization", proxy.authorization))
    sock.sendall(connection.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b"")
    try:
        answer = _answer(sock, connection, proxy)
    except h11.RemoteProtocolError as error:
        raise ConnectionError(f"{proxy} does not speak HTTP: {str(error)[:_SHOWN_CHARACTERS]!r}") from None
    if not 200 <= answer.status_code < 300:
        reason = answer.reason.decode("ascii", "replace")[:_SHOWN_CHARACTERS]
        raise ConnectionError(f"{proxy} refuses a connection to {target}: HTTP {answer.status_code} {reason}".rstrip())
    if connection.trailing_data[0]:
        raise ConnectionError(f"{proxy} sends data after its answer to CONNECT")


def _answer(sock: socket.socket, connection: h11.Connection, proxy: Proxy) -> h11.Response:
    left, turns = _MAX_OCTETS, Turns()
    while not isinstance(event := connection.next_event(), h11.Response):
        if event is h11.NEED_DATA:
            data = sock.recv(_READ_OCTETS)
            left -= len(data)
            if left < 0:
                raise ConnectionError(f"{proxy} sends an endless answer")
            connection.receive_data(data)
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionError(f"{proxy} closed the connection")
        turns.give_way()
    return event


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
