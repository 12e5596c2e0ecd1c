"""The access token against the simulated token endpoint: refresh, one at a time, failures, wrong keys, skew."""

from __future__ import annotations

import dataclasses
import logging
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from gevent.server import StreamServer

from lab.processes import wait_until
from pusher.backoff import BackOff
from pusher.providers.google.fcm.access_token import AccessToken, TokenEndpoint, TokenFailed
from pusher.providers.google.fcm.credentials import ServiceAccount
from pusher.providers.http1 import Client
from pusher.providers.tls import TlsTrust
from pusher.sim.certificate import TlsFiles, make_ca, server_context
from pusher.sim.fcm_oauth import OAuth
from tests.faults.altered import HostsFile
from tests.faults.surroundings import MUTE, mute

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PROJECT, EMAIL = "my-project", "a@my-project.iam.gserviceaccount.com"
ACCOUNT = {
    "project_id": PROJECT,
    "client_email": EMAIL,
    "private_key": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
}
QUICK = BackOff(min_s=0.01, max_s=0.02)


@pytest.fixture
def oauth(oauth: OAuth) -> OAuth:
    """With the account."""
    oauth.add_account(ACCOUNT)
    return oauth


def endpoint(token_uri: str, files: TlsFiles, **changes: Any) -> TokenEndpoint:
    account = ServiceAccount.read(ACCOUNT | {"token_uri": token_uri}, "the account")
    return dataclasses.replace(TokenEndpoint(account, Client(TlsTrust(files.ca).context)), **changes)


def failure(asked: TokenEndpoint) -> TokenFailed:
    with pytest.raises(TokenFailed) as caught:
        asked.fetch()
    text = str(caught.value)
    assert text.isprintable()
    assert "eyJ" not in text
    return caught.value


@contextmanager
def running(token: AccessToken) -> Iterator[AccessToken]:
    greenlet = gevent.spawn(token.run)
    yield token
    assert not greenlet.dead
    greenlet.kill()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# ---- one exchange


def test_a_token_is_good_for_the_accounts_project(oauth: OAuth, files: TlsFiles) -> None:
    grant = endpoint(oauth.token_uri, files).fetch()
    assert oauth.project_of(grant.token) == PROJECT
    assert grant.lifetime_s == 3599
    assert grant.skew_s is not None
    assert abs(grant.skew_s) < 60


def test_refused_key(oauth: OAuth, files: TlsFiles) -> None:
    asked = endpoint(oauth.token_uri, files)
    wrong = dataclasses.replace(asked.account, key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
    error = failure(dataclasses.replace(asked, account=wrong))
    assert str(error) == "127.0.0.1 refuses to issue an access token: HTTP 400 invalid_grant: Invalid JWT Signature."
    assert error.refused


def test_refused_account(oauth: OAuth, files: TlsFiles) -> None:
    oauth.remove_account(EMAIL)
    error = failure(endpoint(oauth.token_uri, files))
    assert "account not found" in str(error)
    assert error.refused


def test_refused_audience(oauth: OAuth, files: TlsFiles) -> None:
    error = failure(endpoint(oauth.token_uri.replace("127.0.0.1", "localhost"), files))
    assert "audience" in str(error)
    assert error.refused


@pytest.mark.parametrize(("ahead_s", "words"), [(7200, "7200 s ahead"), (-7200, "7200 s behind")])
def test_a_clock_that_is_off_is_named_as_the_reason(oauth: OAuth, files: TlsFiles, ahead_s: int, words: str) -> None:
    ours = float(int(time.time())) + ahead_s
    oauth.now = lambda: ours - ahead_s
    error = failure(endpoint(oauth.token_uri, files, wall_clock=lambda: ours))
    assert error.refused
    assert words in str(error)
    assert error.skew_s == pytest.approx(-ahead_s, abs=2)


@pytest.mark.parametrize(
    ("fault", "words", "refused", "retry_after_s"),
    [
        ("503,retry-after=7", "HTTP 503", False, 7),
        ("429,retry-after=100000", "HTTP 429", False, 600),
        ("503,retry-after=soon", "HTTP 503", False, 0),
        ("502", "HTTP 502", False, 0),
        ("500 internal_failure", "HTTP 500 internal_failure: as the script has it", False, 0),
        ("302", "HTTP 302", False, 0),
        ("401 invalid_client", "HTTP 401 invalid_client", True, 0),
        ("403", "HTTP 403", True, 0),
        ("400,body=[1]", "HTTP 400", True, 0),
        ('400,body={"error":{"code":1},"error_description":"a\\nb"}', "HTTP 400 a b", True, 0),
        ("200", "answers without an access token", False, 0),
        ("200,body={}", "answers without an access token", False, 0),
        ('200,body={"access_token":7}', "answers without an access token", False, 0),
        ('200,body={"access_token":"a\\r\\nx: y"}', "answers without an access token", False, 0),
        ('200,body={"access_token":"t","expires_in":0}', "without a lifetime", False, 0),
        ('200,body={"access_token":"t","expires_in":"x"}', "without a lifetime", False, 0),
        ('200,body={"access_token":"t","expires_in":0.001}', "without a lifetime", False, 0),
        ('200,body={"access_token":"t","expires_in":"0"}', "without a lifetime", False, 0),
        ('200,body={"access_token":"t","expires_in":true}', "without a lifetime", False, 0),
    ],
)
def test_answers_without_a_token(
    oauth: OAuth, files: TlsFiles, fault: str, words: str, refused: bool, retry_after_s: float
) -> None:
    oauth.set_faults([fault])
    error = failure(endpoint(oauth.token_uri, files))
    assert words in str(error)
    assert error.refused is refused
    assert error.retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("member", "lifetime_s"),
    [
        ("", 3600),
        (',"expires_in":1e300', 86_400),
        (',"expires_in":null', 3600),
        (',"expires_in":"600"', 600),
    ],
)
def test_odd_lifetimes(oauth: OAuth, files: TlsFiles, member: str, lifetime_s: float) -> None:
    oauth.set_faults(['200,body={"access_token":"t"' + member + "}"])
    assert endpoint(oauth.token_uri, files).fetch().lifetime_s == lifetime_s


