"""The dashboard and the alert rules ask only for what pusher exports."""

import json
import re
from typing import Any

import pytest
import yaml

from lab.processes import ROOT
from pusher.daemon.admin.prometheus import PROCESS_NAMES, series_names
from pusher.telemetry import figures, metrics

DOCS = ROOT / "docs"
EXPORTED = {name for metric in (*metrics.ALL, *figures.ALL) for name in series_names(metric)} | set(PROCESS_NAMES)
LABELS = {tag for metric in (*metrics.ALL, *figures.ALL) for tag in metric.tags} | {"le", "job", "instance"}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads((DOCS / "grafana.json").read_text())["panels"])


EXPRESSIONS = [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_is_exported(expression: str) -> None:
    names = set(re.findall(r"\b(?:pusher|process)_\w+", expression))
    assert names or expression.startswith("up{")
    assert names <= EXPORTED


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_label_is_exported(expression: str) -> None:
    grouped = {name for found in re.findall(r"by \(([^)]*)\)", expression) for name in found.split(", ")}
    assert grouped | set(re.findall(r"[{,](\w+)=~?", expression)) <= LABELS


def test_alerts_have_names_of_their_own_and_say_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "warn") for rule in rules())


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
