"""`make upgrade`: another server takes the place of one that runs, under load, and no request is lost."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from serve.addresses import free_ports
from tests.callers import Load, account
from tests.e2e.running import PYTHON, ROOT, RunningServer
from tests.limits import START_S, WAIT_S

TRITONS = ("grpc_port", "metrics_port")
UPGRADE = (str(PYTHON), "-m", "serve", "--upgrade")


def model_of(server: RunningServer) -> str:
    with urllib.request.urlopen(f"{server.http_url}/v1/models", timeout=WAIT_S) as reply:
        return str(json.load(reply)["data"][0]["id"])


@pytest.mark.slow
def test_another_takes_over_under_load_twice(tmp_path: Path) -> None:
    """Callers who keep their connection and callers who open new ones; one port and data folder for all."""
    servers = [RunningServer(tmp_path, slots="2", served_model_name="model-0")]
    port = str(servers[0].settings.port)
    try:
        servers[0].wait_until_up()
        assert model_of(servers[0]) == "model-0"
        with Load(int(port)) as load:
            for number in (1, 2):
                load.wait(10)
                before = servers[-1]
                # Triton's ports are the old one's, too: they are taken, so it finds others.
                ports: Any = {name: str(getattr(before.settings, name)) for name in TRITONS}
                servers.append(
                    RunningServer(
                        tmp_path,
                        command=UPGRADE,
                        port=port,
                        slots="2",
                        served_model_name=f"model-{number}",
                        **ports,
                    )
                )
                servers[-1].wait_until_up()
                assert before.wait() == 0, before.log
                assert model_of(servers[-1]) == f"model-{number}"
                load.wait(10)
        account(load)
        assert servers[-1].end() == 0
        assert servers[-1].left_behind(within=WAIT_S) == []
    finally:
        for server in servers:
            server.kill()


def test_where_nothing_runs_there_is_nothing_to_upgrade(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    given = {"YOUTU_PORT": str(port), "YOUTU_DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(UPGRADE, cwd=ROOT, env=given, capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 1
    assert (
        f"nothing to upgrade: no server of this user responds on 127.0.0.1:{port}; run make serve"
        in done.stderr
    )
