"""The Helm chart: linted, rendered, and held against the schemas of Kubernetes.

As a program, which is `scripts/chart`, it writes deploy/kubernetes/pusher.yaml, the plain manifests.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from lab.helm import ROOT, helm

CHART = "deploy/helm/pusher"
MANIFESTS = ROOT / "deploy/kubernetes/pusher.yaml"
HEAD = f"# Made by scripts/chart from {CHART}; change that, or its values, instead.\n"

#: of Kubernetes, which the manifests are made for
VERSION = "1.33.0"
#: Kubernetes has no schema of them: they belong to the Prometheus operator
FOREIGN_KINDS = {"ServiceMonitor", "PrometheusRule"}


def render(values: Path | None = None, chart: Path = ROOT / CHART) -> str:
    """What `helm template` makes of a file of values. RuntimeError says what Helm has against it."""
    chosen = ["--values", str(values)] if values else []
    done = helm("template", "pusher", str(chart), "--kube-version", VERSION, *chosen)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def lint(values: Path | None = None, chart: Path = ROOT / CHART) -> None:
    """`helm lint --strict` with a file of values. RuntimeError has the findings.

    It is a copy with these values as its defaults that is linted: the library takes no others.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / chart.name
        shutil.copytree(chart, copy)
        if values:
            defaults = copy / "values.yaml"
            changes = yaml.safe_load(values.read_text())
            defaults.write_text(yaml.safe_dump(merged(yaml.safe_load(defaults.read_text()), changes)))
        done = helm("lint", "--strict", str(copy))
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)


def merged(defaults: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them: mappings key by key, null takes a key away, all else is replaced."""
    both_map = {key for key in changes if isinstance(changes[key], dict) and isinstance(defaults.get(key), dict)}
    found = defaults | changes | {key: merged(defaults[key], changes[key]) for key in both_map}
    return {key: value for key, value in found.items() if value is not None}


def objects(manifests: str) -> Iterator[dict[str, Any]]:
    """The objects in a text of manifests."""
    return (found for found in yaml.safe_load_all(manifests) if found)


def validate(manifests: str) -> None:
    """Hold each object against its schema. ValidationError, or SchemaNotFoundError for an unknown kind."""
    for found in objects(manifests):
        if found["kind"] not in FOREIGN_KINDS:
            kubernetes_validate.validate(found, VERSION.rpartition(".")[0], strict=True)


def main() -> None:
    """Write the plain manifests."""
    argparse.ArgumentParser(prog="scripts/chart", description=__doc__).parse_args()
    lint()
    manifests = render()
    validate(manifests)
    MANIFESTS.write_text(HEAD + manifests)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, kubernetes_validate.ValidationError) as error:
        sys.exit(f"chart: {error}")
