"""The one settings object: read and checked once at the start, frozen, handed down.

Every setting is an environment variable or a key of a TOML file (serve.setting_sources). A name that does not
exist and a value that does not fit stop the start, all reported at once. This module has the limits
of each single setting; checks against machine and model are in `serve.preflight`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import limits
from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from typing_extensions import Self

from build.catalogue import profiles
from serve import setting_sources
from serve.addresses import authority, numeric

_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1)]


class SettingsError(Exception):
    """Settings that cannot be used: one readable line per fault, each naming its variable or key."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Settings(BaseModel):
    """All settings with their defaults; `Settings.load()` reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Name = Field(
        default="demo",
        description="What to serve: `demo`, `smollm2`, a name on the Hugging Face hub, a checkpoint folder "
        "or a `.gguf` file. `MODEL=` of make sets it.",
    )
    hub: Literal["auto", "huggingface", "modelscope"] = Field(
        default="auto",
        description="Where a name on a hub is fetched from: `huggingface` (HF_ENDPOINT, HF_TOKEN) or "
        "`modelscope` (MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN); `auto` uses ModelScope "
        "when Hugging Face does not respond.",
    )
    engine: Literal["youtu_engine", "tensorrt_llm"] = Field(
        default="youtu_engine",
        description="Inference engine: `youtu_engine`, this project's own, on any CPU; `tensorrt_llm` on "
        "an NVIDIA GPU, inside NVIDIA's container (docs/tensorrt_llm.md). `ENGINE=` of make "
        "sets it. `llama_cpp`, the earlier name of `youtu_engine`, still works.",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="Where `youtu_engine` runs: `cuda` is an NVIDIA GPU with driver 580 or newer, for "
        "which llama.cpp is compiled once (docs/cuda.md). `DEVICE=` of make sets it.",
    )
    runtime: Literal["auto", "llama_cpp", "openvino"] = Field(
        default="auto",
        description="Runtime of `youtu_engine`: `llama_cpp`, or `openvino`, which is faster on a "
        "processor with VNNI instructions but does not read .gguf files; `auto` chooses "
        "(docs/runtimes.md).",
    )
    profile: Name = Field(
        default="8gb",
        description="How the GPU engine is built and run: a profile of build/catalogue.toml, `8gb`, `24gb` "
        "or `int8-kv`. `PROFILE=` of make sets it.",
    )
    data_dir: Path = Field(default=Path("var"), description="Folder for downloads, engines and logs.")

    host: Name = Field(
        default="127.0.0.1",
        description="Address of the web frontend. `0.0.0.0` opens it to the network, which requires keys.",
    )
    port: Port = Field(default=8080, description="Port of the web frontend.")
    triton_host: Name = Field(
        default="127.0.0.1",
        description="Address on which Triton listens and the frontend connects to it; a name is resolved "
        "once, at the start. Triton itself requires no key (docs/ports.md).",
    )
    triton_servers: str = Field(
        default="",
        description="Triton servers on other machines or ports for the frontend to use: `host:port` "
        "(gRPC), comma-separated; a name with several addresses counts as that many servers. "
        "Only the frontend is started then (docs/servers.md).",
    )
    frontend: Literal["on", "off"] = Field(
        default="on",
        description="`off` starts only Triton, for frontends elsewhere (docs/servers.md).",
    )
    triton_http: Literal["on", "off"] = Field(
        default="on",
        description="`off` closes Triton's HTTP port; gRPC and metrics stay. Most of Triton's published bugs "
        "are reached over HTTP (docs/ports.md).",
    )
    triton_shared_memory: Literal["off", "on"] = Field(
        default="off",
        description="`on` lets Triton clients register shared memory; anyone who can reach Triton's ports "
        "can then read and write the memory of its models (docs/ports.md).",
    )
    http_port: Port = Field(default=8000, description="Triton's HTTP port.")
    grpc_port: Port = Field(default=8001, description="Triton's gRPC port.")
    metrics_port: Port = Field(default=8002, description="Port of Triton's Prometheus metrics.")
    api_key: SecretStr | None = Field(
        default=None,
        description="If set, the frontend requires `Authorization: Bearer <key>`. Printable ASCII, no "
        "spaces.",
    )
    keys_file: Path | None = Field(
        default=None,
        description="File of further API keys, one `name sha256:<hash>` per line, with mode 0600. `make "
        "key NAME=...` adds one. Changes take effect at once.",
    )
    keys: Literal["auto", "off"] = Field(
        default="auto",
        description="`auto`: a `host` other than loopback must have an `api_key` or a `keys_file`. `off`: "
        "no key is required from anyone who can reach the address.",
    )
    hosts: str = Field(
        default="",
        description="Host names of this server for use without keys, besides `localhost`, IP addresses "
        "and `host`: `chat.example`, `*.example` for its subdomains, comma-separated, `*` for "
        "any. A request with another name in its Host header is refused, since any website "
        "can point its own name at this server.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may call the API, such as `https://shop.example`; "
        "comma-separated, `*` for all. Empty: only this server's own page.",
    )
    rate_limit: str = Field(
        default="",
        description="Rate limit of one key (or address, without keys) on all generating routes together, "
        "such as `60/minute` or `10/second;1000/day`. Empty: no limit.",
    )
    rate_storage: str = Field(
        default="",
        pattern=r"^(rediss?://\S+)?$",
        description="Redis in which several frontends share their counts, such as "
        "`redis://:password@redis:6379/0`. While it does not respond, each counts on its own. "
        "Empty: each always counts on its own.",
    )

    slots: int = Field(
        default=4,
        ge=1,
        le=256,
        description="Requests that generate at the same time, each with its part of the KV cache. For "
        "`youtu_engine`, which with `device = cuda` uses as many as fit the GPU; TensorRT-LLM "
        "takes the number from its profile.",
    )
    queue: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Requests that may wait for a slot; one more is refused.",
    )
    context: int = Field(
        default=2048,
        ge=32,
        le=131_072,
        description="Tokens of prompt and answer together, per request; at most the model's limit. With "
        "`device = cuda` the default is 8192, or less on a small GPU.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Threads of the CPU engine; 0: one per core, or a single one for a tiny model.",
    )
    prefill_chunk: int = Field(
        default=64,
        ge=8,
        le=4096,
        description="Prompt tokens per step of `youtu_engine`. Smaller values delay running answers and "
        "cancellation less; larger ones read long prompts a little faster. With `device = "
        "cuda` the default is 512, with OpenVINO 128.",
    )
    kv_type: Literal["f16", "f32", "q8_0"] = Field(
        default="f16",
        description="Number format of the CPU engine's KV cache. `q8_0` halves its memory, and is the "
        "default with OpenVINO; `f32` is for comparisons.",
    )

    temperature: float = Field(
        default=0.7, ge=0, le=2, description="Sampling temperature of requests that set none; 0 is greedy."
    )
    top_p: float = Field(default=0.9, gt=0, le=1, description="top_p of requests that set none.")
    repetition_penalty: float = Field(
        default=1.1, gt=0, le=2, description="Repetition penalty of requests that set none; 1 is off."
    )

    thinking: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether a model that can think does so before answering if the request does not say; "
        "`auto` leaves it to the chat template.",
    )

    describe_tools: Literal["on", "off"] = Field(
        default="on",
        description="Whether tools are described in the system message to a model whose chat template "
        "does not support them (docs/api.md). `off`: requests with tools are refused for such "
        "a model.",
    )
    served_model_name: str = Field(
        default="",
        description="Name of the model in the API instead of its own; comma-separated for several, of "
        "which replies use the first.",
    )

    stream_interval_ms: int = Field(
        default=25,
        ge=0,
        le=1000,
        description="Minimum milliseconds between two pieces of a stream: tokens generated sooner are "
        "sent together (docs/contract.md). 0 sends every token as its own piece as long as "
        "the server keeps up.",
    )
    request_timeout: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="Time limit of one answer in seconds; after it the frontend replies 504.",
    )
    drain_timeout: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds that running answers have to finish when the server is stopped.",
    )
    leave_timeout: float = Field(
        default=0.0,
        ge=0,
        le=300,
        description="Seconds after the signal to stop during which requests are still accepted while "
        "`/health/ready` replies 503, so that a load balancer notices. Then `drain_timeout` "
        "begins.",
    )
    hang_timeout: float = Field(
        default=15.0,
        ge=0,
        le=3600,
        description="Seconds without progress after which a process is considered hung and replaced. "
        "Computing counts as progress, however long a step takes. 0: never.",
    )
    keep_alive: int = Field(
        default=75,
        ge=1,
        le=3600,
        description="Seconds the frontend keeps an idle connection open. It should exceed the idle "
        "timeout of a load balancer in front, usually 60 s.",
    )
    max_body: ByteSize = Field(
        default=ByteSize(1024 * 1024),
        ge=1024,
        le=256 * 1024 * 1024,
        description="Largest request body the frontend accepts, in bytes or written like `2MiB`.",
    )
    documents_dir: Path | None = Field(
        default=None,
        description="Folder whose documents are the knowledge base (docs/documents.md). Anyone with "
        "access to the model can have all of them quoted.",
    )
    document_size: ByteSize = Field(
        default=ByteSize(20 * 1024 * 1024),
        ge=1024,
        le=256 * 1024 * 1024,
        description="Largest file of `POST /documents` and of the knowledge base, in bytes or written like "
        "`20MiB`.",
    )
    document_seconds: float = Field(
        default=30.0,
        ge=1,
        le=600,
        description="Time limit for reading one document in seconds; after it the document is refused.",
    )
    document_memory: ByteSize = Field(
        default=ByteSize(512 * 1024 * 1024),
        ge=128 * 1024 * 1024,
        le=64 * 1024**3,
        description="Memory limit of the process that reads one document. Two are read at once.",
    )
    stored_responses: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Number of responses of `/v1/responses` stored for each key (or address, without "
        "keys), so that a later request can continue them. 0 stores none.",
    )
    stored_size: ByteSize = Field(
        default=ByteSize(64 * 1024 * 1024),
        ge=1024 * 1024,
        le=64 * 1024**3,
        description="Memory for all stored responses together. When it is full, the oldest response of "
        "the key that uses the most memory is removed.",
    )
    stored_age: float = Field(
        default=86_400.0,
        gt=0,
        le=31_536_000,
        description="Seconds for which a response is stored after its last use. A restart deletes all.",
    )
    otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^\s/]+)?/?$",
        description="OpenTelemetry collector (OTLP over HTTP) for traces, such as `http://localhost:4318`. "
        "Empty: no traces.",
    )
    log_text: Literal["off", "on"] = Field(
        default="off",
        description="`on` writes prompts and answers into the log, visible to anyone who can read it.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )

    @field_validator("engine", mode="before")
    @classmethod
    def _by_its_present_name(cls, engine: object) -> object:
        return "youtu_engine" if engine == "llama_cpp" else engine

    @field_validator("profile")
    @classmethod
    def _is_in_the_catalogue(cls, profile: str) -> str:
        if profile not in profiles():
            raise ValueError(f"should be one of {', '.join(profiles())}")
        return profile

    @field_validator("triton_host")
    @classmethod
    def _is_one_address(cls, host: str) -> str:
        return numeric(host)

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not all(
            "!" <= character <= "~" for character in key.get_secret_value() or " "
        ):
            raise ValueError("should be printable ASCII without spaces, at least one character")
        return key

    @field_validator("triton_servers")
    @classmethod
    def _are_addresses(cls, servers: str) -> str:
        from youtu_client.servers import addresses  # gRPC is not loaded for settings that name none

        return ",".join(addresses(servers)) if servers else ""

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, rate: str) -> str:
        if rate:
            try:
                limits.parse_many(rate)
            except ValueError:
                raise ValueError("should be written like `60/minute`") from None
        return rate

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: str) -> str:
        for host in hosts.split(",") if hosts else []:
            if not _HOST.fullmatch(host.strip()):
                raise ValueError(
                    "should be names like `chat.example` or `*.chat.example`, comma-separated, without "
                    "scheme or port"
                )
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: str) -> str:
        for origin in origins.split(",") if origins else []:
            if origin.strip() != "*" and not _ORIGIN.fullmatch(origin.strip()):
                raise ValueError("should be origins like `https://shop.example`, comma-separated")
        return origins

    @model_validator(mode="after")
    def _keys_where_needed(self) -> Self:
        given = self.api_key is not None or self.keys_file is not None
        if self.keys == "off" and given:
            raise ValueError(
                "YOUTU_KEYS is off but YOUTU_API_KEY or YOUTU_KEYS_FILE is set; unset one of them"
            )
        if self.keys == "auto" and not given and not loopback(self.host):
            raise ValueError(
                f"YOUTU_HOST={self.host} opens the frontend to others: set YOUTU_API_KEY or YOUTU_KEYS_FILE, "
                "or YOUTU_KEYS=off to let everybody in"
            )
        return self

    @model_validator(mode="after")
    def _something_is_started(self) -> Self:
        if self.triton_servers and self.frontend == "off":
            raise ValueError(
                "YOUTU_TRITON_SERVERS starts only the frontend and YOUTU_FRONTEND=off only Triton: "
                "unset one of them"
            )
        return self

    @model_validator(mode="after")
    def _device_fits_engine(self) -> Self:
        if self.device == "cuda" and self.engine == "tensorrt_llm":
            raise ValueError("YOUTU_DEVICE=cuda applies to youtu_engine; tensorrt_llm needs no YOUTU_DEVICE")
        if self.runtime == "openvino" and self.device == "cuda":
            raise ValueError("YOUTU_RUNTIME=openvino runs on the CPU; YOUTU_DEVICE=cuda requires llama_cpp")
        if self.runtime != "auto" and self.engine == "tensorrt_llm":
            raise ValueError("YOUTU_RUNTIME applies to youtu_engine only; tensorrt_llm has no other runtime")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        seen: dict[int, str] = {}
        for name in self.ports():
            port = getattr(self, name)
            if port in seen:
                raise ValueError(f"{seen[port]} and {name} are both {port}; each needs a port of its own")
            seen[port] = name
        return self

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment (`os.environ` unless given; empty counts as not set) and the TOML file.

        Raises SettingsError with one line per unknown name, unreadable file or unfit value.
        """
        faults: list[str] = []
        given = setting_sources.read(os.environ if environ is None else environ, cls.model_fields, faults)
        settings = None
        try:
            settings = cls(**{name: value for name, (_, value) in given.items()})
        except ValidationError as error:
            faults += [_sentence(fault, given) for fault in error.errors()]
        if settings is None or faults:
            raise SettingsError(faults)
        return settings

    def ports(self) -> tuple[str, ...]:
        """The names of the ports that are listened on."""
        web = () if self.frontend == "off" else ("port",)
        http = ("http_port",) if self.triton_http == "on" else ()
        return web if self.triton_servers else (*web, *http, "grpc_port", "metrics_port")

    @property
    def triton_grpc_address(self) -> str:
        """host:port where this machine reaches Triton's gRPC port."""
        return authority(reachable(self.triton_host), self.grpc_port)

    def to_document(self) -> str:
        """All settings as they apply, secrets included, as JSON: what a program is handed at its start.

        Paths are absolute, since the program runs in another folder.
        """
        content = self.model_dump(mode="json") | {"data_dir": str(self.data_dir.absolute())}
        if self.keys_file is not None:
            content["keys_file"] = str(self.keys_file.absolute())
        if self.documents_dir is not None:
            content["documents_dir"] = str(self.documents_dir.absolute())
        if self.api_key is not None:
            content["api_key"] = self.api_key.get_secret_value()
        return json.dumps(content)

    @classmethod
    def from_document(cls, path: Path) -> Settings:
        """Read what `to_document` wrote. Raises OSError or ValidationError."""
        return cls.model_validate_json(path.read_bytes())


def _sentence(fault: ErrorDetails, given: Mapping[str, tuple[str, Any]]) -> str:
    message = fault["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    if fault["type"] == "path_type":  # names a Python class otherwise
        message = "should be a path"
    if not fault["loc"]:
        return message
    origin, value = given[str(fault["loc"][0])]
    secret = fault["loc"][0] in ("api_key", "rate_storage")  # a key or a password is never shown
    sent = "" if secret else f", not {value!r}"
    return f"{origin}: {message[0].lower()}{message[1:]}{sent}"


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address that is listened on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable(host: str) -> str:
    """An address to connect to for one that is listened on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
