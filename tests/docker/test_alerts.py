"""The alerts: Prometheus' own tool checks and tries them; each has its runbook entry; the metrics exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontend.metrics import STATES, Metrics
from serve.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "docker" / "helm" / "files" / "alerts.yaml"
TRIED = Path(__file__).with_name("alerts_test.yaml")
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
NAMES = [alert["alert"] for alert in ALERTS]
OF_OTHERS = {"up", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"}


def promtool(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "promtool is missing: make test-programs"
    return subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True)


def test_promtool_takes_the_rules_and_each_fires_when_it_should() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout
    tried = promtool("test", "rules", str(TRIED))
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    found: dict[str, set[bool]] = {name: set() for name in NAMES}
    for test in yaml.safe_load(TRIED.read_text(encoding="utf-8"))["tests"]:
        for case in test["alert_rule_test"]:
            found[case["alertname"]].add(bool(case["exp_alerts"]))
    assert all(seen == {True, False} for seen in found.values()), found


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_threshold_is_noticed(name: str, tmp_path: Path) -> None:
    """The unit tests can fail: an alert that never fires is found."""
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for alert in document["groups"][0]["rules"]:
        if alert["alert"] == name:
            alert["expr"] = f"({alert['expr']}) and on() vector(1) < 0"
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    tried = TRIED.read_text(encoding="utf-8").replace("../../docker/helm/files/alerts.yaml", "alerts.yaml")
    (tmp_path / "tried.yaml").write_text(tried, encoding="utf-8")
    done = promtool("test", "rules", "tried.yaml", cwd=tmp_path)
    assert done.returncode != 0
    assert name in done.stdout + done.stderr


def test_every_alert_has_its_entry_in_the_runbook() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert [section.split("\n")[0] for section in sections] == NAMES
    assert all("**Meaning.**" in section for section in sections)
    assert all("**Do.**" in section or "**Look and do.**" in section for section in sections)
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["labels"]["severity"] in ("warning", "critical")
    for setting in re.findall(r"`YOUTU_(\w+)", page):
        assert setting.lower() in Settings.model_fields


def test_the_metrics_of_the_alerts_exist() -> None:
    metrics = Metrics(lambda: 1, lambda: 0, lambda: 0, lambda: (1, 2))
    metrics.watch_state(lambda: "ready")
    metrics.watch_servers(lambda: [])
    metrics.watch_rate_storage(lambda: True)
    metrics.request("/chat", "POST", 200, "ok")
    metrics.refused("queue_full")
    there = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    there |= {family.name for family in metrics.registry.collect()} | OF_OTHERS
    for alert in ALERTS:
        text = re.sub(r'"[^"]*"|\{[^}]*\}|by \([^)]*\)', "", alert["expr"])
        named = {name for name in re.findall(r"[a-z_A-Z]{2,}", text) if "_" in name or name == "up"}
        named -= {"max_over_time", "histogram_quantile"}
        assert named, alert["expr"]
        assert named <= there, named - there
    states = {state for alert in ALERTS for state in re.findall(r'state="(\w+)"', alert["expr"])}
    assert states <= set(STATES)
