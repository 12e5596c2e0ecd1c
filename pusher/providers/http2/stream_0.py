"""Stream 0: preface, SETTINGS both ways, PING and our GOAWAY, all done by h2.

h2 sees one frame at a time. The peer's GOAWAY and window updates are not shown to it: it would close its state machine
on GOAWAY and then refuse the SETTINGS and PING of streams still in flight, and it would count updates of a window
whose use it does not see until it calls them an overflow (after 2 GiB).
"""

from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import PingAckReceived, RemoteSettingsChanged
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from pusher.providers.http2.header_block import MAX_LIST_OCTETS

_PING: Final = b"pusher\0\0"


class ConnectionFailed(Exception):
    """The peer broke the protocol. `code` is the error code that our GOAWAY carries."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stream0:
    """The frames about the connection itself, both ways. `take` returns the bytes to send after each call."""

    def __init__(self, table_octets: int) -> None:
        self.ping_pending = False
        self._ended = False
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.HEADER_TABLE_SIZE: table_octets,
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_LIST_OCTETS,
            },
        )
        self._h2.initiate_connection()

    @property
    def settings(self) -> Settings:
        """The peer's."""
        return self._h2.remote_settings

    def receive(self, frame: bytes) -> bool:
        """A whole SETTINGS or PING frame; whether it was the peer's settings. Raises ConnectionFailed."""
        try:
            events = self._h2.receive_data(frame)
        except ProtocolError as error:
            self._ended = True  # h2 has queued a GOAWAY
            raise ConnectionFailed(error.error_code, str(error)) from error
        if any(isinstance(event, PingAckReceived) for event in events):
            self.ping_pending = False
        return any(isinstance(event, RemoteSettingsChanged) for event in events)

    def ping(self) -> None:
        """Sends a PING."""
        self.ping_pending = True
        self._h2.ping(_PING)

    def goaway(self, code: int) -> None:
        """Say that the connection is at its end; nothing may follow."""
        if not self._ended:
            self._ended = True
            self._h2.close_connection(code, last_stream_id=0)

    def take(self) -> bytes:
        """The bytes to send."""
        return self._h2.data_to_send()
