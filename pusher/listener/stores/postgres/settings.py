"""Where PostgreSQL is, and what its tables are called."""

from __future__ import annotations

from pusher.config.addresses import DatabaseHost
from pusher.config.kinds import Choice, Duration, Int, Path, Secret, Text
from pusher.config.schema import Setting, unused

#: The only command that reads them.
READ_BY = "start-feedback-listener"

PREFIX = "feedbackListeners.invalidToken.pg"
HOST = Setting(f"{PREFIX}.host", DatabaseHost(), "localhost", "Host of PostgreSQL.", aliases=("invalidToken.pg.host",))
PORT = Setting(f"{PREFIX}.port", Int(1, 65_535), 5432, "Port of PostgreSQL.", aliases=("invalidToken.pg.port",))
USER = Setting(f"{PREFIX}.user", Text(), "", "User of the database.", aliases=("invalidToken.pg.user",))
PASSWORD = Setting(f"{PREFIX}.pass", Secret(), "", "Password of the user.", aliases=("invalidToken.pg.pass",))
DATABASE = Setting(f"{PREFIX}.database", Text(), "", "Name of the database.", aliases=("invalidToken.pg.database",))
POOL_SIZE = Setting(
    f"{PREFIX}.poolSize",
    Int(1, unit="connections"),
    20,
    "Maximum number of connections.",
    aliases=("invalidToken.pg.poolSize",),
)
CONNECTION_TIMEOUT = Setting(
    f"{PREFIX}.connectionTimeout",
    Duration("ms", minimum_s=0.001),
    5.0,
    "Time limit for the database to answer at the start.",
    aliases=("invalidToken.pg.connectionTimeout",),
)
STATEMENT_TIMEOUT = Setting(
    f"{PREFIX}.statementTimeout", Duration("s", 0.001, 86_400), 60.0, "Time limit for a DELETE."
)
SSL_MODE = Setting(
    f"{PREFIX}.sslmode",
    Choice(
        "disable",
        "allow",
        "prefer",
        "require",
        "verify-ca",
        "verify-full",
        also={"true": "require", "false": "disable"},
    ),
    "prefer",
    "TLS mode, with libpq's names; only `verify-ca` and `verify-full` verify the certificate.",
    aliases=("invalidToken.pg.sslmode",),
)
SSL_ROOT_CERT = Setting(
    f"{PREFIX}.sslrootcert", Path(), "", "File of PEM certificates that `verify-ca` and `verify-full` trust."
)
TABLE = Setting(
    f"{PREFIX}.table",
    Text(empty=False),
    "<game>_<platform>",
    "Table of a game and platform; a schema may precede it: `push.<game>_<platform>`. Converted to lower case.",
    aliases=("invalidToken.pg.table",),
)
TOKEN_COLUMN = Setting(
    f"{PREFIX}.tokenColumn",
    Text(empty=False),
    "token",
    "Column of the table that holds the tokens. Converted to lower case.",
)
UPDATED_AT_COLUMN = Setting(
    f"{PREFIX}.updatedAtColumn",
    Text(),
    "",
    "Timestamp column of the table with the time at which a token was registered. A token that was registered after "
    'the provider called it dead is kept; "" = no such column.',
    aliases=("invalidToken.pg.updatedAtColumn",),
)
ARCHIVE_TABLE = Setting(
    "feedbackListeners.archive.table",
    Text(),
    "",
    'Table that keeps deleted rows so that `pusher restore` can bring them back; "" = deleted rows cannot be restored.',
)

UNUSED = (
    unused(
        f"{PREFIX}.maxRetries",
        "invalidToken.pg.maxRetries",
        text="Accepted, no effect: a DELETE is retried until it succeeds.",
    ),
)
