"""What is shipped for operators (compose.yaml, deploy/) names only metrics, labels, settings and files that exist."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.commands.table import COMMANDS
from gateway.docs import library_metrics
from gateway.environment import HINTS, PREFIX
from gateway.errors import CloseCode
from gateway.metrics import Metrics
from gateway.settings import Settings
from tests.certificates import Authority

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/gateway.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
RULES = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
OF_PROMETHEUS = ("up",)
TARGET_LABELS = {"job", "instance"}


def series() -> dict[str, set[str]]:
    """Every series that a scrape can give, with its labels."""
    known = dict.fromkeys((*OF_PROMETHEUS, *(metric.name for metric in library_metrics())), TARGET_LABELS)
    for metric in Metrics().described:
        labels = {*metric.labels, *TARGET_LABELS}
        if metric.kind == "histogram":
            known |= {f"{metric.name}_bucket": {*labels, "le"}, f"{metric.name}_sum": labels, f"{metric.name}_count": labels}
        else:
            known[metric.name] = labels
    return known


SERIES = series()
NAME = re.compile(r"\b(?:gateway|process|python)_\w+|\bup\b")
SELECTED = re.compile(r"((?:gateway|process|python)_\w+|\bup\b)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def panel_expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])


EXPRESSIONS = [*panel_expressions(), *(rule["expr"] for rule in RULES)]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_name_metrics_and_labels_that_exist(expression):
    """Of the dashboard and the alert rules: each series is scraped, each label is one of its own."""
    assert NAME.search(expression)
    for name, selector in SELECTED.findall(expression):
        labels = dict(MATCHER.findall(selector))
        assert name in SERIES
        assert set() == set(labels) - SERIES[name]
        assert labels.get("command", "MngLogin") in COMMANDS
        assert labels.get("code", "4000") in {str(code.value) for code in CloseCode}
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    assert set() == grouped - set().union(*(SERIES[name] for name, _ in SELECTED.findall(expression)))


def test_dashboard_shows_every_metric_of_the_gateway():
    """A metric without a panel is one that nobody sees."""
    shown = " ".join(panel_expressions())
    assert [] == [metric.name for metric in Metrics().described if metric.name not in shown]


def test_dashboard_panels_do_not_overlap_and_use_the_chosen_source():
    """Each has its place, a title and the dashboard's data source."""
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(places) == len(DASHBOARD["panels"]) == len({panel["title"] for panel in DASHBOARD["panels"]})
    assert {"${datasource}"} == {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}


def test_alerts_say_what_to_do_and_are_documented():
    """Each has a waiting time or a window, a severity, a summary, a description, and a line in the docs."""
    page = (ROOT / "docs/observability.md").read_text()
    assert [] == [rule["alert"] for rule in RULES if f"| `{rule['alert']}` |" not in page]
    assert len(RULES) == page.count("| `Gateway")
    assert [] == [rule["alert"] for rule in RULES if not ("for" in rule or "[15m]" in rule["expr"])]
    assert [] == [rule["alert"] for rule in RULES if {"summary", "description"} != set(rule["annotations"])]
    assert {"page"} == {rule["labels"]["severity"] for rule in RULES}


def environment_of(service: str) -> dict[str, str]:
    given: dict[str, str] = SERVICES[service].get("environment", {})
    return given


def test_compose_sets_only_settings_that_exist():
    """A misspelt GATEWAY_* variable would be a warning in a log that nobody reads."""
    known = {PREFIX + name.upper() for name in HINTS}
    for service in ("gateway", "schema"):
        assert set() == {name for name in environment_of(service) if name.startswith(PREFIX)} - known


def test_compose_has_no_password_of_its_own():
    """Every secret comes from .env, is refused when empty, and .env.example gives none."""
    text = (ROOT / "compose.yaml").read_text()
    asked = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    assert [] == [name for name, rest in asked if not rest.startswith(":?")]
    secrets = [value for name in SERVICES for key, value in environment_of(name).items() if re.search("PASSWORD|SECRET", key)]
    assert [] == [value for value in secrets if not value.startswith("${")]
    example = dict(line.split("=") for line in (ROOT / ".env.example").read_text().splitlines() if not line.startswith("#"))
    assert dict.fromkeys({name for name, _ in asked}, "") == example
    assert "/.env\n" in (ROOT / ".gitignore").read_text()
    assert ".env\n" in (ROOT / ".dockerignore").read_text()


