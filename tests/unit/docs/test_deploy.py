"""The manifests for Kubernetes: what they configure is what pusher reads, and no pod can do more than it needs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lab.processes import ROOT
from pusher import __version__, config
from pusher.commands.cli import COMMANDS
from pusher.config import settings
from pusher.config.schema import variable

MANIFESTS: list[dict[str, Any]] = [
    found for found in yaml.safe_load_all((ROOT / "deploy/kubernetes/pusher.yaml").read_text()) if found
]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == kind}


DEPLOYMENTS = of_kind("Deployment")


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


def test_there_is_one_of_each() -> None:
    assert DEPLOYMENTS.keys() == {"pusher-apns", "pusher-gcm", "pusher-listener"}
    assert of_kind("PodDisruptionBudget").keys() == DEPLOYMENTS.keys()


def test_the_configuration_is_one_that_pusher_reads() -> None:
    (found,) = of_kind("ConfigMap").values()
    assert config.parse(found["data"]["default.yaml"]).warnings == ()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_arguments_and_variables_are_known(name: str) -> None:
    program, command, *flags = container(name)["args"]
    assert program == "/app/pusher"
    assert command in {row.name for row in COMMANDS if row.stays}
    assert set(flags) <= {"--production"}
    known = {variable(setting.key) for setting in settings.declared()}
    assert {entry["name"] for entry in container(name)["env"]} <= known
    values = {entry["name"]: entry["value"] for entry in container(name)["env"]}
    assert config.parse("", values).warnings == ()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_kubernetes_waits_longer_than_a_stop_takes(name: str) -> None:
    values = {entry["name"]: entry["value"] for entry in container(name)["env"]}
    grace_s = config.parse("", values)[settings.GRACEFUL_SHUTDOWN_TIMEOUT]
    assert pod(name)["terminationGracePeriodSeconds"] >= grace_s + 10


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_can_do_no_more_than_it_needs(name: str) -> None:
    assert pod(name)["automountServiceAccountToken"] is False
    assert pod(name)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_probes(name: str) -> None:
    assert container(name)["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container(name)["readinessProbe"]["httpGet"]["path"] == "/readyz"
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    values = {entry["name"]: entry["value"] for entry in container(name)["env"]}
    assert ports["admin"] == config.parse("", values)[settings.ADMIN_PORT]


def test_the_version_is_that_of_the_program() -> None:
    chart = yaml.safe_load((ROOT / "deploy/helm/pusher/Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
