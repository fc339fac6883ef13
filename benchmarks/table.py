"""`make table`: the comparison table, one model after the other: build, serve, load, measure, stop.

With WEIGHTS=random each model has random weights in its true shape, so that speed and memory can be
compared on any machine; quality is left empty then. With WEIGHTS=published the real weights are fetched, or
taken from a file (--gguf NAME=PATH). A model that both runtimes of the engine compute has a line for each.
Each line leaves a folder of `make load`; table.json, table.md and the plots are written after each, so that
Ctrl-C keeps what was measured, and can be rewritten from the folders (`python -m benchmarks.table_drawing
FOLDER`). The last line on standard output is the table as JSON.

Exit status: 0; 1 when it could not run; 3 when a model could not be measured or its figures must not be used;
130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from benchmarks import machine, runs, shared_load, table_drawing
from benchmarks.measuring import NotMeasured, measure, say
from benchmarks.served import CannotStart, Served
from build.engine import make_engine
from build.errors import BuildError
from build.openvino_model.engine import make_openvino_engine
from build.random_checkpoint import write_random_checkpoint
from build.random_gguf import CHECKPOINT_SHAPES, SHAPES, parameters, write_random_gguf

# 18 answers a model: short enough for the largest of them on two cores
LOAD = "--users 1,2,4 --requests 10 --requests-each 3 --warm-up 1 --input-tokens 48 --output-tokens 16"
MODELS = Path(__file__).with_name("models.toml")


@dataclass(frozen=True)
class Row:
    """One model of models.toml, which explains the fields."""

    name: str
    shape: str
    weights: str
    article: dict[str, float]
    published: str | None = None
    runtime: str = "llama_cpp"

    @property
    def folder(self) -> str:
        """Where its files go."""
        name = self.name.lower().replace(".", "-")
        return name if self.runtime == "llama_cpp" else f"{name}-{self.runtime}"


def rows() -> list[Row]:
    """The rows of models.toml, one for each runtime."""
    tables = tomllib.loads(MODELS.read_text(encoding="utf-8"))["model"]
    found = [(table.pop("runtimes", ["llama_cpp"]), table) for table in tables]
    return [Row(**table, runtime=runtime) for runtimes, table in found for runtime in runtimes]


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    folder = options.out or Path("var/bench") / f"table-{runs.stamp()}"
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "kind": "table",
        "command": shlex.join(["python", "-m", "benchmarks.table", *options.given]),
        "weights": options.weights,
        "true_shapes": not options.shape_prefix,
        "settings": options.settings,
        "endpoint": options.endpoint,
        "machine": machine.facts(),
    }
    measured: dict[str, Any] = {}
    status = 0
    try:
        for row in options.rows:
            say(f"== {row.name}, {row.runtime}")
            try:
                measured[row.folder] = _measure(row, options, folder)
            except (NotMeasured, BuildError, CannotStart, RuntimeError) as error:
                measured[row.folder] = {"not_measured": str(error)}
                say(f"not measured: {error}")
                status = 3
            _save(folder, facts, options.rows, measured)
    except KeyboardInterrupt:
        say("interrupted; the models that were measured are kept")
        status = 130
    table = _save(folder, facts, options.rows, measured)
    if status == 0 and any(row.get("faults") for row in table["rows"]):
        status = 3
    say(f"table: {folder / table_drawing.PAGE}")
    sys.stdout.write(runs.line(table) + "\n")
    return status


def _save(folder: Path, facts: dict[str, Any], rows: list[Row], measured: dict[str, Any]) -> dict[str, Any]:
    known = [asdict(row) | {"measured": measured.get(row.folder)} for row in rows]
    runs.write_json(folder / table_drawing.RUN, {**facts, "rows": known})
    return table_drawing.draw(folder)


def _measure(row: Row, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build, serve, load and stop one model; what was measured beside the load's own folder."""
    run = folder / row.folder
    shutil.rmtree(run, ignore_errors=True)
    if row.name in options.running:
        url, grpc = options.running[row.name]
        gpus_at_rest = machine.gpus()
        _load(url, grpc, run, row, options)
        gpus = {"gpus_at_rest": gpus_at_rest, "gpus_after": machine.gpus()}
        return {"folder": run.name, **gpus, "quality_folder": _quality(url, run, options)}
    begun = time.monotonic()
    with Engine(row, options) as engine:
        built = time.monotonic() - begun
        begun = time.monotonic()
        with Served(engine.model, engine.data_dir, runtime=row.runtime, **options.settings) as served:
            started = time.monotonic() - begun
            say(f"up after {started:.0f} s; the model took {built:.0f} s to make")
            rest, gpus_at_rest = served.memory(), machine.gpus()
            _load(served.url, served.grpc, run, row, options)
            return {
                "folder": run.name,
                "quality_folder": _quality(served.url, run, options),
                "parameters": parameters(SHAPES[row.shape]),
                "file_bytes": engine.file_bytes(),
                "build_seconds": built,
                "start_seconds": started,
                "memory_at_rest": asdict(rest),
                "memory_after": asdict(served.memory()),
                "gpus_at_rest": gpus_at_rest,
                "gpus_after": machine.gpus(),
            }


