"""The Helm chart: rendered by Helm's own code for each values file, checked against Kubernetes' schemas.

No cluster runs here. What Kubernetes would take is known from its schemas alone, and of the two kinds that
belong to the Prometheus operator only what stands in them is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python.chart import Chart
from helm_python.errors import HelmError
from packaging.version import Version

from serve.program import AFTER_GRACE
from serve.settings import Settings

CHART = Path(__file__).resolve().parents[2] / "docker" / "helm"
EXAMPLES = {path.stem: yaml.safe_load(path.read_text()) for path in (CHART / "examples").glob("*.yaml")}
SCHEMAS = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")
NEWEST = sorted(
    {".".join(path.name.removeprefix("v").split("-")[0].split(".")[:2]) for path in SCHEMAS.glob("v*-local")},
    key=Version,
)[-3:]
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
KEY: dict[str, Any] = {"keys": {"value": "sesame"}}

Object = dict[str, Any]


def rendered(values: dict[str, Any], name: str = "youtu") -> list[Object]:
    with Chart.load(CHART) as chart:
        text = chart.render(values=values, name=name, namespace="models")
    whole = text if isinstance(text, str) else "\n---\n".join(text.values())
    return [item for item in yaml.safe_load_all(whole) if item]


def one(objects: list[Object], kind: str, end: str = "") -> Object:
    """The only one of a kind whose name ends so."""
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(end)]
    return found


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for item in objects:
        if item["kind"] in ("StatefulSet", "Deployment"):
            yield item["kind"], item["spec"]["template"]["spec"]


def environment(container: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "from-a-secret") for each in container["env"]}


@pytest.mark.parametrize("version", NEWEST)
@pytest.mark.parametrize("example", sorted(EXAMPLES))
def test_every_object_fits_the_schemas_of_the_newest_versions(example: str, version: str) -> None:
    assert NEWEST[-1] == "1.37"
    objects = rendered(EXAMPLES[example])
    for item in objects:
        if item["kind"] not in OF_THE_OPERATOR:
            kubernetes_validate.validate(item, version, strict=True)
    assert {"StatefulSet", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= {
        item["kind"] for item in objects
    }


def test_the_check_finds_a_field_that_does_not_exist() -> None:
    broken = one(rendered(KEY), "Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, NEWEST[-1], strict=True)


@pytest.mark.parametrize("example", sorted(EXAMPLES))
def test_pods_may_do_little(example: str) -> None:
    for _, pod in pods(rendered(EXAMPLES[example])):
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
                "/data",
                "/tmp",
                "/dev/shm",
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("example", sorted(EXAMPLES))
def test_the_settings_of_every_container_can_be_used(example: str) -> None:
    for kind, pod in pods(rendered(EXAMPLES[example])):
        (container,) = pod["containers"]
        given = environment(container)
        if "YOUTU_RATE_STORAGE" in given:
            given["YOUTU_RATE_STORAGE"] = "redis://redis:6379/0"
        settings = Settings.load(given)
        assert bool(settings.triton_servers) == (kind == "Deployment")
        assert (settings.frontend == "off") == (kind == "StatefulSet")
        assert settings.drain_timeout > settings.request_timeout
        seconds = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed = seconds + settings.leave_timeout + settings.drain_timeout + 5 + AFTER_GRACE
        assert pod["terminationGracePeriodSeconds"] >= needed
        ports = {port["containerPort"] for port in container["ports"]}
        assert ports == {getattr(settings, name) for name in settings.ports()}


def test_frontends_ask_the_headless_service_of_the_tritons() -> None:
    objects = rendered(KEY, name="shop")
    service = one(objects, "Service", "-triton")
    assert service["spec"]["clusterIP"] == "None"
    triton = one(objects, "StatefulSet")
    labels = triton["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert triton["spec"]["serviceName"] == service["metadata"]["name"] == "shop-youtu-triton"
    frontend = one(objects, "Deployment")
    (container,) = frontend["spec"]["template"]["spec"]["containers"]
    assert environment(container)["YOUTU_TRITON_SERVERS"] == "shop-youtu-triton.models.svc:8001"
    public = one(objects, "Service", "shop-youtu")
    assert public["spec"]["selector"].items() <= frontend["spec"]["template"]["metadata"]["labels"].items()
    assert not public["spec"]["selector"].items() <= labels.items()


def test_only_frontends_reach_triton() -> None:
    objects = rendered(KEY)
    policy = one(objects, "NetworkPolicy", "-triton")["spec"]
    labels = one(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    first, second = policy["ingress"]
    frontend = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert first["from"][0]["podSelector"]["matchLabels"].items() <= frontend.items()
    assert [port["port"] for port in first["ports"]] == ["grpc"]
    assert [port["port"] for port in second["ports"]] == ["metrics"]
    assert "namespaceSelector" in second["from"][0]


def test_loading_hanging_and_broken_are_told_apart() -> None:
    objects = rendered({**KEY, "triton": {"buildMinutes": 60}})
    (triton,) = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    probes = {name: triton[name]["exec"]["command"][-1] for name in triton if name.endswith("Probe")}
    assert probes == {"startupProbe": "ready", "readinessProbe": "ready", "livenessProbe": "live"}
    assert triton["startupProbe"]["failureThreshold"] * triton["startupProbe"]["periodSeconds"] == 3600
    patience = triton["livenessProbe"]["failureThreshold"] * triton["livenessProbe"]["periodSeconds"]
    assert patience > 2 * Settings().hang_timeout, "the launcher inside has its chance first"
    (frontend,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert frontend["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert frontend["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_a_gpu_is_asked_for_where_the_engine_is_built_and_where_it_runs() -> None:
    pod = one(rendered(EXAMPLES["gpu"]), "StatefulSet")["spec"]["template"]["spec"]
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert environment(container)["YOUTU_ENGINE"] == "tensorrt_llm"
        assert environment(container)["YOUTU_PROFILE"] == "24gb"
    assert pod["nodeSelector"]
    assert pod["initContainers"][0]["command"] == ["make", "engine"]
    cpu = one(rendered(KEY), "StatefulSet")["spec"]["template"]["spec"]
    assert "nvidia.com/gpu" not in str(cpu)


def test_keys_come_from_a_secret() -> None:
    objects = rendered(KEY)
    secret = one(objects, "Secret")
    assert secret["stringData"] == {"api-key": "sesame"}
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    (key,) = [each for each in container["env"] if each["name"] == "YOUTU_API_KEY"]
    assert key["valueFrom"]["secretKeyRef"] == {"name": secret["metadata"]["name"], "key": "api-key"}
    named = rendered({"keys": {"existingSecret": "mine", "existingSecretKey": "k"}})
    assert not [item for item in named if item["kind"] == "Secret"]
    (container,) = one(named, "Deployment")["spec"]["template"]["spec"]["containers"]
    (key,) = [each for each in container["env"] if each["name"] == "YOUTU_API_KEY"]
    assert key["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "k"}


def test_it_grows_with_the_queue_and_is_watched() -> None:
    objects = rendered(EXAMPLES["large"])
    scaler = one(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    assert scaler["metrics"][0]["external"]["metric"]["name"] == "youtu_num_requests_waiting"
    assert "replicas" not in one(objects, "StatefulSet")["spec"], "each upgrade would undo the scaling"
    rules = one(objects, "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert rules["metadata"]["labels"]["release"] == "prometheus"
    for monitor in (item for item in objects if item["kind"] == "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        service = [item for item in objects if item["kind"] == "Service"]
        (fitting,) = [item for item in service if selector.items() <= item["metadata"]["labels"].items()]
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in fitting["spec"]["ports"]}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "keys: give one of existingSecret"),
        ({"keys": {"disabled": True, "value": "k"}}, "keys: give one of existingSecret"),
        ({**KEY, "engine": "tpu"}, "engine"),
        ({**KEY, "replicas": 3}, "replicas"),
        ({**KEY, "triton": {"replicas": 0}}, "replicas"),
        ({**KEY, "triton": {"replica": 2}}, "replica"),
        ({**KEY, "settings": {"port": 9000}}, "'port'"),
        ({**KEY, "settings": {"YOUTU_SLOTS": 2}}, "'YOUTU_SLOTS'"),
        ({**KEY, "requestTimeout": "5m"}, "requestTimeout"),
        ({**KEY, "triton": {"storage": {"size": "much"}}}, "size"),
        ({**KEY, "rates": {"redisSecret": "redis"}}, "rates.redisSecret: there is no rates.limit"),
        ({**KEY, "autoscaling": {"enabled": True, "minReplicas": 9}}, "maxReplicas: 6 is less than"),
        ({**KEY, "monitoring": {"enabled": True}}, "monitoring.keySecret"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(values: dict[str, Any], says: str) -> None:
    with pytest.raises(HelmError) as caught:
        rendered(values)
    assert says in str(caught.value)


def test_odd_values_come_out_as_they_were() -> None:
    """Quotation marks, a number with many digits, a name with a colon: YAML must not read them otherwise."""
    odd = {
        "keys": {"value": "\"'{}$(x):#"},
        "model": 'C: model & co/网 "x" #1',
        "settings": {
            "served_model_name": "yes",
            "context": 131072,
            "stored_size": 67108864,
            "temperature": 0.0,
            "hosts": "*",
        },
        "image": {"repository": "registry:5000/youtu", "tag": "1.0"},
        "rates": {"limit": "10/second;1000/day"},
    }
    objects = rendered(odd, name="a" * 53)
    assert one(objects, "Secret")["stringData"]["api-key"] == "\"'{}$(x):#"
    (container,) = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    given = environment(container)
    assert given["YOUTU_MODEL"] == odd["model"]
    assert (given["YOUTU_SERVED_MODEL_NAME"], given["YOUTU_TEMPERATURE"]) == ("yes", "0")
    assert (given["YOUTU_CONTEXT"], given["YOUTU_STORED_SIZE"]) == ("131072", "67108864")
    assert container["image"] == "registry:5000/youtu:1.0"
    for item in objects:
        kubernetes_validate.validate(item, NEWEST[-1], strict=True)
        assert len(item["metadata"]["name"]) <= 63 - len("-1234567890")
