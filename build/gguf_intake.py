"""Import an existing .gguf file: link to it, and rebuild its tokenizer as a tokenizer.json.

The weights are not copied: model.gguf in the engine folder is a link, so opening an engine opens the
same name whatever it came from, and a file that has gone is reported as such. llama.cpp loads the file once
before it is taken in: what it cannot load is refused with its reason, and where the rebuilt tokenizer splits
a text otherwise than llama.cpp's, a warning says so.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import gguf

from build.chat_template import ChatTemplates, check
from build.engine_info import GGUF, TOKENIZER, ModelFacts
from build.errors import BuildError
from build.gguf_trial import trial
from build.gguf_vocabulary import Vocabulary
from build.pointer import refuse_pointer
from build.progress import Report, silent

log = logging.getLogger(__name__)

# deepseek2 is Youtu's; chatglm and baichuan are those of the comparison table.
ARCHITECTURES = ("deepseek2", "llama", "qwen2", "qwen3", "chatglm", "baichuan")
SAMPLES = (
    "Hello, world! It's 3:45 pm, isn't it? We'LL see…",
    " two  spaces\n\n\tand tabs\r\n  at the end   ",
    "def add(a, b):\n    return a+b  # 12345 + 67.89",
    "你好，世界！我想退货，订单号是2024-0815。",
    "Füße, naïve café, Ελλάδα, Москва, 東京タワー, 한국어, العربية",
    "👩‍💻🚀 e\u0301 \u00a0\u3000 ½ x² №5",
)


def take_in(path: Path, folder: Path, progress: Report = silent) -> ModelFacts:
    """Put model.gguf (a link), tokenizer.json and, if there is one, chat_template.jinja into `folder`.

    BuildError when `path` is not a complete GGUF file, when its architecture or tokenizer is unsupported,
    or when llama.cpp cannot load it.
    """
    progress(f"Reading {path.name}", 0, path.stat().st_size)
    reader = _open(path)
    parts = _value(reader, "split.count")
    if isinstance(parts, int) and parts > 1:
        raise BuildError(f"{path} is one of {parts} parts: join them with llama-gguf-split --merge first")
    architecture = _value(reader, "general.architecture")
    if architecture not in ARCHITECTURES:
        raise BuildError(
            f"{path}: general.architecture must be one of {', '.join(ARCHITECTURES)}, found {architecture}"
        )
    vocabulary = Vocabulary(lambda key: _value(reader, key), str(path))
    templates = _templates(reader, path)
    context = _value(reader, f"{architecture}.context_length")
    if not isinstance(context, int) or context < 1:
        raise BuildError(
            f"{path}: {architecture}.context_length must be a whole number above 0, found {context!r}"
        )

    tokenizer = vocabulary.tokenizer()
    for text, ids in zip(SAMPLES, trial(path, SAMPLES), strict=True):
        # llama.cpp takes upper and lower case for one in youtu's vocabulary, its own tokenizer.json does not
        if vocabulary.pre != "youtu" and tokenizer.encode(text, add_special_tokens=False).ids != ids:
            log.warning("%s: its text is split differently than by llama.cpp, for example %r", path, text)
            break
    tokenizer.save(str(folder / TOKENIZER))
    templates.write(folder)
    (folder / GGUF).symlink_to(path.resolve())
    progress(f"Reading {path.name}", path.stat().st_size, path.stat().st_size)
    return ModelFacts(
        architecture=architecture,
        vocab_size=len(vocabulary.tokens),
        context_length=context,
        special_tokens={
            name: vocabulary.tokens[index]
            for name, index in (
                ("bos_token", vocabulary.bos),
                ("eos_token", next(iter(vocabulary.ends), None)),
            )
            if index is not None
        },
        bos_token_id=vocabulary.bos,
        eos_token_ids=vocabulary.ends,
        add_bos=vocabulary.add_bos,
        weights=_file_type(reader),
        parameters=sum(math.prod(int(n) for n in tensor.shape) for tensor in reader.tensors),
    )


def _templates(reader: gguf.GGUFReader, path: Path) -> ChatTemplates:
    found: list[str | None] = []
    for key in ("tokenizer.chat_template", "tokenizer.chat_template.tool_use"):
        source = _value(reader, key)
        found.append(source if isinstance(source, str) and source else None)
        if found[-1]:
            check(found[-1], f"{path}: {key}")
    return ChatTemplates(*found)


def _open(path: Path) -> gguf.GGUFReader:
    size = path.stat().st_size
    refuse_pointer(path)
    with path.open("rb") as file:
        magic, version = file.read(4), file.read(4)
    if magic != b"GGUF":
        raise BuildError(f"{path} is not a GGUF file: it starts with {magic!r}, not b'GGUF'")
    if len(version) == 4 and not any(version[:2]):
        raise BuildError(f"{path} is a big-endian GGUF file, but llama.cpp reads little-endian ones here")
    try:
        reader = gguf.GGUFReader(path)
        for tensor in reader.tensors:
            if tensor.data_offset + tensor.n_bytes > size:
                raise ValueError(f"tensor {tensor.name} extends beyond the file")
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
        UnicodeDecodeError,
        MemoryError,
    ) as error:
        raise BuildError(f"{path} is truncated or damaged ({size} bytes): {error}") from None
    if not reader.tensors:
        raise BuildError(f"{path} contains only a vocabulary, no weights")
    return reader


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _file_type(reader: gguf.GGUFReader) -> str:
    """What llama.cpp calls the mix of tensor types, e.g. Q8_0 or Q4_K_M."""
    value = _value(reader, "general.file_type")
    try:
        return gguf.LlamaFileType(value).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "unknown"
