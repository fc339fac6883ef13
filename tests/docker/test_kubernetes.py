"""The example for Kubernetes: the pod may do little, asks for keys, and is asked for its health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from serve.program import AFTER_GRACE
from serve.settings import Settings

MANIFEST = Path(__file__).resolve().parents[2] / "docker" / "kubernetes.yaml"
OBJECTS = {item["kind"]: item["spec"] for item in yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))}
POD: dict[str, Any] = OBJECTS["Deployment"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_the_pod_may_do_little() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] == POD["securityContext"]["fsGroup"] == 10001
    assert POD["automountServiceAccountToken"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["mountPath"] for mount in CONTAINER["volumeMounts"]} == {"/data", "/tmp", "/dev/shm"}


def test_a_service_of_this_name_does_not_set_our_settings() -> None:
    """Guards against Kubernetes' own YOUTU_PORT=tcp://…, which is no port."""
    assert POD["enableServiceLinks"] is False


def test_its_settings_can_be_used_and_ask_for_a_key() -> None:
    given = {"YOUTU_HOST": "0.0.0.0", "YOUTU_DATA_DIR": "/data"}  # as the image says
    given |= {variable["name"]: variable.get("value", "from-a-secret") for variable in CONTAINER["env"]}
    settings = Settings.load(given)
    assert settings.keys == "auto"
    assert settings.api_key is not None
    assert "secretKeyRef" in next(v for v in CONTAINER["env"] if v["name"] == "YOUTU_API_KEY")["valueFrom"]
    assert [port["containerPort"] for port in CONTAINER["ports"]] == [settings.port]
    assert POD["terminationGracePeriodSeconds"] >= 2 * (settings.drain_timeout + 5 + AFTER_GRACE)


def test_it_is_asked_for_its_health() -> None:
    paths = {name: probe["httpGet"]["path"] for name, probe in CONTAINER.items() if name.endswith("Probe")}
    assert paths == {
        "startupProbe": "/health/ready",
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
    }
