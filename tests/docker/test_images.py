"""The images' recipes: what they are made of, whom they run as, how they are asked for their health.

`make image-check` builds and starts the CPU image; here the files are read, on machines without an engine for
containers too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from serve.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
BASES = {
    "cpu.Dockerfile": "docker.io/library/debian:bookworm-slim",
    "gpu.Dockerfile": "nvcr.io/nvidia/tritonserver:26.06-trtllm-python-py3",
}
PACKAGES = {  # of Debian and Ubuntu, signed and kept up to date by them: an interpreter, libraries, make
    "cpu.Dockerfile": {"ca-certificates", "libgomp1", "libpython3.11", "python3.11", "python3.11-venv"},
    "gpu.Dockerfile": {"make"},
}
LOCKS = {  # the CPU image has what the launcher would install when it first chooses OpenVINO
    "cpu.Dockerfile": ["serve", "openvino"],
    "gpu.Dockerfile": ["serve"],
}
INSTALL = "--no-cache-dir --disable-pip-version-check --no-deps --require-hashes --only-binary :all:"
# Every way into an image beside the base, its own signed packages, the lock and the repository.
UNLOCKED = re.compile(
    r"\b(curl|wget|git|conda|npm|uv|easy_install|pipx|apt-key|add-apt-repository)\b|https?://"
)


class Recipe:
    """A Dockerfile's instructions, in their order."""

    def __init__(self, file: Path) -> None:
        parsed = DockerfileParser(str(file)).structure
        self.steps = [(str(step["instruction"]), str(step["value"])) for step in parsed]

    def of(self, instruction: str) -> list[str]:
        return [value for name, value in self.steps if name == instruction]

    def last_stage(self) -> list[tuple[str, str]]:
        begins = max(place for place, (name, _) in enumerate(self.steps) if name == "FROM")
        return self.steps[begins:]


@pytest.fixture(params=FILES, ids=lambda file: str(file.name))
def file(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def recipe(file: Path) -> Recipe:
    return Recipe(file)


def test_there_is_one_recipe_for_each_kind_of_machine() -> None:
    assert [file.name for file in FILES] == sorted(BASES)


def test_the_base_has_a_fixed_release(file: Path, recipe: Recipe) -> None:
    assert recipe.of("ARG") == [f"BASE={BASES[file.name]}"]
    named = [value.partition(" AS ") for value in recipe.of("FROM")]
    assert {base for base, _, _ in named} <= {"${BASE}", *(stage for _, _, stage in named if stage)}


def test_what_is_installed_is_locked_with_hashes(file: Path, recipe: Recipe) -> None:
    installs = [run for run in recipe.of("RUN") if re.search(r"\bpip\b.*\binstall\b", run)]
    assert len(installs) == 1
    assert re.findall(r"\binstall (.*?) (?:&&|$)", " ".join(installs[0].split())) == [
        " ".join([INSTALL, *(f"-r requirements/{lock}.lock" for lock in LOCKS[file.name])])
    ]
    for name, value in recipe.steps:
        assert name != "ADD", value
        assert name != "RUN" or not UNLOCKED.search(value), value


def test_the_systems_packages_are_few_and_known(file: Path, recipe: Recipe) -> None:
    """Guards against a compiler, or a library that the lock should hold, coming in by apt-get."""
    runs = " ".join(" ".join(recipe.of("RUN")).split())
    installs = re.findall(r"apt-get install --yes --no-install-recommends (.*?) &&", runs)
    assert len(installs) == runs.count("apt-get install")
    assert set(" ".join(installs).split()) == PACKAGES[file.name]


@pytest.mark.parametrize(("name", "least"), [("serve", 20), ("openvino", 1)])
def test_the_lock_has_a_hash_for_each_package(name: str, least: int) -> None:
    lock = ROOT / "requirements" / f"{name}.lock"
    entries = [entry for entry in re.split(r"(?m)^(?=\S)", lock.read_text(encoding="utf-8")) if entry]
    assert len(entries) >= least
    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_it_does_not_run_as_root(recipe: Recipe) -> None:
    stage = recipe.last_stage()
    places = [place for place, (name, _) in enumerate(stage) if name == "USER"]
    assert places
    assert stage[places[-1]][1] == "10001:10001"
    assert not {"RUN", "COPY"} & {name for name, _ in stage[places[-1] :]}  # nothing in it is its user's


def test_it_has_a_health_check_and_serves(recipe: Recipe) -> None:
    stage = dict(recipe.last_stage())
    assert "HEALTHCHECK" in stage
    options, _, command = stage["HEALTHCHECK"].partition("CMD ")
    assert json.loads(command) == ["python", "docker/health.py"]
    given = {option.partition("=")[0] for option in options.split()}
    assert given == {"--start-period", "--interval", "--timeout", "--retries"}
    assert json.loads(stage["CMD"]) == ["python", "-m", "serve"]
    assert "ENTRYPOINT" not in stage


def test_its_settings_exist_and_its_ports_are_the_defaults(file: Path, recipe: Recipe) -> None:
    named = {name.lower() for name in re.findall(r"\bYOUTU_([A-Z_]+)=", " ".join(recipe.of("ENV")))}
    assert {"data_dir", "host"} <= named
    assert named <= set(Settings.model_fields)
    assert ("engine" in named) == (file.name == "gpu.Dockerfile")
    ports = [
        Settings.model_fields[name].default for name in ("port", "http_port", "grpc_port", "metrics_port")
    ]
    assert [int(port) for port in " ".join(recipe.of("EXPOSE")).split()] == ports


def test_hadolint_has_nothing_to_say(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), "--config", str(DOCKER / "hadolint.yaml"), "--no-color", str(file)]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stdout + asked.stderr) == (0, "")


