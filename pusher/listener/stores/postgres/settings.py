"""Where PostgreSQL is, and what its tables are called."""

from __future__ import annotations

from pusher.config.schema import Choice, DatabaseHost, Duration, Int, Path, Secret, Setting, Text, unused

#: The only command that reads them.
READ_BY = "start-feedback-listener"

PREFIX = "feedbackListeners.invalidToken.pg"
HOST = Setting(f"{PREFIX}.host", DatabaseHost(), "localhost", "Host of PostgreSQL.", aliases=("invalidToken.pg.host",))
PORT = Setting(f"{PREFIX}.port", Int(1, 65_535), 5432, "Port of PostgreSQL.", aliases=("invalidToken.pg.port",))
USER = Setting(f"{PREFIX}.user", Text(), "", "User.", aliases=("invalidToken.pg.user",))
PASSWORD = Setting(f"{PREFIX}.pass", Secret(), "", "Password.", aliases=("invalidToken.pg.pass",))
DATABASE = Setting(f"{PREFIX}.database", Text(), "", "Database.", aliases=("invalidToken.pg.database",))
POOL_SIZE = Setting(
    f"{PREFIX}.poolSize", Int(1, unit="connections"), 20, "Most connections.", aliases=("invalidToken.pg.poolSize",)
)
CONNECTION_TIMEOUT = Setting(
    f"{PREFIX}.connectionTimeout",
    Duration("ms", minimum_s=0.001),
    5.0,
    "How long the database may take to answer at the start.",
    aliases=("invalidToken.pg.connectionTimeout",),
)
STATEMENT_TIMEOUT = Setting(
    f"{PREFIX}.statementTimeout", Duration("s", minimum_s=0.001), 60.0, "Longest time that a DELETE may take."
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
    "TLS as libpq names it; only the last two verify the certificate.",
    aliases=("invalidToken.pg.sslmode",),
)
SSL_ROOT_CERT = Setting(
    f"{PREFIX}.sslrootcert", Path(), "", "PEM certificates that `verify-ca` and `verify-full` trust."
)
TABLE = Setting(
    f"{PREFIX}.table",
    Text(empty=False),
    "<game>_<platform>",
    "Table of a game and platform, perhaps with its schema: `push.<game>_<platform>`. Folded to lower case.",
    aliases=("invalidToken.pg.table",),
)
TOKEN_COLUMN = Setting(
    f"{PREFIX}.tokenColumn", Text(empty=False), "token", "Its column that holds the tokens. Folded to lower case."
)
UPDATED_AT_COLUMN = Setting(
    f"{PREFIX}.updatedAtColumn",
    Text(),
    "",
    "Its column (a timestamp) that says when the token was registered: one registered after the provider's word "
    'on it is kept; "" = none.',
    aliases=("invalidToken.pg.updatedAtColumn",),
)
ARCHIVE_TABLE = Setting(
    "feedbackListeners.archive.table",
    Text(),
    "",
    'Table that keeps deleted rows, so that they can be restored; "" = none: what is deleted is gone.',
)

UNUSED = (
    unused(
        f"{PREFIX}.maxRetries",
        "invalidToken.pg.maxRetries",
        text="Accepted, no effect: deleting is retried for ever.",
    ),
)
