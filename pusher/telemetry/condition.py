"""What an app's service says about its links and credentials, for whoever watches the process."""

from __future__ import annotations

from typing import NamedTuple


class Condition(NamedTuple):
    """The state of this moment. None where the provider has no such thing."""

    #: Open connections that take pushes.
    links: int
    #: The provider refuses the credentials.
    refused: bool
    #: Age of the token that the process itself signs.
    token_age_s: float | None = None
    #: Unix time at which the client certificate ends.
    certificate_ends_s: float | None = None
