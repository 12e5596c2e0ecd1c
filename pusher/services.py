"""Which provider serves an app, and how its service is made from the configuration.

What stands on the XMPP library is imported where it is used: only XMPP needs that, and it may not be installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pusher.apns.credentials import ClientCertificate, Credentials, ProviderToken
from pusher.apns.message import ApnsParser
from pusher.apns.service import PRODUCTION_HOST, SANDBOX_HOST, ApnsService, ApnsSettings
from pusher.broker.interface import Publisher
from pusher.config import Config, settings
from pusher.errors import CredentialError, StartError
from pusher.fcm.access_token import AccessToken, TokenEndpoint
from pusher.fcm.credentials import ServiceAccount
from pusher.fcm.message import FcmParser
from pusher.fcm.service import FcmService, FcmSettings
from pusher.feedback import apns_feedback, google_feedback
from pusher.feedback_topic import MakeFeedback
from pusher.gcm.message import parse as parse_gcm
from pusher.http2.pool import BackOff, Policy
from pusher.http2.transport import Origin
from pusher.lane import Lane, LaneSettings, Parse
from pusher.message import Push
from pusher.retry import RetryPolicy
from pusher.telemetry.log import logger
from pusher.telemetry.stats import Stats
from pusher.tls import TlsTrust

if TYPE_CHECKING:
    from pusher.gcm.service import GcmService, GcmSettings

log = logger(__name__)

P = TypeVar("P", bound=Push)

#: By ``--production``.
_XMPP_PORTS = {True: 5235, False: 5236}


@dataclass(frozen=True)
class OpenLane:
    """Makes the lane of one app."""

    app: str
    platform: str
    hostname: str
    #: Opened when the first lane is; None: outcomes are not fed back.
    feedbacks: Callable[[], Publisher | None]
    stats: Stats
    config: Config

    def __call__(
        self, client: str, parse: Parse[P], make_feedback: MakeFeedback, retry: RetryPolicy, high_water: int
    ) -> Lane[P]:
        """``client`` is a tag: apns, gcm or fcm; ``high_water`` is in pushes."""
        lane = LaneSettings(
            app=self.app,
            platform=self.platform,
            client=client,
            hostname=self.hostname,
            retry=retry,
            high_water=high_water,
            feedback_successes=self.config[settings.FEEDBACK_SUCCESSES],
        )
        return Lane(lane, parse, make_feedback, self.feedbacks(), self.stats)


def build_service(platform: str, config: Config, app: str, open_lane: OpenLane) -> Any:
    """The service of an app. Raises ``StartError`` where its settings or credentials cannot be used."""
    return _BUILDERS[platform](config, app, open_lane)


def apns_credentials(config: Config, app: str) -> Credentials:
    """Reads an app's credentials for Apple. Raises ``CredentialError``."""
    trust = TlsTrust(config[settings.APNS_CA_FILE], config[settings.APNS_CRL_FILE])
    certificate = config.of(settings.APNS_CERT_PATH, app)
    key = config.of(settings.APNS_AUTH_KEY_PATH, app)
    if key:
        key_id, team_id = config.of(settings.APNS_KEY_ID, app), config.of(settings.APNS_TEAM_ID, app)
        if not (key_id and team_id):
            raise CredentialError(f"apns.certs.{app}.keyID and .teamID must be set beside .authKeyPath")
        credentials = Credentials(trust, token=ProviderToken.load(key, key_id, team_id))
    elif certificate:
        password = config.of(settings.APNS_CERT_PASSWORD, app)
        credentials = Credentials(trust, certificate=ClientCertificate.load(certificate, password))
    else:
        raise CredentialError(f"set apns.certs.{app}.authKeyPath, keyID and teamID, or apns.certs.{app}.certPath")
    credentials.tls_context()
    return credentials


def apns_host(config: Config) -> str:
    """``apns.host``, or Apple's for the environment."""
    return config[settings.APNS_HOST] or (PRODUCTION_HOST if config.production else SANDBOX_HOST)


