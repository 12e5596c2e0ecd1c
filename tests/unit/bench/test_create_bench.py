import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.processes import ROOT

PROGRAM = ROOT / "bench" / "create_bench.py"


def create(file: Path, *options: str, answers: str = "") -> list[str]:
    subprocess.run([sys.executable, str(PROGRAM), str(file), *options], input=answers, text=True, check=True)
    return file.read_text().splitlines()


@pytest.mark.parametrize(("service", "member", "length"), [("apns", "DeviceToken", 64), ("gcm", "to", 152)])
def test_every_line_is_a_message_to_another_token(tmp_path: Path, service: str, member: str, length: int) -> None:
    lines = create(tmp_path / "messages", "--service", service, "--number", "50", "--seed", "1")
    tokens = {json.loads(line)[member] for line in lines}
    assert len(tokens) == 50
    assert {len(token) for token in tokens} == {length}


def test_apns_line_to_the_letter(tmp_path: Path) -> None:
    (line,) = create(tmp_path / "messages", "--service", "apns", "--number", "1")
    token = json.loads(line)["DeviceToken"]
    assert line.replace(token, "T") == (
        '{"DeviceToken":"T","Payload":{"aps":{"alert":"Helena miss you! come play!"}},"push_expiry":0,'
        ' "metadata": {"jobId": "86edb3c3-6b5e-40dc-9f14-4ba831daf87c"}}'
    )


def test_seed_decides(tmp_path: Path) -> None:
    options = ("--service", "gcm", "--number", "3", "--seed")
    first = create(tmp_path / "a", *options, "1")
    assert create(tmp_path / "b", *options, "1") == first
    assert create(tmp_path / "c", *options, "2") != first


def test_asks_for_what_is_not_said(tmp_path: Path) -> None:
    file = tmp_path / "messages"
    file.write_text("old")
    assert len(create(file, answers="\nsomething else\n2\n")) == 2
    assert '"to"' in file.read_text()
