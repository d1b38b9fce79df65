"""Every setting of the gateway: its name, unit, default, bounds and the reason for it.

`Settings` is the whole table; the documentation and `gateway settings` are made from it. environment.py reads it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

METRICS_OFF = "off"
"""As GATEWAY_METRICS_HOST; an empty variable is one that was not given."""

SESSION_SECONDS_MAX = 31_536_000
"""A year: a token that lives longer is one that nobody remembers."""


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
        int, _meta("life of a session opened by MngLogin; a working day and a bit", ge=1, le=SESSION_SECONDS_MAX)
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
        _meta("writes, or reads of single events, that wait together and share a statement; 1 shares nothing", ge=1, le=1000),
    ] = 64
    idempotency_seconds: Annotated[
        int, _meta("how long an `idempotencyKey` is kept at least; a day is promised", ge=86_400, le=31_536_000)
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
    db_lock_seconds: Annotated[
        float,
        _meta(
            "time a change tries an event that others have locked; PostgreSQL's lock_timeout of what waits alone",
            gt=0,
            le=60,
        ),
    ] = 1.0
    db_idle_transaction_seconds: Annotated[
        float,
        _meta("PostgreSQL's idle_in_transaction_session_timeout; streams, which wait for their reader, have more", gt=0, le=60),
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
        float, _meta("share of successful commands that are logged, 0 to 1; failures of managers always are", ge=0, le=1)
    ] = 0.01
