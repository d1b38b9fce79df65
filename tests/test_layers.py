"""The layers of HOUSE.md: imports point down, never up, and never in a circle."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import gateway

ROOT = Path(gateway.__file__).parent

LAYERS = {
    0: ("errors", "settings", "environment", "log", "metrics", "__init__"),
    1: (
        "database",
        "database_pool",
        "database_errors",
        "group_commit",
        "turns",
        "fair_queue",
        "grants",
        "schema",
        "schema_steps",
        "embedded",
        "server_user",
        "fields",
        "faults",
        "wire",
        "event",
        "passwords",
        "issuer_keys",
        "tokens",
        "tls",
        "key_files",
        "redaction",
        "capture",
        "capture_file",
        "addresses",
        "rate",
        "sign_in_throttle",
        "command_rate",
        "fair_share",
        "workers",
    ),
    2: ("access", "identity", "sessions", "managers", "calendar_store", "context"),
    3: ("commands",),
    4: ("dispatch", "execution"),
    5: (
        "frames",
        "server_socket",
        "watched_socket",
        "closes",
        "tls_socket",
        "backlog",
        "handshake",
        "readiness",
        "metrics_page",
        "outbox",
        "connection",
        "sweeper",
        "session_watch",
        "seats",
        "drain",
    ),
    6: ("server", "composition", "backend", "harness"),
    7: ("cli", "__main__", "docs", "protocol_words"),
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in ROOT.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """The gateway's own modules that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            base = node.module or ""
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names}
    return {name for name in found if name.partition(".")[0] == "gateway"}


def layer_of(module: str) -> int:
    return LAYER_OF[module.split(".")[1] if "." in module else "__init__"]


def test_every_module_has_a_layer():
    """A new file must say where it belongs, and one that is gone is in no list."""
    names = {module.split(".")[1] if "." in module else "__init__" for module in MODULES}
    assert set(LAYER_OF) == names


def test_map_of_the_readme_shows_every_layer_whole():
    """A newcomer finds each file there, in its layer."""
    readme = (ROOT.parent / "README.md").read_text()
    lines = re.findall(r"^\| (\d) [^|]*\|(.*)\|$", readme, re.MULTILINE)
    shown = {int(layer): set(re.findall(r"`(\w+)(?:\.py|/(?:\w+\.py)?)`", files)) for layer, files in lines}
    assert {layer: {name for name in names if not name.startswith("__")} for layer, names in LAYERS.items()} == shown


def test_imports_point_down():
    """No module imports one of a higher layer."""
    up = [(m, i) for m, path in MODULES.items() for i in imports_of(path) if layer_of(i) > layer_of(m)]
    assert [] == up


def test_imports_have_no_circle():
    """Modules can be read in an order in which each needs only those before it."""
    graph = {module: imports_of(path) - {module, "gateway"} for module, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_the_calendars_sql_is_in_the_store_alone():
    """No other file of the gateway names a calendar table in SQL."""
    elsewhere = [
        module
        for module, path in MODULES.items()
        if "calendar_store" not in module
        and any(f"{verb} calendar_" in path.read_text() for verb in ("FROM", "INTO", "UPDATE"))
    ]
    assert [] == elsewhere
