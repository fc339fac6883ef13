"""One chat request to the model, for the routes of other APIs that translate theirs into one."""

from __future__ import annotations

from collections.abc import Mapping

from youtu_client import ModelInfo

from .access import log_record
from .inference import Inference
from .openai import _opens, chat
from .openai.schema import ChatCompletion
from .openai.tokens import prompt_tokens
from .service import Service
from .translation import named


def ask(service: Service, info: ModelInfo, request: ChatCompletion, names: Mapping[str, str]) -> Inference:
    """Its one answer. `names` as in `translation`. Raises ApiError when the model cannot do what is asked."""
    with named(names):
        chat.check(request, info)
    conversation = request.conversation()
    # The ids tell how many tokens there are before the end, and how many the thinking took.
    sampling = request.sampling(0) | {"return_token_ids": True}
    opens = _opens(1, lambda choice, **call: service.served.client.stream(conversation, **sampling, **call))
    return Inference(service, opens, chat.names(request) | dict(names), request)


def count(service: Service, info: ModelInfo, request: ChatCompletion, names: Mapping[str, str]) -> int:
    """How many tokens its prompt has. Raises ApiError as `ask`; needs no slot."""
    log_record().asked = request
    with named(names):
        chat.check_tools(request, info)
    return len(prompt_tokens(service, request, chat.names(request) | dict(names)).ids)
