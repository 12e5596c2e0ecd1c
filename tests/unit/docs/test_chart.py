"""The Helm chart with every file of values: Helm lints and renders it, Kubernetes allows it, pusher reads it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import SchemaNotFoundError, ValidationError

from lab import chart, helm
from lab.processes import ROOT
from pusher import config
from pusher.commands.cli import COMMANDS
from pusher.config import settings
from pusher.config.schema import variable

pytestmark = pytest.mark.integration

CI = ROOT / chart.CHART / "ci"
PAGE = (ROOT / "docs/kubernetes.md").read_text()
#: file of values: its text
VALUES = {
    "defaults": "{}",
    **{path.stem.removesuffix("-values"): path.read_text() for path in sorted(CI.glob("*-values.yaml"))},
    **{
        f"docs-{number}": text
        for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    },
}


@pytest.fixture(params=VALUES)
def values(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of values."""
    path = tmp_path / "values.yaml"
    path.write_text(VALUES[request.param])
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A chart to break."""
    return Path(shutil.copytree(ROOT / chart.CHART, tmp_path / "pusher"))


def test_the_files_of_values_are_found() -> None:
    assert {"defaults", "everything", "groups", "least", "docs-0", "docs-1"} <= VALUES.keys()


def test_helm_finds_nothing_wrong(values: Path) -> None:
    chart.lint(values)


def test_kubernetes_allows_what_is_rendered(values: Path) -> None:
    chart.validate(chart.render(values))


def test_pusher_reads_what_is_rendered(values: Path) -> None:
    known = {variable(setting.key) for setting in settings.declared()}
    commands = {row.name for row in COMMANDS if row.stays}
    for found in chart.objects(chart.render(values)):
        if found["kind"] == "ConfigMap":
            assert config.parse(found["data"]["default.yaml"]).warnings == ()
        if found["kind"] == "Deployment":
            (container,) = found["spec"]["template"]["spec"]["containers"]
            assert container["args"][1] in commands
            variables = {entry["name"]: entry.get("value", "a secret's") for entry in container["env"]}
            assert len(variables) == len(container["env"])
            assert variables.keys() <= known
            assert config.parse("", variables).warnings == ()


def test_the_plain_manifests_are_what_helm_renders() -> None:
    assert chart.MANIFESTS.read_text() == chart.HEAD + chart.render(), "run scripts/chart"


def test_everything_renders_each_kind() -> None:
    kinds = {found["kind"] for found in chart.objects(chart.render(CI / "everything-values.yaml"))}
    named = set(
        re.findall(
            r"^kind: (\w+)$", "".join(map(Path.read_text, (ROOT / chart.CHART / "templates").iterdir())), re.MULTILINE
        )
    )
    assert kinds == named


def test_alerts_are_those_of_the_documents() -> None:
    (rule,) = (
        one for one in chart.objects(chart.render(CI / "everything-values.yaml")) if one["kind"] == "PrometheusRule"
    )
    assert rule["spec"] == yaml.safe_load((ROOT / "docs/alerts.yml").read_text())


def test_games_of_a_group_are_read_from_their_topics_alone() -> None:
    found = {
        one["metadata"]["name"]: one
        for one in chart.objects(chart.render(CI / "groups-values.yaml"))
        if one["kind"] == "Deployment"
    }
    (container,) = found["pusher-apns"]["spec"]["template"]["spec"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables["PUSHER_APNS_APPS"] == "game,com.example.arena"
    assert variables["PUSHER_QUEUE_GROUP"] == "pusher-small"
    topics = re.compile(variables["PUSHER_QUEUE_TOPICS"])
    assert topics.match("push-com.example.arena_apns-single")
    assert not topics.match("push-com-example-arena_apns-single")
    assert not topics.match("push-battle_apns-single")


def test_games_without_a_group_are_refused(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("senders: {apns: {apps: [game]}}")
    with pytest.raises(RuntimeError, match=r"senders\.apns: apps needs a group of its own"):
        chart.render(values)


def test_an_object_that_kubernetes_does_not_know_is_noticed(copy: Path) -> None:
    template = copy / "templates/config.yaml"
    kept = template.read_text()
    template.write_text(kept.replace("kind: ConfigMap", "kind: ConfigMop"))
    with pytest.raises(SchemaNotFoundError):
        chart.validate(chart.render(chart=copy))
    template.write_text(kept.replace("\ndata:", "\ndate:"))
    with pytest.raises(ValidationError, match="date"):
        chart.validate(chart.render(chart=copy))


def test_a_template_that_is_no_yaml_is_noticed(copy: Path) -> None:
    (copy / "templates/broken.yaml").write_text("kind: Service: x\n")
    with pytest.raises(RuntimeError, match=r"templates/broken\.yaml: unable to parse YAML"):
        chart.lint(chart=copy)


def test_warnings_count(copy: Path) -> None:
    with (copy / "Chart.yaml").open("a") as about:
        about.write("dependencies: [{name: absent, version: 1.0.0, repository: 'file://absent'}]\n")
    with pytest.raises(RuntimeError, match=r"\[WARNING\].*absent"):
        chart.lint(chart=copy)


def test_a_platform_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helm, "PLATFORM", "Linux riscv64")
    monkeypatch.setenv("PATH", "")
    assert not helm.missing()
    with pytest.raises(RuntimeError, match="no library of Helm for Linux riscv64: install Helm 3"):
        helm.helm("lint", chart.CHART)


def test_a_platform_without_the_library_uses_helm_of_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "helm"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(helm, "PLATFORM", "Linux riscv64")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert helm.helm("lint", "--strict", chart.CHART).stdout == f"lint --strict {chart.CHART}\n"


def test_a_library_that_was_not_reviewed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jar = tmp_path / "other.jar"
    jar.write_bytes(b"another")
    with pytest.raises(RuntimeError, match="is not what was reviewed"):
        helm._unpack(jar)
