"""Every setting of the gateway: its name, unit, default, bounds and the reason for it.

`Settings` is the whole table; the documentation and `gateway settings` are made from it. A setting `frame_bytes_max` is
read from the environment variable `GATEWAY_FRAME_BYTES_MAX`.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta, Struct

from gateway.errors import StartupError

PREFIX = "GATEWAY_"
MASK = "********"
METRICS_OFF = "off"
"""As GATEWAY_METRICS_HOST; an empty variable is one that was not given."""
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
"""As browsers write it; what they never send could only be a mistake."""


def _meta(meaning: str, *, secret: bool = False, **bounds: Any) -> Meta:
    return Meta(description=meaning, extra={"secret": secret}, **bounds)


class Settings(Struct, frozen=True, kw_only=True):
    """The settings in force. Names end in their unit; times are seconds, sizes are bytes of UTF-8."""

    host: Annotated[str, _meta("address to listen on; the default is reachable from this machine only", min_length=1)] = (
        "127.0.0.1"
    )
    port: Annotated[int, _meta("TCP port to listen on; 0 takes a free one", ge=0, le=65535)] = 8080
    database_url: Annotated[
        str, _meta("PostgreSQL to use, as postgresql://user:password@host:port/name; empty starts an embedded one")
    ] = ""
    data_dir: Annotated[str, _meta("folder of the embedded PostgreSQL, its passwords and its token secret", min_length=1)] = (
        ".data"
    )
    token_secret: Annotated[
        str,
        _meta(
            "key that signs this gateway's tokens (HS256), 32 characters or more; needed with a database URL, "
            "made at first start on the embedded default",
            secret=True,
        ),
    ] = ""
    token_issuer: Annotated[str, _meta("`iss` of the tokens this gateway signs and accepts", min_length=1)] = "crm-gateway"
    token_audience: Annotated[str, _meta("`aud` of the tokens this gateway signs and accepts", min_length=1)] = "crm-gateway"
    token_cache_max: Annotated[
        int, _meta("checked tokens remembered; a check costs some 60 us, an entry some 400 bytes", ge=1, le=10_000_000)
    ] = 50_000
    jwks_file: Annotated[
        str,
        _meta("JWKS file of the keys of other issuers (SECURITY.md), read again on SIGHUP; empty trusts no other issuer"),
    ] = ""
    tls_cert: Annotated[
        str, _meta("PEM file of the certificate and its chain, read again on SIGHUP; empty serves without TLS")
    ] = ""
    tls_key: Annotated[str, _meta("PEM file of the certificate's private key, without a password")] = ""
    session_seconds: Annotated[
        int, _meta("life of a session opened by MngLogin; a working day and a bit", ge=1, le=31_536_000)
    ] = 43_200
    origins: Annotated[
        tuple[str, ...],
        _meta(
            "browser origins let in, separated by commas, compared exactly (https://crm.example.com); "
            "clients that send no Origin always pass"
        ),
    ] = ()

    trusted_proxies: Annotated[
        tuple[str, ...],
        _meta(
            "networks (10.0.0.0/8) of the proxies whose X-Forwarded-For is believed, separated by commas; behind one that is "
            "not listed all clients count as one address"
        ),
    ] = ()

    frame_bytes_max: Annotated[
        int, _meta("largest message taken (close 1009); four times the largest body", ge=1024, le=67_108_864)
    ] = 1_048_576
    title_chars_max: Annotated[int, _meta("longest event title; more is no title", ge=1, le=1_000_000)] = 500
    body_bytes_max: Annotated[int, _meta("largest `ast_json`; some 100 pages of text with its markup", ge=2, le=67_108_864)] = (
        262_144
    )
    body_nesting_max: Annotated[int, _meta("deepest `ast_json`; editors nest lists in lists some 20 deep", ge=1, le=500)] = 64
    participants_max: Annotated[
        int, _meta("most participants of one event; a reply always carries them all", ge=1, le=100_000)
    ] = 500

    connections_max: Annotated[
        int, _meta("most sockets of this process (close 4002); some 20 KiB each", ge=1, le=1_000_000)
    ] = 20_000
    manager_connections_max: Annotated[
        int,
        _meta(
            "most sockets of one manager in this process (close 4002); a client gone wrong leaves a quarter to the others, and "
            "a load test has 10,000 of one; 0: no limit",
            ge=0,
            le=1_000_000,
        ),
    ] = 15_000
    address_connections_max: Annotated[
        int,
        _meta(
            "most sockets of one address in this process (close 4002); an office, or a proxy that is not trusted, is one; "
            "0: no limit",
            ge=0,
            le=1_000_000,
        ),
    ] = 15_000
    manager_commands_per_second_max: Annotated[
        float,
        _meta(
            "commands a second of one manager in this process, then TOO_FREQUENT; 0: no limit, as no number fits both a "
            "person and a program",
            ge=0,
            le=1_000_000,
        ),
    ] = 0.0
    manager_commands_burst_max: Annotated[
        int,
        _meta(
            "commands of one manager at once before that rate acts; a client that starts sends some dozens", ge=1, le=1_000_000
        ),
    ] = 100
    manager_in_flight_max: Annotated[
        int,
        _meta(
            "most commands of one manager under way in this process while other managers send too, the rest wait their turn; "
            "few enough that a flood costs the others milliseconds; 0: no limit",
            ge=0,
            le=1_000_000,
        ),
    ] = 8
    in_flight_max: Annotated[
        int, _meta("most commands of one socket at once; past it the socket is not read", ge=1, le=10_000)
    ] = 64
    unreadable_frames_max: Annotated[
        int, _meta("frames in a row without a readable extID before the socket is closed (4001)", ge=1, le=10_000)
    ] = 10
    handshake_seconds: Annotated[float, _meta("time for the HTTP upgrade; a slow mobile link needs some 3", gt=0, le=600)] = (
        10.0
    )
    authentication_seconds: Annotated[
        float, _meta("time for a socket to prove who it is (close 4500); a person may be typing", gt=0, le=3600)
    ] = 60.0
    message_seconds: Annotated[
        float, _meta("time for a message, once begun, to arrive whole; 1 MiB at 1 Mbit/s takes 8", gt=0, le=3600)
    ] = 15.0
    ping_seconds: Annotated[
        float, _meta("silence after which the gateway pings; proxies commonly cut at 60", gt=0, le=3600)
    ] = 20.0
    pong_timeout_seconds: Annotated[float, _meta("silence after the ping that ends the socket (close 1011)", gt=0, le=3600)] = (
        20.0
    )
    outbox_bytes_max: Annotated[
        int,
        _meta("most bytes waiting for one client to read them (close 4000)", ge=65_536, le=1_073_741_824),
    ] = 8_388_608
    outbox_total_bytes_max: Annotated[
        int,
        _meta(
            "most bytes waiting for all clients together, then those that took nothing for longest are cut (close 4000); four "
            "times what one may have",
            ge=65_536,
            le=1_099_511_627_776,
        ),
    ] = 33_554_432
    outbox_stall_seconds: Annotated[
        float,
        _meta("time a client may take nothing of what waits for it (close 4000); below the pong limit", gt=0, le=3600),
    ] = 10.0
    stream_seconds: Annotated[
        float,
        _meta(
            "time for a client to take a reply of more than 500 events or 4 MiB whole (close 4000); 50 MB at 2 Mbit/s take 200",
            gt=0,
            le=3600,
        ),
    ] = 300.0

    db_connections_max: Annotated[
        int, _meta("most database connections; PostgreSQL's own default is 100 for all", ge=1, le=1000)
    ] = 10
    commands_per_commit_max: Annotated[
        int,
        _meta("writes that wait together and share a statement and its commit; 1 shares nothing", ge=1, le=1000),
    ] = 64
    idempotency_seconds: Annotated[
        int, _meta("how long an `idempotencyKey` is kept at least; the contract says a day", ge=86_400, le=31_536_000)
    ] = 90_000
    streams_max: Annotated[
        int,
        _meta(
            "replies of more than 500 events or 4 MiB at once, one a manager and one a socket, each with a database connection "
            "of its own",
            ge=1,
            le=100,
        ),
    ] = 2
    db_connect_seconds: Annotated[float, _meta("time to open a database connection", gt=0, le=60)] = 2.0
    db_acquire_seconds: Annotated[
        float, _meta("time a command waits for a free database connection, then NO_SERVICE", gt=0, le=60)
    ] = 2.0
    db_statement_seconds: Annotated[
        float,
        _meta("PostgreSQL's statement_timeout; shorter than the command timeout, so that slow is certain", gt=0, le=60),
    ] = 2.0
    db_command_seconds: Annotated[
        float,
        _meta(
            "time the gateway waits for PostgreSQL's answer before the outcome is unknown, and a write for its turn",
            gt=0,
            le=60,
        ),
    ] = 2.5
    db_lock_seconds: Annotated[float, _meta("PostgreSQL's lock_timeout; below the statement timeout", gt=0, le=60)] = 1.0
    db_idle_transaction_seconds: Annotated[
        float, _meta("PostgreSQL's idle_in_transaction_session_timeout; the gateway never idles in one", gt=0, le=60)
    ] = 5.0

    capture_dir: Annotated[str, _meta("folder to record live frames in (docs/harness.md); empty records nothing")] = ""
    capture_text: Annotated[
        Literal["keep", "redact"], _meta("redact: recorded titles and bodies become filler of the same size")
    ] = "keep"
    capture_buffer_bytes_max: Annotated[
        int, _meta("most memory of frames waiting to be recorded; more are dropped, and counted", ge=1024, le=1_073_741_824)
    ] = 16_777_216
    capture_file_bytes_max: Annotated[
        int, _meta("largest recording; some 20 million commands", ge=65_536, le=1_099_511_627_776)
    ] = 10_737_418_240

    metrics_host: Annotated[
        str,
        _meta(
            "address that Prometheus reads /metrics on, without a sign-in; the default is reachable from this machine only, "
            f"`{METRICS_OFF}` serves none",
            min_length=1,
        ),
    ] = "127.0.0.1"
    metrics_port: Annotated[int, _meta("TCP port of /metrics; 0 takes a free one, which the log names", ge=0, le=65535)] = 9464

    password_workers: Annotated[int, _meta("threads that hash passwords, some 50 ms and 64 MiB each", ge=1, le=64)] = 2
    password_queue_max: Annotated[
        int, _meta("sign-ins waiting for such a thread, then NO_SERVICE; 40 wait a second", ge=1, le=10_000)
    ] = 40
    sign_in_failures_max: Annotated[
        int,
        _meta(
            "failed sign-ins of one login from one address, then TOO_FREQUENT there; people mistype 2 or 3 times; 0: no limit",
            ge=0,
            le=1_000_000,
        ),
    ] = 5
    sign_in_address_failures_max: Annotated[
        int,
        _meta("failed sign-ins from one address, whatever the login; an office is behind one; 0: no limit", ge=0, le=1_000_000),
    ] = 50
    sign_in_forget_seconds: Annotated[
        float, _meta("time in which so many failures are forgotten, evenly: 5 leave one guess a minute", gt=0, le=604_800)
    ] = 300.0
    drain_seconds: Annotated[float, _meta("time to stop after SIGTERM; orchestrators commonly kill at 30", gt=0, le=3600)] = (
        20.0
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _meta("least severe lines that are logged")] = "info"
    log_format: Annotated[Literal["auto", "json", "console"], _meta("auto: console on a terminal, JSON elsewhere")] = "auto"
    log_success_ratio: Annotated[
        float, _meta("share of successful commands that are logged, 0 to 1; failures always are", ge=0, le=1)
    ] = 0.01


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
    """The settings from the environment, flags first.

    Raises StartupError that names every wrong setting, its value and what would be right.
    """
    given = {name: environ[PREFIX + name.upper()] for name in HINTS if environ.get(PREFIX + name.upper(), "") != ""}
    given |= {name: str(value) for name, value in (flags or {}).items() if value is not None}
    values: dict[str, Any] = {}
    faults = []
    for name, text in given.items():
        try:
            values[name] = _parsed(name, text)
        except msgspec.ValidationError:
            shown = MASK if _meta_of(name).extra["secret"] else repr(text)  # type: ignore[index]
            faults.append(f"{PREFIX}{name.upper()} is {shown}: it must be {right(name)}")
    settings = Settings(**values)
    faults += _contradictions(settings)
    if faults:
        raise StartupError("\n".join(faults))
    return settings


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each GATEWAY_* variable that is no setting: a misspelt limit must not be silently ignored."""
    known = [PREFIX + name.upper() for name in HINTS]
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known and variable not in CLIENT_VARIABLES:
            near = difflib.get_close_matches(variable, known, n=1)
            yield f"{variable} is no setting" + (f"; did you mean {near[0]}?" if near else "")


