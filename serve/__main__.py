"""`python -m serve`, which `make serve` runs: check, build the engine if needed, start, supervise, stop.

With `--upgrade` (`make upgrade`) it starts beside a running server, replaces it and stops it
(serve.upgrade).

Exit status: 0 when it was stopped (Ctrl-C, SIGTERM, SIGHUP), 1 when it could not start or stay up, with
one line for each reason. Under make, Ctrl-C at a terminal gives 0 too. A SIGTERM or SIGINT sent to make
itself also stops everything, but make reports its own death by that signal (143 or 130).
"""

from __future__ import annotations

import argparse
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
from serve import card, preflight, run_folder, terminal, upgrade
from serve.addresses import authority
from serve.launch import Server, frontend, programs, watches
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
            return _serve(upgrading=_arguments().upgrade)
    except (SettingsError, CannotServe, BuildError, RepositoryError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"cannot serve: {line}\n")
        return 1
    except AskedToEnd:
        say("stopped before startup finished")
        return 0
    finally:
        flush()


def _ask_to_end(_number: int, _frame: FrameType | None) -> None:
    raise AskedToEnd


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve", allow_abbrev=False)
    parser.add_argument("--upgrade", action="store_true", help="replace the running server")
    return parser.parse_args()


def _serve(*, upgrading: bool) -> int:
    begun = time.monotonic()
    settings = Settings.load()
    replaced = upgrade.running(settings) if upgrading else None
    if upgrading and replaced is None:
        address = authority(settings.host, settings.port)
        raise CannotServe(f"nothing to upgrade: no server of this user responds on {address}; run make serve")
    ports = settings.ports()
    if replaced is not None:
        settings = upgrade.beside(settings)
        ports = tuple(name for name in ports if name != "port")
    if ended := run_folder.end_leftovers():
        say(f"stopped {len(ended)} processes of an earlier run whose launcher is gone")
    _refuse([*preflight.before_build(settings, ports=ports), *_keys_faults(settings)])
    if settings.triton_servers:
        return _serve_frontend(settings, begun, replaced)
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
            say(f"{folder} is not writable: the logs of this run are in {run.logs} until it ends")
        both = "Triton" if settings.frontend == "off" else "Triton and the frontend"
        say(f"starting {both} with {engine.model_id} (logs: {run.logs})")
        started = programs(settings, engine, run, replaced)

        def up() -> None:
            _announce(settings, engine, begun)
            _end_replaced(replaced)

        return Server(started, run, watches(settings, run), up, settings.hang_timeout).run()
    finally:
        run.close()


def _end_replaced(replaced: upgrade.Running | None) -> None:
    if replaced is not None:
        say("this server accepts all new requests; the previous one finishes its answers and stops")
        replaced.end()


def _serve_frontend(settings: Settings, begun: float, replaced: upgrade.Running | None) -> int:
    """The frontend alone, for Tritons that others started."""
    run = RunFolder(settings.data_dir.absolute())
    try:
        say(f"starting the frontend for {settings.triton_servers} (logs: {run.logs})")
        started = [frontend(settings, run, replaced)]

        def up() -> None:
            say(f"Up after {time.monotonic() - begun:.1f} s: {_web(settings)}/")
            _end_replaced(replaced)

        return Server(started, run, watches(settings, run), up, settings.hang_timeout).run()
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


def _web(settings: Settings) -> str:
    return f"http://{authority(reachable(settings.host), settings.port)}"


def _announce(settings: Settings, engine: Engine, begun: float) -> None:
    web = _web(settings)
    inside = reachable(settings.triton_host)
    http = f"HTTP {authority(inside, settings.http_port)}, " if settings.triton_http == "on" else ""
    asks_for_keys = settings.api_key is not None or settings.keys_file is not None
    key = " -H 'Authorization: Bearer YOUR-KEY'" if asks_for_keys else ""
    pages = f"""
  page      {web}/
  shell     curl{key} -d '{{"prompt": "你好"}}' {web}/chat"""
    say(f"""
Up after {time.monotonic() - begun:.1f} s.
{"" if settings.frontend == "off" else pages}
  Triton    {http}gRPC {authority(inside, settings.grpc_port)}, \
metrics {authority(inside, settings.metrics_port)}/metrics
  model     {engine.model_id}: {engine.description}

Press Ctrl-C to stop.
""")


if __name__ == "__main__":
    sys.exit(main())
