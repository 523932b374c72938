"""What the dashboard and the alerts ask of Prometheus is there to be asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from litellm_parallel_limits.metrics import PREFIX, Metrics

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboard.json").read_text())
ALERTS = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"][0]["rules"]
OUTCOMES = {"admitted", "refused", "queue_full", "wait_timeout", "store_unavailable", "would_refuse"}
COLUMNS = 24
"""Of Grafana's grid."""

SERIES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
"""What a metric of each kind is called where it is asked for."""


def panels() -> list[Any]:
    """Return the panels that ask for something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[Any]:
    """Return each expression, named after its panel or alert."""
    asked = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    noted = [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]
    alerts = [(alert["alert"], alert["expr"]) for alert in ALERTS]
    return [pytest.param(text, id=name) for name, text in [*asked, *noted, *alerts]]


def labels() -> dict[str, set[str]]:
    """Return each series that the plugin's metrics have, with its labels."""
    collectors = [
        one for one in vars(Metrics(CollectorRegistry())).values() if isinstance(one, MetricWrapperBase)
    ]
    return {
        described.name + ending: {*labels_of(collector), *(["le"] if ending == "_bucket" else [])}
        for collector in collectors
        for described in collector.describe()
        for ending in SERIES[described.type]
    }


def labels_of(collector: MetricWrapperBase) -> tuple[str, ...]:
    """Return the names of a collector's labels."""
    return tuple(collector._labelnames)  # noqa: SLF001 (the library tells them only of what was counted)


def selectors(expression: Any) -> Iterator[Any]:
    """Yield what is asked for by name in an expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
        return
    for part in ("expr", "lhs", "rhs", "vector_selector", "vs", "args"):
        inner = getattr(expression, part, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None:
                yield from selectors(one)


def parsed(text: str) -> Any:
    """Return an expression as Prometheus reads it, with a value for Grafana's interval."""
    return promql_parser.parse(text.replace("$__rate_interval", "5m"))


@pytest.mark.parametrize("text", expressions())
def test_every_expression_asks_for_metrics_that_there_are(text: str) -> None:
    """Each expression can be parsed, and names metrics and labels of ours only."""
    known = labels()
    found = list(selectors(parsed(text)))
    assert len(found) == len(re.findall(PREFIX, text))
    for selector in found:
        assert {matcher.name for matcher in selector.matchers.matchers} <= known[selector.name]


@pytest.mark.parametrize("text", expressions())
def test_every_grouping_is_by_a_label_that_is_there(text: str) -> None:
    """What is summed up by a label, and what is told by one, has it."""
    known = labels()
    of_all = {label for selector in selectors(parsed(text)) for label in known[selector.name]}
    grouped = {label.strip() for by in re.findall(r"by \((.*?)\)", text) for label in by.split(",")}
    assert grouped <= of_all


@pytest.mark.parametrize("text", expressions())
def test_every_outcome_that_is_asked_for_can_be(text: str) -> None:
    """Outcomes in expressions are such as the plugin counts."""
    told = [outcome for outcomes in re.findall(r'outcome=~?"(.*?)"', text) for outcome in outcomes.split("|")]
    assert set(told) <= OUTCOMES


def test_every_metric_is_on_the_dashboard() -> None:
    """Of each metric the dashboard shows something."""
    shown = json.dumps(DASHBOARD)
    for series in labels():
        assert re.sub("_(bucket|count|sum)$", "", series) in shown


def test_the_dashboard_asks_the_prometheus_that_is_chosen() -> None:
    """No panel is bound to somebody's data source; the limits are chosen by the variable."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "limit"]
    for panel in panels():
        assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])].count(
            chosen
        ) == (len(panel["targets"]) + 1)


def test_the_panels_lie_side_by_side() -> None:
    """No panel lies upon another, and each has an id, a title and (but for rows) a text of its own."""
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < COLUMNS
    for what in ("id", "title"):
        assert len({panel[what] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"] for panel in panels())


def test_every_alert_is_explained_and_tested() -> None:
    """The how-to has a row for each alert, promtool's tests name each, and each says how bad it is."""
    told = (GRAFANA.parent / "how-to" / "alerting.md").read_text()
    tests = yaml.safe_load((GRAFANA / "alerts_test.yaml").read_text())["tests"]
    tested = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    names = {alert["alert"] for alert in ALERTS}
    assert tested == names
    assert names == set(re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE))
    assert all(alert["labels"]["severity"] in {"warning", "critical"} for alert in ALERTS)
