"""What OpenAI and Anthropic send: the body of an answer, whole or as the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

Body = Mapping[str, object]

TEXT = "in flight"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
TOKENS = {"input_tokens": 3, "output_tokens": 2}


def answer(path: str, model: str) -> bytes:
    """Return the whole answer of the route at `path`."""
    return json.dumps({**WHOLE[path](), "model": model}).encode()


def events(path: str, model: str, words: int) -> Iterator[bytes]:
    """Yield the events of a streamed answer of `words` words."""
    return STREAMED[path](model, words)


def error(status: int) -> bytes:
    """Return an error in a form that both OpenAI's and Anthropic's clients read."""
    kind = "rate_limit_error" if status == 429 else "api_error"
    what = {"message": f"the provider answers {status}", "type": kind, "param": None, "code": str(status)}
    return json.dumps({"type": "error", "error": what}).encode()


def _chat() -> Body:
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c1", "object": "chat.completion", "created": 1, "choices": [choice], "usage": USAGE}


def _completion() -> Body:
    choice = {"index": 0, "text": TEXT, "finish_reason": "stop", "logprobs": None}
    return {"id": "c1", "object": "text_completion", "created": 1, "choices": [choice], "usage": USAGE}


def _embedding() -> Body:
    vector = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
    return {"object": "list", "data": [vector], "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def _response() -> Body:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "output": [_output(TEXT)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {**TOKENS, "total_tokens": 5},
    }


def _output(text: str) -> Body:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _message() -> Body:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": TOKENS,
    }


def _data(body: object) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()


def _named(kind: str, **body: object) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **body})


def _chat_events(model: str, words: int) -> Iterator[bytes]:
    def chunk(delta: Body, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data({**_chat(), "object": "chat.completion.chunk", "model": model, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    yield from (chunk({"content": f"{word} "}) for word in range(words))
    yield chunk({}, "stop")
    yield b"data: [DONE]\n\n"


def _completion_events(model: str, words: int) -> Iterator[bytes]:
    def chunk(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
        return _data({**_completion(), "model": model, "choices": [choice]})

    yield from (chunk(f"{word} ") for word in range(words))
    yield chunk("", "stop")
    yield b"data: [DONE]\n\n"


def _response_events(model: str, words: int) -> Iterator[bytes]:
    begun = {**_response(), "model": model, "status": "in_progress", "output": [], "usage": None}
    part = {"item_id": "m1", "output_index": 0, "content_index": 0}
    steps: Iterable[tuple[str, Body]] = (
        ("response.created", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": {**_output(""), "content": []}}),
        ("response.content_part.added", {**part, "part": {"type": "output_text", "text": ""}}),
        *(("response.output_text.delta", {**part, "delta": f"{word} "}) for word in range(words)),
        ("response.output_text.done", {**part, "text": TEXT}),
        ("response.output_item.done", {"output_index": 0, "item": _output(TEXT)}),
        ("response.completed", {"response": {**_response(), "model": model}}),
    )
    for number, (kind, body) in enumerate(steps):
        yield _named(kind, sequence_number=number, **body)


def _message_events(model: str, words: int) -> Iterator[bytes]:
    begun = {**_message(), "model": model, "content": [], "stop_reason": None}
    yield _named("message_start", message=begun)
    yield _named("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in range(words):
        yield _named("content_block_delta", index=0, delta={"type": "text_delta", "text": f"{word} "})
    yield _named("content_block_stop", index=0)
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _named("message_delta", delta=ended, usage={"output_tokens": 2})
    yield _named("message_stop")


WHOLE: Mapping[str, Callable[[], Body]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embedding,
    "/v1/responses": _response,
    "/v1/messages": _message,
}

STREAMED: Mapping[str, Callable[[str, int], Iterator[bytes]]] = {
    "/v1/chat/completions": _chat_events,
    "/v1/completions": _completion_events,
    "/v1/responses": _response_events,
    "/v1/messages": _message_events,
}