def _load(url: str, grpc: str, run: Path, row: Row, options: argparse.Namespace) -> None:
    server = ["--url", url, "--grpc", grpc, "--endpoint", options.endpoint]
    arguments = [*server, "--name", row.name, *options.load]
    measure("benchmarks.load", arguments, run)


def _quality(url: str, run: Path, options: argparse.Namespace) -> str | None:
    """Ask the project's own items too; None with random weights, whose answers are noise."""
    if options.weights == "random":
        return None
    folder = run.with_name(f"{run.name}-quality")
    shutil.rmtree(folder, ignore_errors=True)
    measure("benchmarks.quality.run", ["--url", url, *options.quality], folder)
    return folder.name


class Engine:
    """The weights of one row, made or found, and removed again when they were made here."""

    def __init__(self, row: Row, options: argparse.Namespace) -> None:
        self._row, self._options = row, options
        self.data_dir: Path = options.data_dir
        self._made: Path | None = None
        self.model = ""

    def __enter__(self) -> Engine:
        if self._row.name in self._options.gguf and self._row.runtime == "llama_cpp":
            self.model = str(Path(self._options.gguf[self._row.name]).resolve())
        elif self._options.weights == "random":
            self.model = str(self._random())
        elif self._row.published is not None:
            self.model = self._row.published
        else:
            raise NotMeasured(
                "this project cannot convert its published weights: give a file of them, "
                f"--gguf {self._row.name}=PATH"
            )
        return self

    def file_bytes(self) -> int:
        """Bytes of the weights as the runtime reads them; made on the way up, this finds them."""
        if self._row.runtime == "openvino":
            return make_openvino_engine(self.model, self.data_dir).model_bytes
        return make_engine(self.model, self.data_dir).gguf_bytes

    def _random(self) -> Path:
        path = self.data_dir / "models" / self._row.folder
        if self._row.runtime == "openvino":
            self._made = path
            write_random_checkpoint(path, CHECKPOINT_SHAPES[self._row.shape])
            return path.resolve()
        path = self._made = path.with_name(f"{path.name}.gguf")
        write_random_gguf(path, SHAPES[self._row.shape], self._row.name, weights=self._row.weights)
        return path.resolve()

    def __exit__(self, *_: object) -> None:
        if not self._options.keep:
            if self._made is not None and self._made.is_dir():
                shutil.rmtree(self._made)
            elif self._made is not None:
                self._made.unlink(missing_ok=True)
            if self._options.weights == "random":
                shutil.rmtree(self.data_dir / "engines", ignore_errors=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    known = rows()
    add = parser.add_argument
    add("--weights", choices=("random", "published"), default="random")
    names = list(dict.fromkeys(row.name for row in known))
    add("--models", default=",".join(names), help="names with commas (default: all four)")
    add(
        "--gguf",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a .gguf file of this model's weights",
    )
    add("--shape-prefix", default="", help="`tiny-` takes the tests' shapes of the same architectures")
    add("--slots", type=int, default=4)
    add(
        "--context",
        type=int,
        default=512,
        help="tokens a slot; slots x context is the KV pool (default: 512)",
    )
    shared_load.add_endpoint(parser, "grpc", "endpoint of make load (default: %(default)s)")
    add("--load", default=LOAD, help="options of make load, in one string (default: %(default)s)")
    add("--quality", default="", help="options of make quality, which is run too with published weights")
    add(
        "--running",
        action="append",
        default=[],
        metavar="NAME=URL,HOST:PORT",
        help="measure a deployment that runs, by its frontend and its gRPC; its memory is the GPU's",
    )
    add("--data-dir", type=Path, default=Path("var/bench/table-server"))
    add("--keep", action="store_true", help="keep the random weights, 30 GB for all")
    add("--out", type=Path, help="folder of the run (default: var/bench/table-TIME)")
    options = parser.parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    options.gguf = dict(pair.split("=", 1) for pair in options.gguf)
    options.load, options.quality = shlex.split(options.load), shlex.split(options.quality)
    pairs = (pair.split("=", 1) for pair in options.running)
    options.running = {name: tuple(places.split(",", 1)) for name, places in pairs}
    options.settings = {"slots": options.slots, "context": options.context, "kv_type": "f16"}
    asked = options.models.split(",")
    if unknown := [name for name in [*asked, *options.running, *options.gguf] if name not in names]:
        parser.error(f"there is no model {unknown[0]}; there are {', '.join(names)}")
    wanted = (row for name in asked for row in known if row.name == name)
    # whatever computes a deployment that runs, or a .gguf file: it is one line
    one = {*options.running, *options.gguf}
    options.rows = [row for row in wanted if row.runtime == "llama_cpp" or row.name not in one]
    options.data_dir.mkdir(parents=True, exist_ok=True)
    if options.shape_prefix:
        options.rows = [_tiny(row, options.shape_prefix) for row in options.rows]
    return options


def _tiny(row: Row, prefix: str) -> Row:
    """The row in another shape of its architecture: tiny-qwen for qwen1.5-1.8b."""
    family = next(name for name in ("youtu", "qwen", "chatglm", "baichuan") if row.shape.startswith(name))
    return replace(row, shape=prefix + family)


if __name__ == "__main__":
    sys.exit(main())
