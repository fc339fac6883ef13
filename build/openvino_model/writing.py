"""Write model.xml and model.bin of a graph over empty constants, without ever holding its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openvino as ov

from build.openvino_model.constants import ALIGNMENT, Constants
from build.openvino_model.info import MODEL_BIN, MODEL_XML
from build.whole_file import whole_file

SMALL_BYTES = 16 << 20  # room for the graph, and for its constants that are no weights

Progress = Callable[[int, int], None]  # bytes written, bytes in all


def write_model(model: ov.Model, constants: Constants, folder: Path, progress: Progress | None) -> None:
    """Write both files into `folder`; model.xml, which comes last, is there only when both are whole.

    OpenVINO writes the graph with its empty constants, equal ones once. What it says of each constant's place
    is then replaced by the place in model.bin, where the weights go from their source.
    """
    (folder / MODEL_XML).unlink(missing_ok=True)
    with whole_file(folder / MODEL_BIN, constants.size + SMALL_BYTES) as part:
        with tempfile.TemporaryDirectory(prefix=".graph-", dir=folder) as scratch:
            empty = Path(scratch, MODEL_XML)
            ov.save_model(model, empty, compress_to_fp16=False)
            graph = ElementTree.parse(empty)  # noqa: S314 - OpenVINO has just written it
            small = _relocate(graph, constants, empty.with_suffix(".bin"))
        done = 0
        with part.open("r+b") as file:
            for written in constants.write(file):
                done += written
                if progress is not None:
                    progress(done, constants.size)
            file.seek(constants.size)
            file.write(small)
    with whole_file(folder / MODEL_XML, SMALL_BYTES) as part:
        graph.write(part, encoding="utf-8", xml_declaration=True)


def _relocate(graph: ElementTree.ElementTree[Any], constants: Constants, empty: Path) -> bytes:
    """Point the constants of `graph` to model.bin; the bytes of those that are no weights, for its end."""
    small = bytearray()
    moved: dict[str, int] = {}  # several constants may share one place
    with empty.open("rb") as file:
        for layer in graph.iterfind("layers/layer[@type='Const']"):
            data = layer.find("data")
            if data is None:
                raise AssertionError(f"the constant {layer.get('name')} has no data")
            if place := constants.places.get(str(layer.get("name"))):
                if int(data.get("size", 0)) != place.nbytes:
                    raise AssertionError(
                        f"{layer.get('name')} has {data.get('size')} bytes, not {place.nbytes}"
                    )
                data.set("offset", str(place.offset))
                continue
            old = f"{data.get('offset')} {data.get('size')}"
            if old not in moved:
                file.seek(int(data.get("offset", 0)))
                small += bytes(-len(small) % ALIGNMENT)
                moved[old] = constants.size + len(small)
                small += file.read(int(data.get("size", 0)))
            data.set("offset", str(moved[old]))
    return bytes(small)
