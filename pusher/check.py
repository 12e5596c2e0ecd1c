"""``--check``: are the settings usable, the credentials good, the other ends reachable? Nothing is sent or consumed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from pusher.broker.connect import check_broker
from pusher.config import Config, settings
from pusher.errors import StartError
from pusher.fcm.access_token import TokenEndpoint
from pusher.fcm.credentials import ServiceAccount
from pusher.http2.transport import ConnectFailed, Origin, connect
from pusher.services import apns_credentials, apns_host, fcm_origin, fcm_trust, xmpp_settings
from pusher.tls import TlsTrust

OK, CANNOT_START = 0, 2

#: What is checked, and the check: it returns what it found and raises ``StartError`` or ``OSError``.
Check = tuple[str, Callable[[], str]]


def check_sender(platform: str, config: Config) -> int:
    """The command ``apns`` or ``gcm`` with ``--check``: one line a check, exit code 0 or 2. May wait."""
    return run_checks([*_broker_checks(config), *_PROVIDERS[platform](config)])


def run_checks(checks: list[Check]) -> int:
    """Runs all of them and prints one line each; 0 when all are good, else 2."""
    failed = 0
    for name, check in checks:
        try:
            line = f"ok      {name}: {check()}"
        except (StartError, ConnectFailed, OSError) as error:
            failed += 1
            line = f"failed  {name}: {error}"
        sys.stdout.write(f"{line}\n")
    return CANNOT_START if failed else OK


def _broker_checks(config: Config) -> Iterator[Check]:
    yield settings.QUEUE.brokers.key, lambda: check_broker(config[settings.QUEUE.brokers])
    if config[settings.FEEDBACK_REPORTERS]:
        yield settings.FEEDBACK_BROKERS.key, lambda: check_broker(config[settings.FEEDBACK_BROKERS])


def _apns_checks(config: Config) -> Iterator[Check]:
    for app in config[settings.APNS_APPS]:
        yield f"apns {app}", lambda app=app: _apns(config, app)  # type: ignore[misc]


def _apns(config: Config, app: str) -> str:
    """The key signs, the certificate loads, Apple answers. Whether Apple knows the key, only a push can tell."""
    credentials = apns_credentials(config, app)
    what = "certificate"
    if credentials.token is not None:
        credentials.token.current()
        what = "provider token"
    origin = Origin(apns_host(config), config[settings.APNS_PORT])
    _connect(origin, credentials.trust, config[settings.APNS_CONNECT_TIMEOUT])
    return f"{what} made, {origin} answers with a certificate that is trusted"


def _gcm_checks(config: Config) -> Iterator[Check]:
    for app in config[settings.GCM_APPS]:
        if config.of(settings.GCM_FIREBASE_CREDENTIALS, app):
            yield f"fcm {app}", lambda app=app: _fcm(config, app)  # type: ignore[misc]
        else:
            yield f"gcm {app}", lambda app=app: _xmpp(config, app)  # type: ignore[misc]


def _fcm(config: Config, app: str) -> str:
    """The service account gets an access token, FCM answers."""
    account = ServiceAccount.load(config.of(settings.GCM_FIREBASE_CREDENTIALS, app))
    trust = fcm_trust(config)
    TokenEndpoint(account, trust.context).fetch()
    origin = fcm_origin(config)
    _connect(origin, trust, config[settings.APNS_CONNECT_TIMEOUT])
    return (
        f"access token for project {account.project_id} obtained, {origin} answers with a certificate that is trusted"
    )


def _xmpp(config: Config, app: str) -> str:
    """Google's XMPP service, or one that is compatible, takes the login."""
    how = xmpp_settings(config, app)
    from pusher.gcm.link import LinkError
    from pusher.gcm.service import log_in_once

    try:
        log_in_once(app, how)
    except LinkError as error:
        raise StartError(str(error)) from None
    return f"logged in at {how.link.host}:{how.link.port} as {how.link.sender_id}"


def _connect(origin: Origin, trust: TlsTrust, timeout_s: float) -> None:
    try:
        connect(origin, trust.context(alpn="h2"), timeout_s).close()
    except ConnectFailed as error:
        raise StartError(f"{origin}: {error}") from None


_PROVIDERS = {"apns": _apns_checks, "gcm": _gcm_checks}
