"""llama.cpp's own HTTP server, the one inside `xllamacpp`, as a process to be measured beside ours.

`python -m benchmarks.llama_server FILE.gguf --port N` serves until SIGTERM. KV cache, flash
attention, slots, context and threads as our engine has them; whatever else is its own default.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

import xllamacpp  # type: ignore[import-untyped]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llama_server", description=__doc__)
    parser.add_argument("gguf")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--context", type=int, default=2048, help="tokens a slot")
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = options.gguf
    params.hostnames, params.port = ["127.0.0.1"], options.port
    params.n_parallel, params.n_ctx = options.slots, options.slots * options.context
    params.kv_unified = False
    threads = len(os.sched_getaffinity(0))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.use_jinja = True
    server = xllamacpp.Server(params)
    sys.stdout.write(f"listening at {server.listening_address}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # its threads end with the process, and hold nothing that has to be put away
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
