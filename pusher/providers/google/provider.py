"""Google as a platform: FCM HTTP v1 for an app with a service account, XMPP for one with a sender id.

What stands on the XMPP library is imported where it is used: only XMPP needs that, and it may not be installed.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from pusher.backoff import BackOff
from pusher.config.settings import of_provider
from pusher.config.values import Config
from pusher.errors import CredentialError, StartError
from pusher.providers.google import guide, settings
from pusher.providers.google.fcm.access_token import REQUEST_TIMEOUT_S, AccessToken, TokenSource
from pusher.providers.google.fcm.message import FcmParser
from pusher.providers.google.fcm.pace import Pace
from pusher.providers.google.fcm.service import FcmService, FcmSettings, Project
from pusher.providers.google.fcm.token_source import token_source
from pusher.providers.google.feedback import google_feedback
from pusher.providers.google.xmpp.account import account
from pusher.providers.google.xmpp.message import GcmParser
from pusher.providers.http1 import Client
from pusher.providers.http2.pool import Policy
from pusher.providers.http2.transport import Origin
from pusher.providers.http2_service import check_connection
from pusher.providers.open_lane import OpenLane, compares
from pusher.providers.provider import Check, Guide, Provider, Rules, Shown, Told
from pusher.providers.proxy import ProxyOf, always, of_environment
from pusher.providers.tls import TlsTrust
from pusher.push.fields import Json
from pusher.push.push import Push
from pusher.push.retry import RetryPolicy
from pusher.telemetry.log import logger

if TYPE_CHECKING:
    from pusher.providers.google.xmpp.service import GcmService, GcmSettings

log = logger(__name__)
T = TypeVar("T")

#: A --check waits so long for a connection.
_CONNECT_TIMEOUT_S = 10.0
#: By ``--production``.
_XMPP_PORTS = {True: 5235, False: 5236}
#: The set-up of an app waits so long to be told that its account is refused; a slower endpoint is waited for by the
#: running service.
_FIRST_TOKEN_S = 3.0
#: And so long to be told that its sender id and key are refused.
_FIRST_LOGIN_S = 3.0
#: By account and what its endpoint's certificate is checked against, for as long as a service uses them.
_access_tokens: WeakValueDictionary[Hashable, AccessToken] = WeakValueDictionary()
#: By project and address of FCM, likewise.
_paces: WeakValueDictionary[Hashable, Pace] = WeakValueDictionary()


def over_fcm(config: Config, app: str) -> bool:
    """Whether an app has a service account."""
    return bool(config.of(settings.FIREBASE_CREDENTIALS, app))


def _parser(config: Config, app: str) -> Callable[..., Push]:
    return (FcmParser if over_fcm(config, app) else GcmParser)(app, compares=compares(config, "gcm", app))


def _google_back_off(config: Config) -> BackOff:
    return BackOff(config[settings.RECONNECT_INTERVAL], config[settings.RECONNECT_MAX_INTERVAL])


def _build_gcm(config: Config, app: str, open_lane: OpenLane) -> FcmService | GcmService:
    return _build_fcm(config, app, open_lane) if over_fcm(config, app) else _build_xmpp(config, app, open_lane)


def xmpp_settings(config: Config, app: str) -> GcmSettings:
    """How an app talks to Google over XMPP. Raises ``StartError`` without usable credentials or the XMPP library."""
    sender_id, api_key = config.of(settings.SENDER_ID, app), config.of(settings.API_KEY, app)
    if not (sender_id.strip() and api_key.strip()):
        raise CredentialError(
            f"set gcm.firebaseCredentials.{app}, Google credentials as JSON, as the path of their file, or "
            "application-default (FCM), "
            f"or gcm.certs.{app}.apiKey and .senderID (XMPP, which Google shut down in 2024)"
        )
    if importlib.util.find_spec("sleekxmpp") is None:
        raise StartError(
            "GCM over XMPP needs sleekxmpp: run `pip install ./packaging/sleekxmpp` in pusher's source directory"
        )
    login = account(app, sender_id, api_key)
    from pusher.providers.google.xmpp.link import LinkSettings
    from pusher.providers.google.xmpp.service import GcmSettings

    return GcmSettings(
        LinkSettings(
            host=config[settings.XMPP_HOST],
            port=config[settings.XMPP_PORT] or _XMPP_PORTS[config.production],
            sender_id=login.sender_id,
            api_key=login.api_key,
            ping_interval_s=config[settings.PING_INTERVAL],
            ping_timeout_s=config[settings.PING_TIMEOUT],
            app=app,
            proxy=google_proxy(config)(config[settings.XMPP_HOST]),
        ),
        TlsTrust(config[settings.XMPP_CA_FILE], config[settings.XMPP_CRL_FILE]),
        max_pending=config[settings.MAX_PENDING_MESSAGES],
        ack_timeout_s=config[settings.ACK_TIMEOUT],
        back_off=_google_back_off(config),
    )


def _build_xmpp(config: Config, app: str, open_lane: OpenLane) -> GcmService:
    how = xmpp_settings(config, app)
    from pusher.providers.google.xmpp.link import LinkError
    from pusher.providers.google.xmpp.service import GcmService, log_in_once

    try:
        log_in_once(app, how, _FIRST_LOGIN_S)
    except LinkError as error:
        # not the credentials' fault: the service tries for ever
        log.warning("first login failed", game=app, error=str(error))
    retry = RetryPolicy(config[settings.RETRY_INTERVAL], config[settings.RETRY_MAX_ATTEMPTS])
    return GcmService(
        open_lane("gcm", _parser(config, app), google_feedback, retry, config[settings.PUSH_QUEUE_SIZE]), how
    )


def fcm_token_source(config: Config, app: str) -> TokenSource:
    """The credentials of an app. May wait for Google's metadata server; raises ``CredentialError``."""
    value, project_id = config.of(settings.FIREBASE_CREDENTIALS, app), config.of(settings.FCM_PROJECT_ID, app)
    return token_source(value, project_id.strip(), Client(fcm_trust(config).context, google_proxy(config)))


