"""engine.json of a TensorRT-LLM engine folder: beside `ServedModel`, what made it and on which GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from build.catalogue import Profile, profiles
from build.engine_info import CHAT_TEMPLATE, TOKENIZER, ServedModel
from build.errors import BuildError
from build.tensorrt_llm.xgrammar_info import XGRAMMAR_INFO

ENGINE_FOLDER = "tensorrt_llm"  # inside the engine folder: what the C++ backend's gpt_model_path names
ENGINE_FILE = "rank0.engine"


@dataclass(frozen=True)
class TensorRTEngineInfo(ServedModel):
    """`flags` are those of trtllm-build, without the dashes; a TensorRT engine runs on one kind of GPU only.

    `gpu` is its name, `compute_capability` "8.6" for instance; `versions` names tensorrt_llm and tensorrt.
    `weights_sha256` is the checkpoint's, `engine_bytes` the size of rank0.engine. Without `tokenizer_json`
    the folder cannot be served by youtu_llm: its tokenizer is of another kind.
    """

    profile: str
    flags: dict[str, str]
    gpu: str
    compute_capability: str
    weights_sha256: str
    engine_bytes: int
    tokenizer_json: bool

    @property
    def engine_dir(self) -> Path:
        return self.path / ENGINE_FOLDER

    @property
    def max_batch_size(self) -> int:
        return int(self.flags["max_batch_size"])

    @property
    def max_seq_len(self) -> int:
        return int(self.flags["max_seq_len"])

    @property
    def tokens_per_block(self) -> int:
        return int(self.flags["tokens_per_block"])

    def run_profile(self) -> Profile:
        """The catalogue's profile it was built with. BuildError when the catalogue has it no more."""
        try:
            return profiles()[self.profile]
        except KeyError:
            raise BuildError(
                f"{self.path} was built with the profile {self.profile}, which no longer exists"
            ) from None

    def _check_files(self) -> None:
        needed = [TOKENIZER, XGRAMMAR_INFO] if self.tokenizer_json else []
        needed += [CHAT_TEMPLATE] if self.chat_template else []
        needed += [f"{ENGINE_FOLDER}/config.json", f"{ENGINE_FOLDER}/{ENGINE_FILE}"]
        for name in needed:
            if not (self.path / name).is_file():
                raise BuildError(f"{self.path / name} is missing; build the engine again")
        size = (self.engine_dir / ENGINE_FILE).stat().st_size
        if size != self.engine_bytes:
            raise BuildError(
                f"{self.engine_dir / ENGINE_FILE} has {size} bytes, not {self.engine_bytes}; build it again"
            )
