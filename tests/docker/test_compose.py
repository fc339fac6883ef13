"""docker/compose.yaml and what opens it: who may reach it, what it may do, which settings it hands in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontend.server import SPARE_THREADS
from serve.program import AFTER_GRACE
from serve.settings import Settings, SettingsError

DOCKER = Path(__file__).resolve().parents[2] / "docker"
PORTS = {"port": 8080, "http_port": 8000, "grpc_port": 8001, "metrics_port": 8002}
# The images say these (the CPU image has no compiler for a card), and the container's ports are its own.
FIXED = {"data_dir", "device", "engine", *PORTS}
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


class Compose(yaml.SafeLoader):
    """YAML with Compose's own tag."""


def _list(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node)


Compose.add_constructor("!override", _list)


def services(name: str) -> dict[str, dict[str, Any]]:
    text = (DOCKER / name).read_text(encoding="utf-8")
    return dict(yaml.load(text, Loader=Compose)["services"])


def filled_in(text: str, **environ: str) -> str:
    """`text` as Compose fills it in."""
    return VARIABLE.sub(lambda variable: environ.get(variable[1]) or variable[2], text)


def settings_of(environment: dict[str, str | None], **environ: str) -> dict[str, str]:
    """The settings a container gets when it is started with `environ`."""
    return {
        name: environ.get(name, "") if value is None else filled_in(value, **environ)
        for name, value in environment.items()
        if name.startswith("YOUTU_")
    }


SERVICES = services("compose.yaml")


@pytest.fixture(params=["cpu", "gpu"])
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SERVICES[request.param]


def test_each_kind_of_machine_has_its_profile() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items()} == {
        "cpu": ["cpu"],
        "gpu": ["gpu"],
    }
    for name, service in SERVICES.items():
        assert service["build"] == {"context": "..", "dockerfile": f"docker/{name}.Dockerfile"}


def test_only_this_machine_reaches_the_ports(service: dict[str, Any]) -> None:
    published = [filled_in(port).rpartition(":") for port in service["ports"]]
    assert {int(inside) for _, _, inside in published} == set(PORTS.values())
    assert {outside.partition(":")[0] for outside, _, _ in published} == {"127.0.0.1"}
    assert "network_mode" not in service
    assert {name: Settings.model_fields[name].default for name in PORTS} == PORTS


def test_it_may_do_little(service: dict[str, Any]) -> None:
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "entrypoint"} & set(service)
    volumes = dict(volume.split(":") for volume in service["volumes"])
    assert volumes == {"state": "/data", "weights": "/data/downloads", "engines": "/data/engines"}


def largest(name: str) -> int:
    """The most that a setting may be."""
    bounds = [bound.le for bound in Settings.model_fields[name].metadata if hasattr(bound, "le")]
    return int(bounds[0])


def test_the_largest_queue_has_its_threads(service: dict[str, Any]) -> None:
    """The fault: 1024, which a queue of 1024 alone exceeds."""
    requests = largest("slots") + largest("queue")
    frontend = requests + SPARE_THREADS + largest("slots")  # a thread reads each running answer
    youtu_llm = requests + 64  # its SPARE_PLACES
    others = 512  # Triton, gRPC, the libraries
    assert frontend + youtu_llm + largest("threads") + others <= service["pids_limit"]


def test_the_images_health_check_counts(service: dict[str, Any]) -> None:
    assert "healthcheck" not in service


def test_the_gpu_is_asked_for() -> None:
    (device,) = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["cpu"]


def test_every_setting_can_be_given_and_exists(service: dict[str, Any]) -> None:
    """Guards against a setting that Compose silently keeps out, and a name that stops the start."""
    named = {name.removeprefix("YOUTU_").lower() for name in settings_of(service["environment"])}
    assert named == set(Settings.model_fields) - FIXED


def test_the_settings_it_hands_in_can_be_used(service: dict[str, Any]) -> None:
    settings = Settings.load(settings_of(service["environment"]))
    assert (settings.host, settings.triton_host, settings.keys) == ("0.0.0.0", "0.0.0.0", "off")
    given = {"YOUTU_SLOTS": "8", "YOUTU_KEYS": "auto", "YOUTU_API_KEY": "secret"}
    settings = Settings.load(settings_of(service["environment"], **given))
    assert (settings.slots, settings.keys) == (8, "auto")


def test_the_end_is_given_the_time_it_takes(service: dict[str, Any]) -> None:
    """Docker kills what has not ended by then: both programs, one after the other, as serve.launch counts."""
    grace = int(service["stop_grace_period"].removesuffix("s"))
    drain = Settings.model_fields["drain_timeout"].default
    assert grace >= 2 * (drain + 5 + AFTER_GRACE)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_what_opens_the_port_asks_for_keys(name: str) -> None:
    opened = services("open.yaml")[name]
    assert [filled_in(port) for port in opened["ports"]] == [
        "0.0.0.0:8080:8080"
    ]  # Triton, which knows no keys, goes
    environment = SERVICES[name]["environment"] | opened["environment"]
    with pytest.raises(SettingsError, match="YOUTU_API_KEY or YOUTU_KEYS_FILE"):
        Settings.load(settings_of(environment, YOUTU_KEYS="off"))
    assert Settings.load(settings_of(environment, YOUTU_API_KEY="secret")).api_key is not None


def test_what_compose_itself_reads_is_documented() -> None:
    files = [DOCKER / "compose.yaml", DOCKER / "open.yaml"]
    named = {name for file in files for name, _ in VARIABLE.findall(file.read_text(encoding="utf-8"))}
    assert "PUBLISH_PORT" in named
    page = (DOCKER.parent / "docs" / "docker.md").read_text(encoding="utf-8")
    assert [name for name in sorted(named) if f"`{name}" not in page] == []