def _read_account(config: Config, app: str) -> None:
    """Raises ``CredentialError`` where an app's credentials cannot be used; asks Google for nothing."""
    fcm_token_source(config, app)


def fcm_account(config: Config, app: str, timeout_s: float) -> Project:
    """Reads an app's credentials and asks for its first access token.

    Apps with the same credentials share the token, apps of the same project the pace. Waits up to ``timeout_s``; raises
    ``CredentialError`` for what cannot be used or is refused.
    """
    source = fcm_token_source(config, app)
    access_token = _shared(
        _access_tokens,
        (source.identity, fcm_trust(config), config[settings.PROXY]),
        lambda: AccessToken(source.account, source.fetch),
    )
    pace = _shared(
        _paces,
        (source.project_id, str(fcm_origin(config))),
        lambda: Pace(config[settings.FCM_MAX_RATE], time.monotonic()),
    )
    access_token.prime(timeout_s)
    return Project(source.project_id, access_token, pace)


def _shared(known: WeakValueDictionary[Hashable, T], key: Hashable, make: Callable[[], T]) -> T:
    found = known.get(key)
    if found is None:
        found = known[key] = make()
    return found


def fcm_trust(config: Config) -> TlsTrust:
    """The trust for the certificates of FCM and of the token endpoint."""
    return TlsTrust(config[settings.FCM_CA_FILE], config[settings.FCM_CRL_FILE])


def fcm_origin(config: Config) -> Origin:
    """``gcm.fcm.endpoint`` as host and port."""
    endpoint = urlsplit(config[settings.FCM_ENDPOINT])
    host = endpoint.hostname or ""
    return Origin(host, endpoint.port or 443, proxy=google_proxy(config)(host))


def google_proxy(config: Config) -> ProxyOf:
    """The checks of the connection to Google."""
    url = config[settings.PROXY]
    return always(url) if url else of_environment


