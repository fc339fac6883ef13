"""What rendering costs the server while an answer is read: `python -m tests.frontend.page.cost`.

An answer of prose, lists, a table, formulas and code grows by 20 tokens a second (three characters each) and
is rendered each 120 ms from its last block on, as the page does it; Flask is in the figure, the network not.
Then `POST /chat` of a frontend in front of the fake Triton, alone and beside callers who have the worst table
rendered without a pause.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

from frontend import create_app
from serve.settings import Settings
from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import Frontend

PART = """### Step {number}

Read the file line by line; the cost is $O(n \\log n)$, **memory** stays at `4 KiB`.
每一行都会先检查，再写入结果。

- first, open the file with its encoding
- then read each row as a dictionary

| name | price |
|---|--:|
| 茶壶 | 128 |

```python
def read(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["name"]]
```

"""
TEXT = "".join(PART.format(number=number) for number in range(1, 9))
CHARACTERS_A_SECOND, UPDATE_S = 60.0, 0.12
RUNS = 5
TABLE = ("|" + "a|" * 250 + "\n|" + "-|" * 250 + "\n" + "|\n" * 8000)[:16_000]
CHATS, CALLERS = 40, (0, 6)


def cost() -> tuple[float, float]:
    """CPU milliseconds of one update, and per second of reading."""
    client = create_app(Settings.load({})).test_client()
    client.post("/render", json={"text": ""})
    start = updates = 0
    elsewhere = 0.0
    begun = time.process_time()
    size = 0.0
    while size < len(TEXT):
        size = min(len(TEXT), size + CHARACTERS_A_SECOND * UPDATE_S)
        part = TEXT[start : int(size)]
        # Without pause it is far more often than one reader may ask.
        reader = {"REMOTE_ADDR": f"192.0.2.{updates % 250}"}
        reply = client.post("/render", json={"text": part}, environ_base=reader)
        made = reply.get_json()["blocks"]
        elsewhere += float(reply.headers["Server-Timing"].removeprefix("render;dur="))
        updates += 1
        if made:
            start += len("".join(part.splitlines(keepends=True)[: made[-1]["line"]]))
    spent = 1000 * (time.process_time() - begun) + elsewhere
    return spent / updates, spent / (len(TEXT) / CHARACTERS_A_SECOND)


def latencies(frontend: Frontend, callers: int) -> list[float]:
    """Milliseconds of each of CHATS answers of two words, beside so many callers of the worst table."""
    over = threading.Event()
    body = json.dumps({"text": TABLE}).encode()

    def render() -> None:
        while not over.is_set():
            frontend.send("POST", "/render", body, **{"Content-Type": "application/json"})

    threads = [threading.Thread(target=render) for _ in range(callers)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    found = []
    for _ in range(CHATS):
        begun = time.monotonic()
        assert frontend.post({"prompt": "Hello"}).status == 200
        found.append(1000 * (time.monotonic() - begun))
    over.set()
    for thread in threads:
        thread.join()
    return found


def main() -> None:
    runs = [cost() for _ in range(RUNS)]
    update, second = ([run[at] for run in runs] for at in (0, 1))
    print(f"{len(TEXT)} characters, {RUNS} runs")
    print(f"one update           {statistics.median(update):.1f} ms ({min(update):.1f} to {max(update):.1f})")
    print(f"a second of reading  {statistics.median(second):.1f} ms ({min(second):.1f} to {max(second):.1f})")
    with FakeTriton() as fake, tempfile.TemporaryDirectory() as folder:
        frontend = Frontend(fake.port, Path(folder) / "log").start()
        for callers in CALLERS:
            found = latencies(frontend, callers)
            print(
                f"POST /chat beside {callers} callers of the worst table: median "
                f"{statistics.median(found):.0f} ms, worst of {CHATS} {max(found):.0f} ms"
            )
        frontend.stop()


if __name__ == "__main__":
    main()