CLIENT_VARIABLES = {
    "GATEWAY_URL": "address of the gateway that they talk to",
    "GATEWAY_TOKEN": "token that they show; without it `gateway load` and `gateway replay` sign some themselves",
    "GATEWAY_CA_FILE": "PEM file of the certificates that they trust for wss://",
}
"""Read by the command line's own options, not by the server."""


def entries(settings: Settings, environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> list[Entry]:
    """Every setting with its value in force and where that came from."""
    return [
        Entry(
            variable=PREFIX + name.upper(),
            value=_shown(name, getattr(settings, name)),
            right=right(name),
            unit=unit(name),
            meaning=_meta_of(name).description or "",
            source=_source(name, environ, flags or {}),
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


def _contradictions(settings: Settings) -> Iterator[str]:
    """Settings that are right alone and wrong together."""
    if settings.token_secret and len(settings.token_secret) < 32:
        yield f"{PREFIX}TOKEN_SECRET is {len(settings.token_secret)} characters long: it must be 32 or more"
    if bool(settings.tls_cert) != bool(settings.tls_key):
        given, missing = ("TLS_CERT", "TLS_KEY") if settings.tls_cert else ("TLS_KEY", "TLS_CERT")
        yield f"{PREFIX}{given} is set without {PREFIX}{missing}: TLS needs both, plain connections neither"
    if settings.database_url and not _is_postgresql_url(settings.database_url):
        yield f"{PREFIX}DATABASE_URL must be like postgresql://user:password@host:5432/name"
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
        yield f"{PREFIX}METRICS_PORT is {settings.metrics_port}: it must be another than {PREFIX}PORT"
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
        parts = urlsplit(str(value))
        if parts.password:
            host = parts.netloc.rpartition("@")[2]
            return urlunsplit(parts._replace(netloc=f"{parts.username}:{MASK}@{host}", query=""))
        return urlunsplit(parts._replace(query=""))
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _source(name: str, environ: Mapping[str, str], flags: Mapping[str, object]) -> str:
    if flags.get(name) is not None:
        return "flag"
    return "environment" if environ.get(PREFIX + name.upper(), "") != "" else "default"


def _kind_of(name: str) -> Any:
    return typing.get_args(HINTS[name])[0]


def _meta_of(name: str) -> Meta:
    meta = typing.get_args(HINTS[name])[1]
    assert isinstance(meta, Meta)
    return meta
