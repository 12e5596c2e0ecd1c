"""The simulated token endpoint."""

from collections.abc import Iterator

import pytest

from pusher.sim.certificate import TlsFiles, server_context, tls_files
from pusher.sim.fcm_oauth import OAuth


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return tls_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def oauth(files: TlsFiles) -> Iterator[OAuth]:
    server = OAuth(server_context(files))
    server.start()
    yield server
    server.stop()