def _build_fcm(config: Config, app: str, open_lane: OpenLane) -> FcmService:
    account = fcm_account(config, app, _FIRST_TOKEN_S)
    retry = RetryPolicy(
        config[settings.FCM_RETRY_INTERVAL],
        config[settings.FCM_RETRY_MAX_ATTEMPTS],
        max_wait_s=config[settings.FCM_RETRY_MAX_ELAPSED],
        max_elapsed_s=config[settings.FCM_RETRY_MAX_ELAPSED],
    )
    lane = open_lane("fcm", _parser(config, app), google_feedback, retry, config[settings.PUSH_QUEUE_SIZE])
    how = FcmSettings(
        origin=fcm_origin(config),
        trust=fcm_trust(config),
        connections=config[settings.FCM_CONNECTION_POOL_SIZE],
        max_in_flight=config[settings.CONCURRENT_WORKERS],
        request_timeout_s=config[settings.FCM_REQUEST_TIMEOUT],
        policy=Policy(back_off=_google_back_off(config)),
    )
    return FcmService(lane, how, account, open_lane.stats)


def _reload_gcm(service: Any, config: Config, app: str) -> bool:
    return (_reload_fcm if isinstance(service, FcmService) else _reload_xmpp)(service, config, app)


def _reload_fcm(service: FcmService, config: Config, app: str) -> bool:
    account = fcm_account(config, app, REQUEST_TIMEOUT_S)
    if not account.access_token.current():
        raise CredentialError(account.access_token.reason)
    if service.uses(account.access_token):
        return False
    service.reload(account)
    return True


def _reload_xmpp(service: GcmService, config: Config, app: str) -> bool:
    from pusher.providers.google.xmpp.link import LinkError
    from pusher.providers.google.xmpp.service import log_in_once

    how = xmpp_settings(config, app)
    if how.link == service.settings.link:
        return False
    try:
        log_in_once(app, how, _CONNECT_TIMEOUT_S)
    except LinkError as error:
        raise CredentialError(str(error)) from None
    service.reload(how)
    return True


def _gcm_checks(config: Config) -> Iterator[Check]:
    if any(over_fcm(config, app) for app in config[of_provider("gcm").apps]):
        yield settings.FCM_MAX_RATE.key, partial(_quota, config)
    for app in config[of_provider("gcm").apps]:
        if over_fcm(config, app):
            yield f"fcm {app}", lambda app=app: _fcm(config, app)  # type: ignore[misc]
        else:
            yield f"gcm {app}", lambda app=app: _xmpp(config, app)  # type: ignore[misc]


def _quota(config: Config) -> str:
    rate = config[settings.FCM_MAX_RATE]
    if not rate:
        return "0: neither limit nor slow start; Google may refuse pushes beyond the project's quota"
    return f"each project sends at most {rate:,.0f} pushes a minute, a tenth of that at first"


def _fcm(config: Config, app: str) -> str:
    """The credentials get an access token, FCM answers."""
    source = fcm_token_source(config, app)
    source.fetch()
    found = check_connection(fcm_origin(config), fcm_trust(config), _CONNECT_TIMEOUT_S)
    return f"access token for project {source.project_id} obtained, {found}"


def _xmpp(config: Config, app: str) -> str:
    """Google's XMPP service, or one that is compatible, takes the login."""
    how = xmpp_settings(config, app)
    from pusher.providers.google.xmpp.link import LinkError
    from pusher.providers.google.xmpp.service import log_in_once

    try:
        log_in_once(app, how, _CONNECT_TIMEOUT_S)
    except LinkError as error:
        raise StartError(str(error)) from None
    return f"logged in at {how.link.host}:{how.link.port} as {how.link.sender_id}"


def _message(shown: Shown) -> dict[str, Json]:
    return {"to": shown.token, "notification": shown.words, "data": shown.data, "dry_run": shown.dry_run}


def _told(fields: Mapping[str, Json]) -> Told | None:
    kind = fields.get("message_type")
    if kind not in ("ack", "nack"):
        return None
    return Told(fields.get("message_id"), kind == "ack", (fields.get("error"),), fields.get("from"))


PROVIDER = Provider(
    "gcm",
    "send pushes to Google",
    _parser,
    _build_gcm,
    _reload_gcm,
    _gcm_checks,
    _message,
    Rules(
        "error",
        "from",
        ("message_type", "ack"),
        # the doubtful ones also follow from a set-up mistake, such as another platform's tokens in the table
        {"DEVICE_UNREGISTERED": False, "BAD_REGISTRATION": True, "INVALID_REGISTRATION": True},
    ),
    _told,
    (Guide("fcm", "an app that Google's FCM serves", guide.FCM_QUESTIONS, guide.NOTE, _read_account),),
    guide.HINTS,
)