def _build_apns(config: Config, app: str, open_lane: OpenLane) -> ApnsService:
    credentials = apns_credentials(config, app)
    retry = RetryPolicy(config[settings.APNS_RETRY_INTERVAL], config[settings.APNS_RETRY_MAX_ATTEMPTS])
    parser = ApnsParser(config.of(settings.APNS_TOPIC, app))
    lane = open_lane("apns", parser, apns_feedback, retry, config[settings.APNS_PUSH_QUEUE_SIZE])
    how = ApnsSettings(
        host=apns_host(config),
        port=config[settings.APNS_PORT],
        connections=config[settings.APNS_CONNECTION_POOL_SIZE],
        max_in_flight=config[settings.APNS_CONCURRENT_WORKERS],
        request_timeout_s=config[settings.APNS_REQUEST_TIMEOUT],
        policy=Policy(
            connect_timeout_s=config[settings.APNS_CONNECT_TIMEOUT],
            back_off=BackOff(config[settings.APNS_RECONNECT_INTERVAL], config[settings.APNS_RECONNECT_MAX_INTERVAL]),
        ),
    )
    return ApnsService(lane, how, credentials)


def _google_back_off(config: Config) -> BackOff:
    return BackOff(config[settings.GCM_RECONNECT_INTERVAL], config[settings.GCM_RECONNECT_MAX_INTERVAL])


def _build_gcm(config: Config, app: str, open_lane: OpenLane) -> Any:
    """By what is configured for the app: a service account means FCM HTTP v1, a sender id XMPP."""
    if config.of(settings.GCM_FIREBASE_CREDENTIALS, app):
        return _build_fcm(config, app, open_lane)
    return _build_xmpp(config, app, open_lane)


def xmpp_settings(config: Config, app: str) -> GcmSettings:
    """How an app talks to Google over XMPP. Raises ``StartError`` without credentials, or without the XMPP library."""
    sender_id, api_key = config.of(settings.GCM_SENDER_ID, app), config.of(settings.GCM_API_KEY, app)
    if not (sender_id and api_key):
        raise CredentialError(
            f"set gcm.firebaseCredentials.{app}, the JSON of a service account or the path of its file (FCM), "
            f"or gcm.certs.{app}.apiKey and .senderID (XMPP, which Google shut down in 2024)"
        )
    if importlib.util.find_spec("sleekxmpp") is None:
        raise StartError(
            "GCM over XMPP needs sleekxmpp: run `pip install ./packaging/sleekxmpp` at the top of pusher's sources"
        )
    from pusher.gcm.link import LinkSettings
    from pusher.gcm.service import GcmSettings

    return GcmSettings(
        LinkSettings(
            host=config[settings.GCM_XMPP_HOST],
            port=config[settings.GCM_XMPP_PORT] or _XMPP_PORTS[config.production],
            sender_id=sender_id,
            api_key=api_key,
            ping_interval_s=config[settings.GCM_PING_INTERVAL],
            ping_timeout_s=config[settings.GCM_PING_TIMEOUT],
        ),
        TlsTrust(config[settings.GCM_XMPP_CA_FILE], config[settings.GCM_XMPP_CRL_FILE]),
        max_pending=config[settings.GCM_MAX_PENDING_MESSAGES],
        ack_timeout_s=config[settings.GCM_ACK_TIMEOUT],
        back_off=_google_back_off(config),
    )


def _build_xmpp(config: Config, app: str, open_lane: OpenLane) -> GcmService:
    how = xmpp_settings(config, app)
    from pusher.gcm.link import LinkError
    from pusher.gcm.service import GcmService, log_in_once

    try:
        log_in_once(app, how)
    except LinkError as error:
        # not the credentials' fault: the service tries for ever
        log.warning("first login failed", game=app, error=str(error))
    retry = RetryPolicy(config[settings.GCM_RETRY_INTERVAL], config[settings.GCM_RETRY_MAX_ATTEMPTS])
    return GcmService(open_lane("gcm", parse_gcm, google_feedback, retry, config[settings.GCM_PUSH_QUEUE_SIZE]), how)