def test_only_what_serves_goes_into_an_image() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    rooms = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    further = {"client", "model_repository", "docker/health.py", "requirements/serve.lock", "Makefile"} | {
        "requirements/openvino.lock"
    }
    assert allowed == rooms | further | {"LICENSE", "NOTICE"}
    assert [path for path in allowed if not (ROOT / path).exists()] == []


def test_the_programs_that_are_named_can_be_run() -> None:
    """A module without a main ends with 0 and does nothing: so did the one said to make keys."""
    files = (ROOT / "docs" / "docker.md", DOCKER / "check.sh")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    named = {name.replace(".", "/") for name in re.findall(r"python -m ([\w.]+)", text)}
    assert "frontend/keys" in named
    for name in named - {"youtu_cli"}:
        file = ROOT / name / "__main__.py" if (ROOT / name).is_dir() else ROOT / f"{name}.py"
        assert 'if __name__ == "__main__":' in file.read_text(encoding="utf-8"), name


class Frontend(HTTPServer):
    """Answers /health/ready with `status`."""

    status = 200


@pytest.fixture
def frontend() -> Iterator[Frontend]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status if self.path == "/health/ready" else 404)
            self.end_headers()
            self.wfile.write(b'{"status": "so"}')

        def log_message(self, *_: object) -> None:
            pass

    server = Frontend(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def health(port: int) -> subprocess.CompletedProcess[str]:
    # Behind a proxy, which must not be asked for this very machine.
    environment = {"PATH": os.defpath, "YOUTU_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, str(DOCKER / "health.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_asks_whether_it_is_ready(frontend: Frontend, status: int, expected: int) -> None:
    frontend.status = status
    asked = health(frontend.server_port)
    assert (asked.returncode, asked.stdout) == (expected, '{"status": "so"}')


def test_the_health_check_says_when_nobody_answers(frontend: Frontend) -> None:
    frontend.shutdown()
    frontend.server_close()
    asked = health(frontend.server_port)
    assert asked.returncode == 1
    assert "no answer: [Errno 111] Connection refused" in asked.stderr
