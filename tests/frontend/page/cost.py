"""What rendering costs the server while an answer is read: `python -m tests.frontend.page.cost`.

An answer of prose, lists, a table, formulas and code grows by 20 tokens a second (three characters each) and
is rendered each 120 ms from its last block on, as the page does it; Flask is in the figure, the network not.
"""

from __future__ import annotations

import statistics
import time

from frontend import create_app
from frontend.render_markdown import blocks
from serve.settings import Settings

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


def cost() -> tuple[float, float]:
    """CPU milliseconds of one update, and per second of reading."""
    client = create_app(Settings.load({})).test_client()
    start = updates = 0
    begun = time.process_time()
    size = 0.0
    while size < len(TEXT):
        size = min(len(TEXT), size + CHARACTERS_A_SECOND * UPDATE_S)
        part = TEXT[start : int(size)]
        made = client.post("/render", json={"text": part}).get_json()["blocks"]
        updates += 1
        if made:
            start += len("".join(part.splitlines(keepends=True)[: made[-1]["line"]]))
    spent = 1000 * (time.process_time() - begun)
    return spent / updates, spent / (len(TEXT) / CHARACTERS_A_SECOND)


def main() -> None:
    blocks(TEXT)  # imports of lexers
    runs = [cost() for _ in range(RUNS)]
    update, second = ([run[at] for run in runs] for at in (0, 1))
    print(f"{len(TEXT)} characters, {RUNS} runs")
    print(f"one update           {statistics.median(update):.1f} ms ({min(update):.1f} to {max(update):.1f})")
    print(f"a second of reading  {statistics.median(second):.1f} ms ({min(second):.1f} to {max(second):.1f})")


if __name__ == "__main__":
    main()
