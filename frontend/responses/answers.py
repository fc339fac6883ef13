"""A response of `/v1/responses` as it grows, from what was asked to its last state. Independent of events."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal

from youtu_client import Answer, ModelInfo
from youtu_contract.parts import ToolCall

from ..errors import ApiError
from ..openai.forms import chat_log_probs
from ..openai.replies import ScoredToken
from ..replies import Timings
from .items import Status, packed
from .replies import (
    Failure,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    ReasoningText,
    ResponseReply,
    ResponseUsage,
    SummaryText,
)
from .schema import ResponseRequest

CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
"""Status of an error -> code of a failed response; of all others server_error."""


def new_id(kind: str) -> str:
    """An id as OpenAI's look: resp, msg, rs or fc, and random digits."""
    return f"{kind}_{uuid.uuid4().hex}"


class Answering:
    """One request to `/v1/responses` and the response to it; `store`: whether that is kept."""

    def __init__(self, request: ResponseRequest, info: ModelInfo, *, store: bool) -> None:
        self.request = request
        self._info, self._store = info, store
        self.id = new_id("resp")
        self._created = int(time.time())

    @property
    def summarised(self) -> bool:
        """Whether the thinking is to come as a summary."""
        reasoning = self.request.reasoning
        return bool(reasoning and (reasoning.summary or reasoning.generate_summary))

    def message(self, id: str, text: str, scored: list[ScoredToken], status: Status) -> OutputMessage:
        return {
            "id": id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self.text(text, scored)],
        }

    def text(self, text: str, scored: list[ScoredToken]) -> OutputText:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": scored}

    def reasoning(self, id: str, text: str, status: Status) -> OutputReasoning:
        summary: list[SummaryText] = [{"type": "summary_text", "text": text}] if self.summarised else []
        content: list[ReasoningText] = [] if self.summarised else [{"type": "reasoning_text", "text": text}]
        return {
            "id": id,
            "type": "reasoning",
            "status": status,
            "summary": summary,
            "content": content,
            "encrypted_content": packed(text),
        }

    def call(self, id: str, call: ToolCall, status: Status) -> OutputCall:
        return {
            "id": id,
            "type": "function_call",
            "status": status,
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments if status != "in_progress" else "",
        }

    def scored(self, tokens: Any) -> list[ScoredToken]:
        """The log-probabilities of tokens, where they were asked for."""
        if not self.request.scores_text:
            return []
        return chat_log_probs(tokens or (), self.request.top_logprobs or 0)["content"]

    def output(self, answer: Answer) -> list[OutputItem]:
        """The items of a whole answer: thinking, text, calls."""
        status = end_status(answer)
        output: list[OutputItem] = []
        if answer.reasoning:
            whole = bool(answer.content or answer.tool_calls)
            output.append(self.reasoning(new_id("rs"), answer.reasoning, "completed" if whole else status))
        if answer.content or needs_message(answer):
            scored = self.scored(answer.tokens)
            output.append(self.message(new_id("msg"), answer.content, scored, status))
        output += [self.call(new_id("fc"), call, "completed") for call in answer.tool_calls]
        return output

    def begun(self, output: list[OutputItem]) -> ResponseReply:
        """The response while it is made."""
        return self._response("in_progress", output)

    def ended(self, answer: Answer, output: list[OutputItem]) -> ResponseReply:
        """The response at its end."""
        response = self._response(end_status(answer), output)
        response.completed_at = int(time.time())
        if response.status == "incomplete":
            response.incomplete_details = {"reason": "max_output_tokens"}
        response.usage = ResponseUsage.of(answer)
        response.timings = Timings.of([answer])
        return response

    def failed(self, error: ApiError, output: list[OutputItem]) -> ResponseReply:
        """The response that `error` ended."""
        response = self._response("failed", output)
        fault = error.body()["error"]
        failure: Failure = {
            "code": CODES.get(error.status, "server_error"),  # type: ignore[typeddict-item]
            "message": error.message,
            "type": fault["type"],
            "param": error.param,
        }
        response.error = failure
        return response

    def _response(self, status: Any, output: list[OutputItem]) -> ResponseReply:
        request, defaults = self.request, self._info.defaults
        asked = request.model_dump(exclude_none=True, by_alias=True)
        reasoning = request.reasoning
        return ResponseReply(
            id=self.id,
            object="response",
            created_at=self._created,
            completed_at=None,
            status=status,
            background=False,
            error=None,
            incomplete_details=None,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            max_tool_calls=request.max_tool_calls,
            model=self._info.id,
            output=list(output),
            parallel_tool_calls=request.parallel_tool_calls is not False,
            previous_response_id=request.previous_response_id,
            prompt_cache_key=request.prompt_cache_key,
            reasoning={
                "effort": reasoning.effort if reasoning else None,
                "summary": reasoning.summary if reasoning else None,
            },
            safety_identifier=request.safety_identifier,
            service_tier="default",
            store=self._store,
            temperature=_chosen(request.temperature, defaults.get("temperature"), 1.0),
            text={"format": {"type": "text"}} | asked.get("text", {}),
            tool_choice=asked.get("tool_choice", "auto"),
            tools=[{"parameters": None, "strict": None} | tool for tool in asked.get("tools", [])],
            top_logprobs=request.top_logprobs or 0,
            top_p=_chosen(request.top_p, defaults.get("top_p"), 1.0),
            truncation="disabled",
            usage=None,
            user=request.user,
            metadata=request.metadata or {},
        )


def _chosen(asked: float | None, default: float | None, otherwise: float) -> float:
    return next(value for value in (asked, default, otherwise) if value is not None)


def end_status(answer: Answer) -> Literal["completed", "incomplete"]:
    """Whether it came to its end or was cut off."""
    return "incomplete" if answer.finish_reason == "length" else "completed"


def needs_message(answer: Answer) -> bool:
    """Whether an answer without text has an empty message: not where the model only called tools, or was cut
    off while it thought."""
    cut = answer.finish_reason == "length" and bool(answer.reasoning)
    return not answer.content and not answer.tool_calls and not cut
