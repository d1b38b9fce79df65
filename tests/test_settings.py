"""Settings: where values come from, what each fault is told as, and what is never shown."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from gateway.cli.serve import serve
from gateway.environment import CLIENT_VARIABLES, HINTS, MASK, entries, load, right, unit, unknown_variables
from gateway.errors import StartupError
from gateway.settings import Settings

SECRET = "s" * 32


def faults(**environ: str) -> list[str]:
    """What is told of these variables, one fault a line."""
    with pytest.raises(StartupError) as caught:
        load({f"GATEWAY_{name.upper()}": value for name, value in environ.items()})
    return str(caught.value).splitlines()


def test_settings_have_defaults() -> None:
    """An empty environment is the defaults, and so is one of empty values."""
    assert Settings() == load({})
    assert Settings() == load(dict.fromkeys((f"GATEWAY_{name.upper()}" for name in HINTS), ""))


def test_settings_are_read_from_the_environment() -> None:
    """Numbers, texts and lists; names of other programs are left alone."""
    environ = {
        "GATEWAY_PORT": "0",
        "GATEWAY_PING_SECONDS": "2.5",
        "GATEWAY_ORIGINS": " https://a.example , http://[::1]:8080,,",
        "GATEWAY_LOG_LEVEL": "debug",
        "PORT": "1",
    }
    changed = {"port": 0, "ping_seconds": 2.5, "origins": ("https://a.example", "http://[::1]:8080"), "log_level": "debug"}
    assert msgspec.structs.replace(Settings(), **changed) == load(environ)


def test_settings_take_flags_before_the_environment() -> None:
    """A flag wins, is checked the same way, and is nothing where it was not given."""
    environ = {"GATEWAY_PORT": "1", "GATEWAY_HOST": "h"}
    settings = load(environ, {"port": 2, "host": None})
    assert (2, "h") == (settings.port, settings.host)
    assert 2 == load({"GATEWAY_PORT": "wrong"}, {"port": 2}).port


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("port", 70000, "--port is '70000': it must be a whole number from 0 to 65535"),
        ("host", "", "--host is '': it must be text, not empty"),
        ("data_dir", "", "--data-dir is '': it must be text, not empty"),
        ("log_level", "loud", "--log-level is 'loud': it must be one of debug, info, warning, error"),
        ("database_url", "localhost", "--database-url must be like postgresql://user:password@host:5432/name"),
        ("port", 9464, "GATEWAY_METRICS_PORT is 9464: it must be another than --port"),
    ],
)
def test_setting_that_a_flag_gets_wrong_is_told_by_the_flag(name: str, value: object, told: str) -> None:
    """Whoever reads it looks at what was typed: the variable may be right, or not there. `serve` has that very option."""
    with pytest.raises(StartupError) as caught:
        load({"GATEWAY_LOG_LEVEL": "info"}, {name: value})
    assert told == str(caught.value)
    assert "--" + name.replace("_", "-") in [option.opts[0] for option in serve.params if option.name == name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("port", text) for text in ("x", "-1", "65536", "80.5", " 80", "8_0", "0x50", "9" * 5000, "true")),
        *(("ping_seconds", text) for text in ("0", "-1", "nan", "inf", "-inf", "3601", "1s", "1,5")),
        *(("log_success_ratio", text) for text in ("-0.1", "1.01", "nan", "half")),
        *(("log_level", text) for text in ("INFO", "trace", "20")),
        ("log_format", "xml"),
        ("password_workers", "0"),
        ("frame_bytes_max", "1MB"),
    ],
)
def test_setting_that_is_wrong_is_told_with_its_value_and_what_is_right(name: str, value: str) -> None:
    """The message names variable, value and what would be right."""
    assert [f"GATEWAY_{name.upper()} is {value!r}: it must be {right(name)}"] == faults(**{name: value})


def test_settings_say_what_is_right_in_words() -> None:
    """Bounds, choices, lists and texts."""
    assert "a whole number from 0 to 65535" == right("port")
    assert "a number above 0, to 3600" == right("ping_seconds")
    assert "a number from 0 to 1" == right("log_success_ratio")
    assert "one of debug, info, warning, error" == right("log_level")
    assert "a list separated by commas" == right("origins")
    assert "text, not empty" == right("host")


def test_settings_bounds_are_all_kept() -> None:
    """Every number is refused just past each of its bounds."""
    told = {}
    for name, hint in HINTS.items():
        meta: Any = hint.__metadata__[0]
        for bound, step in ((meta.gt, 0), (meta.ge, -1), (meta.le, 1)):
            if bound is None:
                continue
            value = bound + step
            told[name, value] = faults(**{name: str(value)})[0].startswith(f"GATEWAY_{name.upper()} is '{value}': ")
    assert len(told) > 40
    assert dict.fromkeys(told, True) == told


@pytest.mark.parametrize(("given", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_settings_of_tls_are_two_or_none(given: str, missing: str) -> None:
    """One file without the other is told by both names."""
    (line,) = faults(**{given: "file.pem"})
    assert line.startswith(f"GATEWAY_{given.upper()} is set without GATEWAY_{missing.upper()}")


def test_settings_faults_are_told_together() -> None:
    """Several faults make one message, a line each."""
    told = faults(port="x", log_level="loud", token_secret="short", origins="crm.example.com")
    assert ["GATEWAY_PORT", "GATEWAY_LOG_LEVEL", "GATEWAY_TOKEN_SECRET", "GATEWAY_ORIGINS"] == [
        line.split()[0] for line in told
    ]


@pytest.mark.parametrize(
    ("smaller", "larger", "given"),
    [
        ("db_statement_seconds", "db_command_seconds", {"db_statement_seconds": "4"}),
        ("db_statement_seconds", "db_command_seconds", {"db_command_seconds": "2"}),
        ("db_lock_seconds", "db_statement_seconds", {"db_lock_seconds": "3"}),
        ("outbox_stall_seconds", "pong_timeout_seconds", {"outbox_stall_seconds": "20"}),
        ("body_bytes_max", "frame_bytes_max", {"frame_bytes_max": "1024"}),
        ("outbox_bytes_max", "outbox_total_bytes_max", {"outbox_total_bytes_max": "1048576"}),
    ],
)
def test_settings_that_contradict_each_other_are_told(smaller: str, larger: str, given: dict[str, str]) -> None:
    """Both names and both values are told."""
    values: dict[str, Any] = {name: float(value) if "." in value else int(value) for name, value in given.items()}
    both = Settings(**values)
    low, high = getattr(both, smaller), getattr(both, larger)
    (line,) = faults(**given)
    found = re.findall(r"GATEWAY_\w+|[0-9.]+[0-9]|[0-9]+", line)
    assert [f"GATEWAY_{smaller.upper()}", f"GATEWAY_{larger.upper()}"] == [word for word in found if word.startswith("G")]
    assert [float(low), float(high)] == [float(word) for word in found if not word.startswith("G")]


@pytest.mark.parametrize(
    "origin",
    [
        "crm.example.com",
        "https://crm.example.com/",
        "https://crm.example.com/path",
        "https://crm.example.com?x",
        "https://CRM.example.com",
        "HTTPS://crm.example.com",
        "https://*.example.com",
        "https://me@crm.example.com",
        "https://[::1",
        "https://",
        "*",
        "null",
    ],
)
def test_setting_origins_takes_only_what_browsers_send(origin: str) -> None:
    """An origin that no browser would send is told, with an example: it could only be a mistake."""
    (line,) = faults(origins=f"https://good.example,{origin}")
    assert line.startswith(f"GATEWAY_ORIGINS has {origin!r}: an origin is like https://crm.example.com")


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "proxy.example.com", "::1/129", "*"])
def test_setting_trusted_proxies_takes_only_networks(network: str) -> None:
    """A network that is none, or that could mean two, is told: whose word is believed must not be guessed."""
    assert ("10.0.0.0/8", "::1") == load({"GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8, ::1"}).trusted_proxies
    (line,) = faults(trusted_proxies=f"10.0.0.0/8,{network}")
    assert line.startswith(f"GATEWAY_TRUSTED_PROXIES has {network!r}: a network is like 10.0.0.0/8")


@pytest.mark.parametrize("url", ["localhost", "mysql://u:hidden@h/x", "postgresql//u:hidden@h/x", "postgresql://u:hidden@[h/x"])
def test_setting_database_url_is_told_without_its_value(url: str) -> None:
    """A database URL that is none is refused with the right form; its own text may hold a password."""
    assert ["GATEWAY_DATABASE_URL must be like postgresql://user:password@host:5432/name"] == faults(database_url=url)


def test_setting_token_secret_is_never_shown() -> None:
    """A secret that is too short is refused by its length; a good one is masked, and an absent one is empty."""
    assert ["GATEWAY_TOKEN_SECRET is 5 characters long: it must be 32 or more"] == faults(token_secret="short")
    environ = {"GATEWAY_TOKEN_SECRET": SECRET}
    shown = {entry.variable: entry.value for entry in entries(load(environ), environ)}
    assert MASK == shown["GATEWAY_TOKEN_SECRET"]
    assert SECRET not in str(shown)
    assert "" == entries(Settings(), {})[list(HINTS).index("token_secret")].value


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hidden@h:5432/x", f"postgresql://u:{MASK}@h:5432/x"),
        ("postgresql://u:hid@den@h/x", f"postgresql://u:{MASK}@h/x"),
        ("postgresql://u@h/x?password=hidden", "postgresql://u@h/x"),
        ("postgresql://u@h/x", "postgresql://u@h/x"),
        ("postgres://u:hidden@a:1,b:2/x", f"postgres://u:{MASK}@a:1,b:2/x"),
        ("postgresql://u:hidden@[::1]:5432/x", f"postgresql://u:{MASK}@[::1]:5432/x"),
        ("postgresql://u:hid/den@h:5432/x", f"postgresql://{MASK}"),
        ("postgresql://u:hid#den@h:5432/x", f"postgresql://{MASK}"),
        ("postgresql://u:hid?den@h:5432/x", f"postgresql://{MASK}"),
        ("postgresql://u:7/hid@den@h/x", f"postgresql://{MASK}"),
        ("postgresql://u:a@hid/den@h/x", f"postgresql://{MASK}"),
        ("postgresql://u:hidden", f"postgresql://{MASK}"),
    ],
)
def test_setting_database_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """`gateway settings` shows where the database is, and no password, wherever it stands."""
    assert shown == entries(load({"GATEWAY_DATABASE_URL": url}), {})[list(HINTS).index("database_url")].value


def test_settings_tell_their_source() -> None:
    """Environment or default, which an empty variable leaves in force."""
    environ = {"GATEWAY_PORT": "1", "GATEWAY_HOST": "127.0.0.1", "GATEWAY_DATA_DIR": ""}
    sources = {entry.variable: entry.source for entry in entries(load(environ), environ)}
    told = {name: source for name, source in sources.items() if source != "default"}
    assert {"GATEWAY_PORT": "environment", "GATEWAY_HOST": "environment"} == told
    assert len(HINTS) == len(sources)


def test_variables_that_are_no_settings_are_told_with_the_nearest_name() -> None:
    """A misspelt setting is named with what was meant; the client's variables and other programs' are known."""
    environ = {"GATEWAY_FOO": "1", "GATEWAY_PROT": "1", "GATEWAY_XYZZY_QUUX": "1", "GATEWAY_PORT": "1", "PROT": "1"}
    told = list(unknown_variables({**environ, **dict.fromkeys(CLIENT_VARIABLES, "x")}))
    assert [
        "GATEWAY_FOO is no setting",
        "GATEWAY_PROT is no setting; did you mean GATEWAY_PORT?",
        "GATEWAY_XYZZY_QUUX is no setting",
    ] == told


def test_settings_all_have_a_reason_and_a_unit_in_their_name() -> None:
    """Every setting says what it is for; every number's name ends in its unit, but for the three that count themselves."""
    told = {entry.variable: entry for entry in entries(Settings(), {})}
    assert [] == [name for name, entry in told.items() if len(entry.meaning.split()) < 4]
    numbers = [field.name for field in msgspec.structs.fields(Settings) if isinstance(field.default, int | float)]
    assert ["port", "metrics_port", "password_workers"] == [name for name in numbers if not unit(name)]
    assert ["seconds", "bytes", "characters", "ratio", "count"] == [
        unit(name) for name in ("ping_seconds", "frame_bytes_max", "title_chars_max", "log_success_ratio", "in_flight_max")
    ]