def test_an_endpoint_that_does_not_answer(oauth: OAuth, files: TlsFiles) -> None:
    oauth.set_faults(["silence"])
    others_go_on = gevent.spawn(gevent.sleep, 0.01)
    error = failure(endpoint(oauth.token_uri, files, timeout_s=0.3))
    assert str(error) == "no access token, 127.0.0.1 gave no answer within 0.3 s"
    assert others_go_on.dead


def test_a_mute_address_does_not_hide_the_next(
    oauth: OAuth, files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{MUTE} localhost\n127.0.0.1 localhost\n")
    monkeypatch.setattr(gevent.get_hub(), "resolver", HostsFile(hosts))
    asked = endpoint(oauth.token_uri.replace("127.0.0.1", "localhost"), files, timeout_s=6.0)
    with mute(oauth.port):
        error = failure(asked)  # reached, but the assertion was made for it by its other name
    assert "Failed audience check" in str(error)


def test_an_endpoint_that_is_not_there(oauth: OAuth, files: TlsFiles) -> None:
    oauth.stop()
    error = failure(endpoint(oauth.token_uri, files))
    assert "refused" in str(error)
    assert not error.refused


@contextmanager
def raw_server(reply: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Answers whatever comes with the same bytes; without a context not even with TLS."""

    def serve(sock: Any, _address: object) -> None:
        sock.recv(65536)
        sock.sendall(reply)

    address = ("127.0.0.1", 0)
    server = StreamServer(address, serve) if context is None else StreamServer(address, serve, ssl_context=context)
    server.start()
    yield f"https://127.0.0.1:{server.socket.getsockname()[1]}/token"
    server.stop()


def test_an_endpoint_that_does_not_speak_tls(files: TlsFiles) -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\n\r\n") as uri:
        assert "TLS" in str(failure(endpoint(uri, files)))


@pytest.mark.parametrize(
    "reply", [b"SSH-2.0-x\r\n", b"x" * 60_000, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"]
)
def test_an_endpoint_that_does_not_speak_http(files: TlsFiles, reply: bytes) -> None:
    context = server_context(files)
    context.set_alpn_protocols(["http/1.1"])
    with raw_server(reply, context) as uri:
        failed = failure(endpoint(uri, files))
    assert not failed.refused
    assert len(str(failed)) < 300


def test_a_certificate_that_is_not_trusted(oauth: OAuth, files: TlsFiles, tmp_path: Path) -> None:
    other, _ = make_ca("somebody else").write(tmp_path, "other")
    error = failure(endpoint(oauth.token_uri, files, client=Client(TlsTrust(other).context)))
    assert "certificate is refused" in str(error)
    assert not oauth.counts["200 OK"]


def test_trust_that_cannot_be_read(oauth: OAuth, files: TlsFiles) -> None:
    error = failure(endpoint(oauth.token_uri, files, client=Client(TlsTrust("/no/such/ca.pem").context)))
    assert "/no/such/ca.pem" in str(error)


# ---- the token in hand


def test_it_is_the_same_object_until_it_changes(oauth: OAuth, files: TlsFiles) -> None:
    with running(AccessToken("app", endpoint(oauth.token_uri, files).fetch)) as token:
        assert token.reason
        first = token.wait(20)
        assert oauth.project_of(first) == PROJECT
        assert token.current() is first
        assert token.reason == ""


def test_it_is_renewed_before_its_end(oauth: OAuth, files: TlsFiles) -> None:
    oauth.token_lifetime_s = 2
    with running(AccessToken("app", endpoint(oauth.token_uri, files).fetch)) as token:
        seen = {token.wait(20)}

        def look() -> bool:
            seen.add(token.current())
            return len(seen) == 3

        wait_until(look)
    assert "" not in seen


@pytest.mark.parametrize(("lifetime_s", "renewed_after_s"), [(3599, 3299), (600, 300), (100, 50)])
def test_when_it_is_renewed(oauth: OAuth, files: TlsFiles, lifetime_s: int, renewed_after_s: float) -> None:
    oauth.token_lifetime_s = lifetime_s
    clock = Clock()
    token = AccessToken("app", endpoint(oauth.token_uri, files).fetch, clock=clock)
    token.prime(20)
    assert token._next_at - clock.now == renewed_after_s


def test_one_request_at_a_time_however_many_ask(oauth: OAuth, files: TlsFiles) -> None:
    oauth.set_faults(["ok,delay=30"])
    clock = Clock()
    with running(AccessToken("app", endpoint(oauth.token_uri, files).fetch, clock=clock)) as token:
        waiting = [gevent.spawn(token.wait, 20) for _ in range(50)]
        gevent.joinall(waiting)
        first = token.current()
        assert {greenlet.value for greenlet in waiting} == {first}
        clock.now += 61
        assert all(token.refused(first) for _ in range(50))
        assert token.current() == ""
        second = token.wait(20)
        assert second != first
        assert token.refused(first)
        assert token.current() is second
    assert oauth.counts["200 OK"] == 2
    assert oauth.most_at_once == 1


def test_a_refused_token_is_replaced_once_however_young_it_is(oauth: OAuth, files: TlsFiles) -> None:
    clock = Clock()
    token = AccessToken("account", endpoint(oauth.token_uri, files).fetch, clock=clock)
    token.prime(20)
    first = token.current()
    assert token.refused(first)
    assert token.current() == ""
    assert token.refused(first)
    token.prime(20)
    second = token.current()
    assert second != first
    clock.now += 59
    assert not token.refused(second)
    assert token.current() is second
    clock.now += 1
    assert token.refused(second)
    assert token.current() == ""


def test_apps_that_share_it_ask_once(oauth: OAuth, files: TlsFiles) -> None:
    oauth.set_faults(["ok,delay=30"])
    token = AccessToken("account", endpoint(oauth.token_uri, files).fetch)
    gevent.joinall([gevent.spawn(token.prime, 20) for _ in range(5)])
    assert oauth.project_of(token.current()) == PROJECT
    with running(token), running(token):
        assert token.refused(token.current())
        wait_until(token.current)
    assert oauth.counts["200 OK"] == 2
    assert oauth.most_at_once == 1


def test_it_is_kept_fresh_when_the_app_that_asks_goes_away(oauth: OAuth, files: TlsFiles) -> None:
    oauth.set_faults(["silence,times=1"])
    token = AccessToken("account", endpoint(oauth.token_uri, files).fetch)
    asking = gevent.spawn(token.run)
    wait_until(lambda: oauth.most_at_once == 1)
    with running(token):
        asking.kill()
        assert token.wait(20)


def test_who_does_not_want_it_any_more_stops_asking(oauth: OAuth, files: TlsFiles) -> None:
    token = AccessToken("account", endpoint(oauth.token_uri, files).fetch)
    wanted = [True]
    asking = gevent.spawn(token.run, lambda: wanted[0])
    wait_until(token.current)
    wanted[0] = False
    token.wake()
    asking.join(20)
    assert asking.successful()


def test_the_first_request_is_left_to_the_service_when_it_takes_too_long(oauth: OAuth, files: TlsFiles) -> None:
    oauth.set_faults(["silence,times=1"])
    token = AccessToken("account", endpoint(oauth.token_uri, files).fetch)
    token.prime(0.2)
    assert token.current() == ""
    assert token.reason == "no access token yet"
    with running(token):
        assert token.wait(20)


def test_it_lasts_to_its_end_while_the_endpoint_fails_and_comes_back_after(oauth: OAuth, files: TlsFiles) -> None:
    clock = Clock()
    asked = endpoint(oauth.token_uri, files)
    with running(AccessToken("failing-app", asked.fetch, back_off=QUICK, clock=clock)) as token:
        first = token.wait(20)
        oauth.set_faults(["503"])
        clock.now += 3599 - 300
        token.wake()
        wait_until(lambda: "503" in token.reason)
        assert token.current() is first
        clock.now += 299
        assert token.current() is first
        clock.now += 1
        assert token.current() == ""
        assert token.wait(0.01) == ""
        oauth.set_faults([])

        def advance() -> str:
            clock.now += 0.02
            token.wake()
            return token.wait(0.01)

        wait_until(advance)
        assert token.reason == ""
        assert token.current() != first


def test_a_refusal_does_not_shorten_the_back_off(oauth: OAuth, files: TlsFiles) -> None:
    clock = Clock()
    token = AccessToken("app", endpoint(oauth.token_uri, files).fetch, clock=clock)
    token.prime(20)
    first = token.current()
    clock.now += 3400
    oauth.set_faults(["503,retry-after=50"])
    token._renew()
    due = token._next_at
    assert due == clock.now + 50
    assert token.refused(first)
    assert token._next_at == due


def test_back_off_grows_to_its_limit(oauth: OAuth, files: TlsFiles) -> None:
    oauth.stop()
    clock = Clock()
    token = AccessToken("app", endpoint(oauth.token_uri, files).fetch, clock=clock)
    waits = []
    for _ in range(9):
        token._renew()
        waits.append(token._next_at - clock.now)
    limits = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))


def test_the_first_request_tells_whether_the_account_is_refused(oauth: OAuth, files: TlsFiles) -> None:
    token = AccessToken("app", endpoint(oauth.token_uri, files).fetch)
    oauth.set_faults(["503"])
    token.prime(20)
    assert token.current() == ""
    oauth.set_faults([])
    oauth.remove_account(EMAIL)
    with pytest.raises(TokenFailed, match="account not found"):
        token.prime(20)


def test_an_account_that_is_deleted_while_we_run_is_asked_for_again(oauth: OAuth, files: TlsFiles) -> None:
    oauth.remove_account(EMAIL)
    asked = endpoint(oauth.token_uri, files)
    with running(AccessToken("deleted-app", asked.fetch, back_off=QUICK)) as token:
        wait_until(lambda: oauth.counts["400 Bad Request"] > 2)
        assert "account not found" in token.reason
        oauth.add_account(ACCOUNT)
        assert oauth.project_of(token.wait(20)) == PROJECT


def test_a_skewed_clock_is_logged(oauth: OAuth, files: TlsFiles, caplog: pytest.LogCaptureFixture) -> None:
    oauth.now = lambda: time.time() + 600
    token = AccessToken("skewed-app", endpoint(oauth.token_uri, files).fetch)
    with caplog.at_level(logging.INFO):
        token.prime(20)
    [line] = [vars(entry)["fields"] for entry in caplog.records]
    assert line["account"] == "skewed-app"
    assert line["behind_s"] == pytest.approx(600, abs=2)


def test_logs_hold_no_token(oauth: OAuth, files: TlsFiles, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.DEBUG):
        token = AccessToken("logged-app", endpoint(oauth.token_uri, files).fetch, clock=clock)
        oauth.set_faults(["503"])
        token.prime(20)
        oauth.set_faults([])
        token.prime(20)
        first = token.current()
        clock.now += 100
        token.refused(first)
    lines = [(entry.getMessage(), entry.levelname) for entry in caplog.records if entry.name.startswith("pusher")]
    assert lines == [
        ("no access token for FCM, pushes wait", "ERROR"),
        ("access token obtained again", "INFO"),
        ("FCM refused the access token before it expired, requesting a new one", "WARNING"),
    ]
    assert first
    assert not any(first in str(vars(entry)) for entry in caplog.records)
