"""A server on a loopback port to which the client must keep the protocol."""

from collections.abc import Iterator

import pytest

from lab.http2_server import Files, Server, make_files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(files: Files) -> Iterator[Server]:
    with Server(files) as server:
        yield server
    assert server.protocol_errors == []