def fcm_access_token(config: Config, app: str) -> tuple[ServiceAccount, AccessToken]:
    """Reads an app's service account and asks for its first token. Waits; raises ``CredentialError``."""
    account = ServiceAccount.load(config.of(settings.GCM_FIREBASE_CREDENTIALS, app))
    access_token = AccessToken(app, TokenEndpoint(account, fcm_trust(config).context).fetch)
    access_token.prime()
    return account, access_token


def fcm_trust(config: Config) -> TlsTrust:
    """What FCM's certificate, and the token endpoint's, are checked against."""
    return TlsTrust(config[settings.FCM_CA_FILE], config[settings.FCM_CRL_FILE])


def fcm_origin(config: Config) -> Origin:
    """``gcm.fcm.endpoint`` as host and port."""
    endpoint = urlsplit(config[settings.FCM_ENDPOINT])
    return Origin(endpoint.hostname or "", endpoint.port or 443)


def _build_fcm(config: Config, app: str, open_lane: OpenLane) -> FcmService:
    account, access_token = fcm_access_token(config, app)
    retry = RetryPolicy(
        config[settings.FCM_RETRY_INTERVAL],
        config[settings.FCM_RETRY_MAX_ATTEMPTS],
        max_wait_s=config[settings.FCM_RETRY_MAX_ELAPSED],
        max_elapsed_s=config[settings.FCM_RETRY_MAX_ELAPSED],
    )
    lane = open_lane("fcm", FcmParser(app), google_feedback, retry, config[settings.GCM_PUSH_QUEUE_SIZE])
    how = FcmSettings(
        origin=fcm_origin(config),
        project_id=account.project_id,
        trust=fcm_trust(config),
        connections=config[settings.FCM_CONNECTION_POOL_SIZE],
        max_in_flight=config[settings.GCM_CONCURRENT_WORKERS],
        request_timeout_s=config[settings.FCM_REQUEST_TIMEOUT],
        policy=Policy(back_off=_google_back_off(config)),
    )
    return FcmService(lane, how, access_token, open_lane.stats)


_BUILDERS: dict[str, Callable[[Config, str, OpenLane], Any]] = {"apns": _build_apns, "gcm": _build_gcm}


def reload_credentials(service: Any, config: Config, app: str) -> bool:
    """Lets a service use the credentials that are configured now; false where there is nothing new.

    Waits for the provider where that can tell whether they are good. Raises ``StartError``: the old ones stay in use.
    """
    return _RELOADERS[service.lane.settings.client](service, config, app)


def _reload_apns(service: ApnsService, config: Config, app: str) -> bool:
    credentials = apns_credentials(config, app)
    if credentials.same_as(service.credentials):
        return False
    service.reload(credentials)
    return True


def _reload_fcm(service: FcmService, config: Config, app: str) -> bool:
    account, access_token = fcm_access_token(config, app)
    if not access_token.current():
        raise CredentialError(access_token.reason)
    service.reload(account.project_id, access_token)
    return True


def _reload_xmpp(service: GcmService, config: Config, app: str) -> bool:
    from pusher.gcm.link import LinkError
    from pusher.gcm.service import log_in_once

    how = xmpp_settings(config, app)
    if how.link == service.settings.link:
        return False
    try:
        log_in_once(app, how)
    except LinkError as error:
        raise CredentialError(str(error)) from None
    service.reload(how)
    return True


#: By the lane's client.
_RELOADERS: dict[str, Callable[[Any, Config, str], bool]] = {
    "apns": _reload_apns,
    "fcm": _reload_fcm,
    "gcm": _reload_xmpp,
}
