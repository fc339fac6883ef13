"""`python -m serve`, which `make serve` runs: check, build the engine if need be, start, watch, end.

Exit status: 0 when it was stopped (Ctrl-C, SIGTERM, SIGHUP), 1 when it could not start or stay up, with
one line for each reason. Under make, Ctrl-C at a terminal gives 0 too. A SIGTERM or SIGINT sent to make
itself ends everything just as well, but make reports its own death by that signal (143 or 130).
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from types import FrameType

from build import cuda
from build.engine import make_engine
from build.engine_info import EngineInfo
from build.errors import BuildError
from build.progress import TerminalProgress
from build.runtimes import make_chosen_engine
from build.tensorrt_llm.info import TensorRTEngineInfo
from frontend.keys import Keys, KeysError
from serve import card, preflight, run_folder, terminal
from serve.addresses import authority
from serve.launch import Server, programs, watches
from serve.messages import flush, say
from serve.repository import Engine, RepositoryError, suited
from serve.run_folder import RunFolder
from serve.settings import Settings, SettingsError, reachable


class CannotServe(Exception):
    """Reasons not to start, a line each."""


class AskedToEnd(BaseException):
    """A signal to end came before there was anything to end; passes every `except Exception`."""


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ask_to_end)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with terminal.foreground():
            return _serve()
    except (SettingsError, CannotServe, BuildError, RepositoryError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"cannot serve: {line}\n")
        return 1
    except AskedToEnd:
        say("ended before it was up")
        return 0
    finally:
        flush()


def _ask_to_end(_number: int, _frame: FrameType | None) -> None:
    raise AskedToEnd


def _serve() -> int:
    begun = time.monotonic()
    settings = Settings.load()
    if ended := run_folder.end_leftovers():
        say(f"ended {len(ended)} processes of an earlier run whose launcher is gone")
    _refuse([*preflight.before_build(settings), *_keys_faults(settings)])
    if settings.device == "cuda":
        cuda.make_library(settings.data_dir)
    progress = TerminalProgress()
    try:
        engine = _engine(settings, progress)
    finally:
        progress.close()
    if isinstance(engine, TensorRTEngineInfo):
        _refuse(preflight.before_start_on_gpu(settings, engine))
    elif isinstance(engine, EngineInfo) and settings.device == "cuda":
        gpu = cuda.card()
        settings = card.fitted(settings, engine, gpu)
        _refuse(preflight.context_faults(settings, engine))
        say(f"{gpu.name}: {settings.slots} slots of {settings.context} tokens")
    else:
        settings = suited(settings, engine)
        _refuse(preflight.before_start(settings, engine))
    run = RunFolder(settings.data_dir.absolute())
    try:
        if not run.keeps_logs:
            folder = settings.data_dir / "log"
            say(f"{folder} cannot be written: the logs of this run are in {run.logs} until it ends")
        say(f"starting Triton and the frontend with {engine.model_id} (logs: {run.logs})")
        started = programs(settings, engine, run)
        server = Server(
            started,
            run,
            watches(settings),
            lambda: _announce(settings, engine, begun),
            settings.hang_timeout,
        )
        return server.run()
    finally:
        run.close()


def _engine(settings: Settings, progress: TerminalProgress) -> Engine:
    if settings.engine == "tensorrt_llm":
        from build.tensorrt_llm.engine import engine_to_serve

        return engine_to_serve(
            settings.model, settings.data_dir, settings.profile, hub=settings.hub, progress=progress
        )
    model, root, hub = settings.model, settings.data_dir, settings.hub
    if settings.device == "cuda":
        return make_engine(model, root, hub=hub, progress=progress)
    return make_chosen_engine(model, root, runtime=settings.runtime, hub=hub, progress=progress, say=say)


def _keys_faults(settings: Settings) -> list[str]:
    """What the frontend would find wrong with the keys file, before Triton is started for nothing."""
    try:
        Keys.of(settings)
    except KeysError as error:
        return [str(error)]
    return []


def _refuse(faults: list[str]) -> None:
    if faults:
        raise CannotServe("\n".join(faults))


def _announce(settings: Settings, engine: Engine, begun: float) -> None:
    web = f"http://{authority(reachable(settings.host), settings.port)}"
    inside = reachable(settings.triton_host)
    http = f"HTTP {authority(inside, settings.http_port)}, " if settings.triton_http == "on" else ""
    asks_for_keys = settings.api_key is not None or settings.keys_file is not None
    key = " -H 'Authorization: Bearer YOUR-KEY'" if asks_for_keys else ""
    say(f"""
Up after {time.monotonic() - begun:.1f} s.

  page      {web}/
  shell     curl{key} -d '{{"prompt": "你好"}}' {web}/chat
  Triton    {http}gRPC {authority(inside, settings.grpc_port)}, \
metrics {authority(inside, settings.metrics_port)}/metrics
  model     {engine.model_id}: {engine.description}

Ctrl-C ends it.
""")


if __name__ == "__main__":
    sys.exit(main())
