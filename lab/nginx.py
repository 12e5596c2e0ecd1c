"""nginx as a provider that accepts everything: HTTP/2 over TLS, status 200, the request's apns-id sent back.

It stands for Apple and for FCM, whose token endpoint it plays too, where the cost of the sender is measured, because
it is real, fast and shares no code with us.
Debian's package is unpacked, not installed, so that no web server begins to run on the machine.
"""

import datetime
import ipaddress
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lab.kafka.server import free_port
from lab.services import STATE, as_root, listens

UNPACKED = STATE / "nginx"
#: where Debian's packages of modules put them: of the machine's own nginx, or unpacked
MODULES = Path("usr/lib/nginx/modules")
ECHO_MODULE = "ngx_http_echo_module.so"

CONFIGURATION = """
{modules}
daemon off;
master_process off;
worker_rlimit_nofile 4096;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    log_format arrival '$msec $uri';
    access_log {access_log};
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests {keepalive_requests};
    keepalive_timeout 1h;
    http2_max_concurrent_streams 1000;
    split_clients "$connection.$connection_requests" $fault {{ {shares} * ""; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {directory}/certificate.pem;
        ssl_certificate_key {directory}/key.pem;
        location / {{
            add_header apns-id $http_apns_id always;
            default_type application/json;
            {answers}
            {accept}
        }}
        location /v1/projects/ {{
            default_type application/json;
            return 200 '{{"name":"projects/bench/messages/0:1700000000000000-31bd1c9631bd1c96"}}';
        }}
        location = /token {{
            default_type application/json;
            return 200 '{{"access_token":"ya29.{token}","expires_in":86400,"token_type":"Bearer"}}';
        }}
        location /3/device/dead {{
            add_header apns-id $http_apns_id always;
            default_type application/json;
            return 410 '{{"reason":"Unregistered","timestamp":1700000000000}}';
        }}
        {locations}
    }}
}}
"""


#: What Apple says with an answer that asks for another try:
#: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
_REASONS = {429: "TooManyRequests", 500: "InternalServerError", 503: "ServiceUnavailable"}


class Nginx:
    """One nginx at https://localhost:port; certificate is the PEM file to trust.

    With log_arrivals the file arrivals gets a line "time_s path" a request, buffered for up to a second. Device tokens
    that begin with "dead" are refused as Apple does it. A connection is sent away after keepalive_requests. Apple's
    answers come after latency_ms; locations are further blocks of nginx's configuration, which may sleep too. faults
    are per cent of the requests by the status that answers them: 429, 500 or 503, chosen by the number of the request.
    """

    def __init__(
        self,
        directory: Path,
        *,
        log_arrivals: bool = False,
        keepalive_requests: int = 1_000_000_000,
        latency_ms: int = 0,
        locations: str = "",
        faults: Mapping[int, float] | None = None,
    ) -> None:
        directory.mkdir(parents=True)
        self.port = free_port()
        self.certificate = directory / "certificate.pem"
        self.arrivals = directory / "arrivals.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        write_certificate(self.certificate, directory / "key.pem")
        access_log = f"{self.arrivals} arrival buffer=64k flush=1s" if log_arrivals else "off"
        text = CONFIGURATION.format(
            modules=f"load_module {echo_module()};" if latency_ms or locations else "",
            accept=f'echo_sleep {latency_ms / 1000}; echo_duplicate 1 "";' if latency_ms else "return 200;",
            locations=locations,
            directory=directory,
            port=self.port,
            access_log=access_log,
            keepalive_requests=keepalive_requests,
            token="x" * 200,  # about as long as Google's
            shares=" ".join(f"{share:.2f}% {status};" for status, share in (faults or {}).items()),
            answers=" ".join(
                f'if ($fault = {status}) {{ return {status} \'{{"reason":"{_REASONS[status]}"}}\'; }}'
                for status in faults or ()
            ),
        )
        (directory / "nginx.conf").write_text(text)

    @property
    def ca_file(self) -> str:
        """What to trust."""
        return str(self.certificate)

    @property
    def pid(self) -> int:
        """Of the process; ValueError when it was not started."""
        if self._process is None:
            raise ValueError("nginx is not running")
        return self._process.pid

    def start(self, timeout_s: float = 10) -> None:
        """Start it and wait until it listens; it never outlives this process."""
        command = ["setpriv", "--pdeathsig", "KILL", program(), "-p", str(self._directory), "-c", "nginx.conf"]
        self._process = subprocess.Popen([*command, "-e", str(self._directory / "error.log")])
        deadline = time.monotonic() + timeout_s
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx does not start: {(self._directory / 'error.log').read_text()}")
            time.sleep(0.02)

    def freeze(self) -> None:
        """Its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it and wait for that."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)


def program() -> str:
    """Path of nginx: the machine's own, or Debian's package unpacked under .services/."""
    if found := shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"):
        return found
    unpacked = UNPACKED / "usr" / "sbin" / "nginx"
    if not unpacked.exists():
        unpack("nginx")
    return str(unpacked)


def echo_module() -> Path:
    """Path of the module that lets nginx sleep before it answers: the machine's own, or Debian's package unpacked."""
    for root in (Path("/"), UNPACKED):
        if (found := root / MODULES / ECHO_MODULE).exists():
            return found
    unpack("libnginx-mod-http-echo")
    return UNPACKED / MODULES / ECHO_MODULE


def unpack(package: str) -> None:
    """Fetch a Debian package and unpack it under .services/."""
    print(f"nginx: fetching {package}", flush=True)
    UNPACKED.mkdir(parents=True, exist_ok=True)
    as_root("apt-get", "update", "-q")
    subprocess.run(["apt-get", "download", "-q", package], cwd=UNPACKED, check=True, capture_output=True)
    file = next(UNPACKED.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg", "-x", str(file), str(UNPACKED)], check=True)


def write_certificate(certificate_file: Path, key_file: Path) -> None:
    """A certificate for localhost that signs itself, good for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(private_key_pem(key))


def private_key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """A key as PKCS#8 PEM, the format of Apple's .p8 files and of Google's accounts."""
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
