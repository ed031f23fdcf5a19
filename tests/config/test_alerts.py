"""The alerts: each fires when it should and only then, as Prometheus' own test runner sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.config.prometheus_server import CONFIGURATION
from tests.support.programs import needs

CASES = sorted((Path(__file__).parent / "alerts").glob("*.yml"))

needs_promtool = needs("promtool", "prometheus")


def promtool(*arguments: str | Path) -> None:
    """Run it; what it says is the failure's message."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_files_are_valid(tmp_path: Path) -> None:
    """Prometheus takes the scrape configuration and the rules that it names: as they are, and with a token."""
    promtool("check", "config", CONFIGURATION / "prometheus.yml")
    shutil.copytree(CONFIGURATION, tmp_path, dirs_exist_ok=True)
    (tmp_path / "metrics-token").write_text("secret")
    text = (tmp_path / "prometheus.yml").read_text()
    with_token = re.sub(r"# (authorization:|  credentials_file:)", r"\1", text)
    assert 2 == sum(a != b for a, b in zip(text.splitlines(), with_token.splitlines(), strict=True))
    (tmp_path / "prometheus.yml").write_text(with_token)
    promtool("check", "config", tmp_path / "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_do_not_fire(cases: Path) -> None:
    """Every case of the file holds."""
    promtool("test", "rules", cases)


def test_each_alert_has_its_cases() -> None:
    """Each alert, at each of its severities, fires in some case; and no case expects one that is not there."""
    rules = (CONFIGURATION / "alerts.yml").read_text()
    anchors = dict(re.findall(r"labels: &(\w+)\n +severity: (\w+)", rules))
    blocks = [block for block in re.split(r"- alert: ", rules)[1:] if block]
    alerts = set()
    for block in blocks:
        severity = re.search(r"labels: [&*](\w+)", block)
        assert severity is not None, block
        alerts.add((block.split()[0], anchors[severity[1]]))
    pattern = r'alertname="(\w+)", alertstate="firing", severity="(\w+)"'
    expected = {found for cases in CASES for found in re.findall(pattern, cases.read_text())}
    assert alerts == expected
