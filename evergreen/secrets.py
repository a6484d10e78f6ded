"""Credentials: they come from the environment alone, and are kept out of every text that is shown or stored."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from evergreen.errors import WrongUse

HIDDEN = "***"
_SECRET = re.compile(r"(?i)(key|secret|token|passw|credential|authorization|connection_string|sas)")
_SIGNED = re.compile(
    r"(?i)^(x-(amz|goog)-(signature|credential|security-token)|sig|signature|.*token|.*secret|.*password|api_?key|access_?key)$"
)
SHORTEST = 6  # characters; what is shorter would hide ordinary words


def without_secrets(text: str) -> str:
    """A text in which the values of environment variables with names like AWS_SECRET_ACCESS_KEY, and the credentials of
    addresses, are replaced."""
    values = [value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= SHORTEST]
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = re.sub(r"(?<=://)[^/@\s]+(?=@)", HIDDEN, text)
    return re.sub(
        r"([?&][^=&\s]*(?:signature|credential|token|secret|password|key|sig)=)[^&\s]+",
        rf"\1{HIDDEN}",
        text,
        flags=re.IGNORECASE,
    )


def has_credentials(address: str) -> bool:
    """True if an address holds a user's name, a password or a signature."""
    parts = urlsplit(address)
    signed = any(_SIGNED.match(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return parts.username is not None or parts.password is not None or signed


def shown(address: str) -> str:
    """An address without its query and credentials, for people."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def from_environment(variable: str) -> str:
    """The credentials in an environment variable.

    Raises:
        WrongUse: it is not set.
    """
    value = os.environ.get(variable, "")
    if not value:
        raise WrongUse(
            f"the environment variable {variable} is not set", expected="the credentials for the source",
            fix=f"Set it where evergreen runs: export {variable}=…",
        )  # fmt: skip
    return value
