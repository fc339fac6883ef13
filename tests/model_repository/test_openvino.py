"""What is OpenVINO's own: processors with fewer instructions, files that are no model, memory given back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import openvino_runtime
import pytest
from openvino_runtime import OpenVino
from runtime import ComputeError, Piece
from tokenizers import Tokenizer

from tests.limits import WAIT_S

from .conftest import DEMO

TOKENIZER = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
QUESTION = TOKENIZER.encode("<|begin_of_text|><|User|>怎么退货？<|Assistant|>", add_special_tokens=False).ids
STEPS = """
import json
import sys
from pathlib import Path
from openvino_runtime import OpenVino
from runtime import Piece
loaded = OpenVino(Path(sys.argv[1]), slots=1, context=64, threads=1)
asked = json.loads(sys.argv[2])
(first,) = loaded.step([Piece(0, 0, asked, 0, [len(asked) - 1])])[0]
first = first.copy()
(then,) = loaded.step([Piece(0, len(asked), [int(first.argmax())], 0, [0])])[0]
print(int(first.argmax()), int(then.argmax()))
"""


@pytest.mark.parametrize("instructions", ["", "AVX512_CORE_VNNI", "AVX2"])
def test_it_computes_with_the_instructions_that_there_are(openvino_model: Path, instructions: str) -> None:
    """The fault: without VNNI each step ended well and gave no logits."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    folder = str(Path(openvino_runtime.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", STEPS, openvino_model, json.dumps(QUESTION)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = OpenVino(openvino_model, slots=1, context=64, threads=1, kv_type="f32")
    (first,) = loaded.step([Piece(0, 0, QUESTION, 0, [len(QUESTION) - 1])])[0]
    first = first.copy()
    (then,) = loaded.step([Piece(0, len(QUESTION), [int(first.argmax())], 0, [0])])[0]
    assert done.stdout.split() == [str(first.argmax()), str(then.argmax())]


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text("<net></net>")
    with pytest.raises(ComputeError) as refused:
        OpenVino(path, slots=1, context=64, threads=1)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_the_pages_of_the_weights_are_given_back(openvino_model: Path) -> None:
    loaded = OpenVino(openvino_model, slots=1, context=64, threads=1)
    resident = 0
    mapped = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            mapped = line.endswith(str(openvino_model.with_suffix(".bin").resolve()))
        elif mapped and line.startswith("Rss:"):
            resident += int(line.split()[1])
    assert 1000 * resident < 0.5 * openvino_model.with_suffix(".bin").stat().st_size
    loaded.close()
