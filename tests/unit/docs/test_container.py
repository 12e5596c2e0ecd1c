"""The image and the compose file, as far as they can be judged without an engine."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.processes import PUSHER, ROOT, Process
from pusher import config
from pusher.commands.cli import COMMANDS

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "pusher:local"}


def test_the_base_is_pinned_by_digest() -> None:
    assert re.search(r"^ARG BASE=python:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}


def test_every_package_is_checked_by_its_hash() -> None:
    assert "--require-hashes -r requirements.lock" in DOCKERFILE


def copied() -> list[Path]:
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return [Path(path) for line in lines for path in line.split()]


def within(path: Path, places: Iterable[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def test_what_the_image_copies_is_sent_to_the_engine() -> None:
    allowed = [Path(line[1:]) for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [path for path in copied() if not ((ROOT / path).exists() and within(path, allowed))] == []


def test_the_image_copies_all_that_the_wheel_is_made_of() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, data = described["project"], described["tool"]["setuptools"]["data-files"]
    patterns = [project["readme"], *project["license-files"], *(one for files in data.values() for one in files)]
    made_of = [path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)]
    assert len(made_of) > 5
    assert [path for path in made_of if not within(path, copied())] == []


def test_ports_are_published_on_the_loopback_interface_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) > 5
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", OURS)
def test_a_container_can_do_no_more_than_it_needs(name: str) -> None:
    assert OURS[name]["read_only"] is True
    assert OURS[name]["cap_drop"] == ["ALL"]
    assert OURS[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", [name for name in OURS if not name.startswith("simulated")])
def test_a_daemon_is_configured_for_what_stands_beside_it(name: str) -> None:
    service = OURS[name]
    assert service["command"][1] in {row.name for row in COMMANDS if row.stays}
    assert service["depends_on"].keys() <= SERVICES.keys()
    found = config.load(str(ROOT / "config/default.yaml"), service["environment"])
    assert found.warnings == ()
    hosts = {
        value.partition("//")[2].partition(":")[0] or value.partition(":")[0]
        for key, value in service["environment"].items()
        if key.endswith(("_HOST", "_BROKERS", "_ENDPOINT")) and key != "PUSHER_ADMIN_HOST"
    }
    assert hosts <= SERVICES.keys()


def test_what_a_daemon_reads_is_what_the_simulators_write() -> None:
    written = {word for name in OURS if name.startswith("simulated") for word in OURS[name]["command"]}
    directories = {"/app/data/apns", "/app/data/fcm"}
    assert directories <= written
    read = {value for value in OURS["apns"]["environment"].values() if value.startswith("/app/data/")}
    assert read - written == {f"{directory}/ca.pem" for directory in directories}


def test_no_password_is_missing() -> None:
    assert "development-only" in SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert SERVICES["postgres"]["environment"]["POSTGRES_HOST_AUTH_METHOD"] == "scram-sha-256"


@pytest.mark.parametrize("name", [name for name in OURS if name.startswith("simulated")])
def test_a_simulator_starts_with_an_empty_volume(name: str, tmp_path: Path) -> None:
    program, *words = OURS[name]["command"]
    assert program == "/app/pusher"
    here = [word.replace("/app/data", str(tmp_path / "data")) for word in words]
    here = ["0" if before.endswith("port") else word for before, word in pairwise(["", *here])]
    here = ["localhost" if before == "--host" else word for before, word in pairwise(["", *here])]
    simulator = Process(tmp_path, name, (*PUSHER, *here))
    simulator.start()
    try:
        simulator.wait_for("listening")
    finally:
        simulator.end()
    assert [word for word in here if word.startswith(str(tmp_path)) and not Path(word).exists()] == []
