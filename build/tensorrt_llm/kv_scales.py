"""Calibrate an int8 KV cache: one scale per layer, from what keys and values reach on sample conversations.

`python -m build.tensorrt_llm.kv_scales SOURCE OUT.json [--samples FILE]`. TensorRT-LLM keeps keys and
values of a layer under one static scale, their largest magnitude / 127. The layers run one after another
over all samples, so that the weights of one are in memory at a time. Needs torch and transformers, which
NVIDIA's container has.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from build.checkpoint import Weights
from build.config import Shape, read_shape
from build.demo.conversations import Message, load_corpus
from build.errors import BuildError
from build.progress import Report, TerminalProgress, silent
from build.source_state import source_state
from build.tensorrt_llm.checkpoint_config import checkpoint_config
from build.tensorrt_llm.convert import read_scales
from build.tensorrt_llm.tensors import plan, refuse_unsupported
from build.tensorrt_llm.tokenizer_folder import write_tokenizer

if TYPE_CHECKING:
    import torch

SAMPLE_TOKENS = 1024  # of one conversation; longer ones are cut


def calibrate(
    source: Path,
    output: Path,
    *,
    samples: Sequence[list[Message]] | None = None,
    progress: Report = silent,
) -> list[float]:
    """The scales of the Hugging Face folder `source`, one per layer, for build.tensorrt_llm.convert.

    Written to `output`, and read from there when it holds the scales of this state of `source`. `samples`
    are conversations, each a list of {"role", "content"}; when none are given, the demonstration's corpus
    (Chinese, English, code). BuildError when the checkpoint or its chat template does not take them.
    """
    shape = read_shape(source)
    refuse_unsupported(shape)
    state = source_state(source)
    if samples is None and (found := _finished(output, state, shape)):
        return found
    conversations = [fact.messages for fact in load_corpus()] if samples is None else samples
    tokens = _encode(source, shape, conversations)
    scales = _measure(source, shape, tokens, progress)
    facts = {
        "source": state,
        "own_samples": samples is not None,
        "conversations": len(conversations),
        "tokens": sum(map(len, tokens)),
        "scales": scales,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.part")
    draft.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    draft.replace(output)
    return scales


def _finished(output: Path, state: str, shape: Shape) -> list[float] | None:
    try:
        facts = json.loads(output.read_text(encoding="utf-8"))
        known = facts["source"] == state and not facts["own_samples"]
        scales = read_scales(output)
    except (OSError, ValueError, KeyError, TypeError, BuildError):
        return None
    return scales if known and len(scales) == shape.num_hidden_layers else None


def _encode(source: Path, shape: Shape, conversations: Sequence[list[Message]]) -> list[list[int]]:
    """Each conversation as the model sees it; with the special tokens, whose keys are often the largest."""
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(source, Path(folder), shape.vocab_size)
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    if tokenizer.chat_template is None:
        raise BuildError(f"{source} has no chat template, which the samples need")
    try:
        texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
    except Exception as error:  # whatever the template raises
        raise BuildError(f"the chat template of {source} rejects a sample: {error}") from error
    encoded = [
        tokenizer(text, add_special_tokens=False)["input_ids"][:SAMPLE_TOKENS] for text in texts if text
    ]
    if not encoded:
        raise BuildError("no sample conversation to calibrate with")
    return encoded


def _measure(source: Path, shape: Shape, tokens: list[list[int]], progress: Report) -> list[float]:
    import torch

    from build.tensorrt_llm.reference import Layer, Sizes

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = checkpoint_config(
        shape, dtype="float32", max_positions=SAMPLE_TOKENS, int8_weights=False, int8_kv=False
    )
    sizes, scales = Sizes.of(config), []
    with torch.no_grad(), Weights(source, shape) as stored:
        planned = {tensor.name: tensor for tensor in plan(shape, stored, "bfloat16")}

        def weights(name: str) -> torch.Tensor:
            tensor = planned[name]
            values = np.concatenate([chunk.reshape(-1) for chunk in tensor.chunks()])
            return torch.from_numpy(values.reshape(tensor.shape)).to(device)

        rows = {
            token: torch.from_numpy(stored.rows("model.embed_tokens.weight", token, token + 1))
            for token in sorted({token for sample in tokens for token in sample})
        }
        layer_bytes = sum(t.nbytes for t in planned.values() if ".layers.0." in t.name)
        total = layer_bytes * shape.num_hidden_layers
        states = [torch.cat([rows[token] for token in sample]).to(device) for sample in tokens]
        for number in range(shape.num_hidden_layers):
            layer, largest = Layer(sizes, number, weights), 0.0
            for index, hidden in enumerate(states):
                largest = max(largest, layer.reach(hidden))
                states[index] = layer(hidden)[0]
                done = number * layer_bytes + layer_bytes * (index + 1) // len(states)
                progress("Calibrating the KV cache", done, total)
            scales.append(largest / 127)
    return scales


def main() -> None:
    """The command line; exit status 1 and one line on stderr when the checkpoint is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m build.tensorrt_llm.kv_scales", description=__doc__.splitlines()[0]
    )
    parser.add_argument("source", type=Path, help="folder with config.json, tokenizer.json and *.safetensors")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--samples", type=Path, help='JSON lines of {"messages": [{"role", "content"}, ...]}')
    arguments = parser.parse_args()
    progress = TerminalProgress()
    try:
        samples = None if arguments.samples is None else _read_samples(arguments.samples)
        scales = calibrate(arguments.source, arguments.output, samples=samples, progress=progress)
    except BuildError as error:
        progress.close()
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{arguments.output}: {len(scales)} layers, {min(scales):.4g} to {max(scales):.4g}\n")


def _read_samples(path: Path) -> list[list[Message]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["messages"] for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f'{path} must hold one {{"messages": [...]}} of JSON per line: {error!r}') from None


if __name__ == "__main__":
    main()