def test_compose_opens_ports_to_this_machine_alone():
    """Nothing is published to other machines, and the database to none."""
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert {"gateway", "prometheus", "grafana"} == set(ports)
    assert [] == [port for some in ports.values() for port in some if not port.startswith("127.0.0.1:")]
    assert f"127.0.0.1:{Settings().port}:{Settings().port}" in ports["gateway"]


def mounted(service: str) -> dict[str, str]:
    """Where files of the repository are inside the container."""
    parts = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {inside: outside for outside, inside, *_ in parts if outside.startswith("./")}


def test_compose_mounts_files_that_exist_where_their_users_look():
    """The rules where prometheus.yml says, the dashboards where their provider says."""
    every: list[str] = [path for service in ("prometheus", "grafana") for path in mounted(service).values()]
    assert [] == [path for path in every if not (ROOT / path).exists()]
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert set(prometheus["rule_files"]) <= set(mounted("prometheus"))
    (root,) = mounted("grafana")
    provider = yaml.safe_load((DEPLOY / "grafana/dashboards/provider.yaml").read_text())["providers"][0]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    for inside in (provider["options"]["path"], home):
        assert (DEPLOY / "grafana" / Path(inside).relative_to(root)).exists()


def test_compose_services_find_each_other():
    """Prometheus scrapes the gateway's own metrics port, and Grafana asks Prometheus under the dashboard's source."""
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert ("gateway", [f"gateway:{Settings().metrics_port}"]) == (job["job_name"], job["static_configs"][0]["targets"])
    (source,) = yaml.safe_load((DEPLOY / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    assert "http://prometheus:9090" == source["url"]
    default = next(variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "datasource")
    assert source["uid"] == default["current"]["value"]


def test_compose_services_have_health_checks_and_start_in_order():
    """Each long-lived one, the gateway by its image; the schema is applied between the database and the gateway."""

    def awaited(service: str) -> Any:
        return {name: what["condition"] for name, what in SERVICES[service]["depends_on"].items()}

    unchecked = {name for name, service in SERVICES.items() if "test" not in service.get("healthcheck", {})}
    assert {"gateway", "schema"} == unchecked
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    assert {"postgres": "service_healthy"} == awaited("schema")
    assert {"schema": "service_completed_successfully"} == awaited("gateway")
    assert int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s")) > Settings().drain_seconds
    assert SERVICES["gateway"]["ulimits"]["nofile"] > Settings().connections_max


async def is_healthy(**variables: object) -> bool:
    """What the image's own check says with these environment variables."""
    command = re.search(r'HEALTHCHECK .* CMD \["python", "/([^"]+)"\]', (ROOT / "Dockerfile").read_text())
    assert command
    assert f"COPY deploy/{command[1]} /\n" in (ROOT / "Dockerfile").read_text()
    environment = {f"GATEWAY_{name.upper()}": str(value) for name, value in variables.items()}
    check = await asyncio.create_subprocess_exec(
        sys.executable, DEPLOY / command[1], env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await check.wait() == 0


async def test_image_is_healthy_wherever_the_gateway_listens(start: Any, tmp_path: Path) -> None:
    """By TLS and without, on all addresses and on one; not where nobody answers, or not as the settings say."""
    plain, single = await start(host="0.0.0.0"), await start(host="127.0.0.3")
    files = Authority(tmp_path).write().settings
    secured = await start(**files)
    assert await is_healthy(host="0.0.0.0", port=plain.port)
    assert await is_healthy(host="127.0.0.3", port=single.port)
    assert await is_healthy(port=secured.port, tls_cert=files["tls_cert"], host="")
    assert not await is_healthy(port=secured.port)
    assert not await is_healthy(port=single.port)
    assert "!deploy/health_check.py\n" in (ROOT / ".dockerignore").read_text()
