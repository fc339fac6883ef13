"""The health check of the images: exit status 0 when all is well, else 1 and a word that says what is not.

`health.py` and `health.py ready`: text would come out now. `health.py live`: nothing hangs or is broken;
loading is well. With a frontend its routes are asked; without one (YOUTU_FRONTEND=off), Triton over gRPC: the
question passes through the text model to the engine. Small, as it runs often.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT = 4  # s; less than the images' and the chart's timeouts, so that the reason below is what is logged


def of_frontend(question: str) -> str:
    """What is wrong, or nothing; prints what the frontend says."""
    port = int(os.environ.get("YOUTU_PORT") or 8080)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", f"/health/{question}")
        response = connection.getresponse()
        sys.stdout.write(response.read().decode(errors="replace"))
    except OSError as error:
        return f"no answer: {error}"
    return "" if response.status == http.client.OK else f"status {response.status}"


def of_triton(question: str) -> str:
    """What is wrong, or nothing."""
    from youtu_client import Client, EngineStalled, NotReady, YoutuError

    port = os.environ.get("YOUTU_GRPC_PORT") or "8001"
    try:
        with Client(f"127.0.0.1:{port}") as client:
            client.probe(TIMEOUT)
    except EngineStalled as error:
        return f"hangs: {error}"
    except NotReady as error:
        return "" if question == "live" else f"loading: {error}"
    except YoutuError as error:
        return f"no answer: {error}"
    return ""


if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else "ready"
    ask = of_triton if os.environ.get("YOUTU_FRONTEND") == "off" else of_frontend
    sys.exit(ask(asked) or 0)
