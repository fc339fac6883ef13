"""Run by the container's Python: an engine against the torch reference of its own checkpoint; prints JSON.

Arguments: engine folder, checkpoint folder, tokens of the prompt, tokens to generate. The engine runs in the
executor that the C++ backend uses too. `distance` is the rms of the difference of the context logits over the
rms of the reference's; `gap` is by how much, in the same unit, the reference would at most have preferred
another token than one that the engine took: 0 when all are its own.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from build.config import read_json
from build.tensorrt_llm.convert import complete
from build.tensorrt_llm.reference import Reference


def main() -> None:
    import tensorrt_llm.bindings.executor as trtllm
    import torch

    engine, checkpoint, length, count = (
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
    )
    config = read_json(checkpoint / "config.json")
    prompt = random.Random(0).choices(range(config["vocab_size"]), k=length)  # noqa: S311

    # Reuse is on by default, and refused where an int8 cache has no paged context attention.
    cache = trtllm.KvCacheConfig(enable_block_reuse=False, free_gpu_memory_fraction=0.3)
    executor = trtllm.Executor(
        engine,
        trtllm.ModelType.DECODER_ONLY,
        trtllm.ExecutorConfig(1, kv_cache_config=cache),
    )
    output_config = trtllm.OutputConfig()
    output_config.return_context_logits, output_config.exclude_input_from_output = True, True
    request = trtllm.Request(
        input_token_ids=prompt,
        max_tokens=count,
        sampling_config=trtllm.SamplingConfig(top_k=1),
        output_config=output_config,
    )
    (response,) = executor.await_responses(executor.enqueue_request(request))
    if response.has_error():
        sys.exit(response.error_msg)
    tokens = list(response.result.output_token_ids[0])
    logits = response.result.context_logits.float().cpu().reshape(length, -1)[:, : config["vocab_size"]]
    executor.shutdown()

    quantised = config["quantization"]
    record = complete(checkpoint)
    reference = Reference(
        checkpoint,
        int8_weights=quantised["quant_algo"] == "W8A16",
        kv_scales=record.kv_scales if record else None,
    )
    rows, _ = reference.logits(prompt + tokens[:-1])
    unit = rows[:length].square().mean().sqrt()
    made = rows[length - 1 :]
    taken = made.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    found = {
        "distance": float((logits - rows[:length]).square().mean().sqrt() / unit),
        "gap": float((made.max(dim=1).values - taken).max() / unit),
        "same": int((made.argmax(dim=1) == torch.tensor(tokens)).sum()),
        "tokens": len(tokens),
    }
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
