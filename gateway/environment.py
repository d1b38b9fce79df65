"""Reads the settings from the environment, says what is wrong with them, and shows those in force.

A setting `frame_bytes_max` is read from the environment variable `GATEWAY_FRAME_BYTES_MAX`.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from gateway.errors import StartupError
from gateway.settings import Settings

PREFIX = "GATEWAY_"
MASK = "********"
SECRET_CHARS_MIN = 32
"""As many bytes as an HS256 signature has: a shorter key would be easier to guess than the signature."""
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
"""As browsers write it; what they never send could only be a mistake."""

_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(:[0-9]*)?")
"""Of a database: a name or an address, and a port."""


class Entry(NamedTuple):
    """One setting as `gateway settings` and the documentation show it; `value` is masked where it is secret."""

    variable: str
    value: str
    right: str
    unit: str
    meaning: str
    source: str


HINTS: dict[str, Any] = typing.get_type_hints(Settings, include_extras=True)
UNITS = {"seconds": "seconds", "bytes": "bytes", "chars": "characters", "ratio": "ratio"}


def load(environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> Settings:
    """The settings from the environment, flags first: the value of --log-level under `log_level`, None where it is not given.

    Raises StartupError that names every wrong setting as it was given, its value and what would be right.
    """
    options = {name: "--" + name.replace("_", "-") for name, value in (flags or {}).items() if value is not None}
    names = {name: PREFIX + name.upper() for name in HINTS} | options
    given = {name: environ[PREFIX + name.upper()] for name in HINTS if environ.get(PREFIX + name.upper(), "") != ""}
    given |= {name: str(value) for name, value in (flags or {}).items() if value is not None}
    values: dict[str, Any] = {}
    faults = []
    for name, text in given.items():
        try:
            values[name] = _parsed(name, text)
        except msgspec.ValidationError:
            shown = MASK if _meta_of(name).extra["secret"] else repr(text)  # type: ignore[index]
            faults.append(f"{names[name]} is {shown}: it must be {right(name)}")
    settings = Settings(**values)
    faults += _contradictions(settings, names)
    if faults:
        raise StartupError("\n".join(faults))
    return settings


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each GATEWAY_* variable that is no setting: a misspelt limit must not be silently ignored."""
    known = [name.upper() for name in HINTS]
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in known and variable not in CLIENT_VARIABLES:
            near = difflib.get_close_matches(name, known, n=1)
            yield f"{variable} is no setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "")


CLIENT_VARIABLES = {
    "GATEWAY_URL": "address of the gateway that they talk to",
    "GATEWAY_TOKEN": "token that they show; without it `gateway load` and `gateway replay` sign some themselves",
    "GATEWAY_CA_FILE": "PEM file of the certificates that they trust for wss://",
}
"""Read by the command line's own options, not by the server."""


def entries(settings: Settings, environ: Mapping[str, str]) -> list[Entry]:
    """Every setting with its value in force and where that came from."""
    return [
        Entry(
            variable=PREFIX + name.upper(),
            value=_shown(name, getattr(settings, name)),
            right=right(name),
            unit=unit(name),
            meaning=_meta_of(name).description or "",
            source="environment" if environ.get(PREFIX + name.upper(), "") != "" else "default",
        )
        for name in HINTS
    ]


def right(name: str) -> str:
    """What a value of this setting must look like, in words."""
    kind, meta = _kind_of(name), _meta_of(name)
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    if meta.le is not None:
        low = f"from {meta.ge:g}" if meta.gt is None else f"above {meta.gt:g},"
        return f"a {'whole ' if kind is int else ''}number {low} to {meta.le:.15g}"
    if typing.get_origin(kind) is tuple:
        return "a list separated by commas"
    return "text" if meta.min_length is None else "text, not empty"


def unit(name: str) -> str:
    """The unit, which the name ends in (before `_max`)."""
    words = name.removesuffix("_max").split("_")
    return UNITS.get(words[-1], "count" if name.endswith("_max") else "")


def _parsed(name: str, text: str) -> Any:
    raw: Any = text
    if typing.get_origin(_kind_of(name)) is tuple:
        raw = [item.strip() for item in text.split(",") if item.strip()]
    value = msgspec.convert(raw, HINTS[name], strict=False)
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN passes every bound
        raise msgspec.ValidationError("NaN")
    return value


def _contradictions(settings: Settings, names: Mapping[str, str]) -> Iterator[str]:
    """Settings that are right alone and wrong together, by the names that they were given under."""
    if settings.token_secret and len(settings.token_secret) < SECRET_CHARS_MIN:
        yield f"{PREFIX}TOKEN_SECRET is {len(settings.token_secret)} characters long: it must be {SECRET_CHARS_MIN} or more"
    if bool(settings.tls_cert) != bool(settings.tls_key):
        given, missing = ("TLS_CERT", "TLS_KEY") if settings.tls_cert else ("TLS_KEY", "TLS_CERT")
        yield f"{PREFIX}{given} is set without {PREFIX}{missing}: TLS needs both, plain connections neither"
    if settings.database_url and not _is_postgresql_url(settings.database_url):
        yield f"{names['database_url']} must be like postgresql://user:password@host:5432/name"
    for smaller, larger in (
        ("db_statement_seconds", "db_command_seconds"),
        ("db_lock_seconds", "db_statement_seconds"),
        ("outbox_stall_seconds", "pong_timeout_seconds"),
        ("body_bytes_max", "frame_bytes_max"),
        ("outbox_bytes_max", "outbox_total_bytes_max"),
    ):
        low, high = getattr(settings, smaller), getattr(settings, larger)
        if low >= high:
            yield f"{PREFIX}{smaller.upper()} is {low}: it must be below {PREFIX}{larger.upper()}, which is {high}"
    if settings.metrics_port == settings.port != 0 and settings.metrics_host == settings.host:
        yield f"{PREFIX}METRICS_PORT is {settings.metrics_port}: it must be another than {names['port']}"
    yield from _bad_items(settings)


def _bad_items(settings: Settings) -> Iterator[str]:
    """Items of lists that are not what the list is of."""
    for origin in settings.origins:
        if not _ORIGIN.fullmatch(origin):
            yield f"{PREFIX}ORIGINS has {origin!r}: an origin is like https://crm.example.com, in lower case and with no path"
    for network in settings.trusted_proxies:
        if not _is_network(network):
            yield f"{PREFIX}TRUSTED_PROXIES has {network!r}: a network is like 10.0.0.0/8 or 2001:db8::/32"


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:  # also where bits behind the mask are set: nobody can say what was meant
        return False
    return True


def _is_postgresql_url(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("postgresql", "postgres")
    except ValueError:  # brackets that hold no address
        return False


def _shown(name: str, value: object) -> str:
    if _meta_of(name).extra["secret"]:  # type: ignore[index]
        return MASK if value else ""
    if name == "database_url" and value:
        return _without_password(str(value))
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _without_password(url: str) -> str:
    """The database's address as far as it is certain that nothing in it belongs to the password.

    Of a password that holds /, # or ? unencoded, `urlsplit` takes a part for port, path, query or fragment.
    """
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    behind = parts.path + parts.query + parts.fragment
    if "@" in behind or not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        return f"{parts.scheme}://{MASK}"
    netloc = f"{parts.username}:{MASK}@{hosts}" if parts.password else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, query="", fragment=""))


def _kind_of(name: str) -> Any:
    return typing.get_args(HINTS[name])[0]


def _meta_of(name: str) -> Meta:
    meta = typing.get_args(HINTS[name])[1]
    assert isinstance(meta, Meta)
    return meta
