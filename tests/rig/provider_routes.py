"""The provider's routes: what a request there is about, and what it is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import Any

from tests.rig import wire

JSON = "application/json"
UNNAMED = "gated:unnamed"
"""The model of a request that names none: the provider holds it at the caller's gate."""

Whole = Callable[["Asked"], bytes]


@dataclass(frozen=True)
class Asked:
    """What a request says: where it came, the model it names, and its body as a table."""

    path: str
    model: str
    body: Mapping[str, Any]

    @property
    def streams(self) -> bool:
        """Whether the answer is to come as a stream of events."""
        return self.body.get("stream") is True or "stream" in self.path.rpartition(":")[2].lower()


@dataclass(frozen=True)
class ProviderRoute:
    """The paths that match `path`; if it has a group, that is the name of the model."""

    path: str
    whole: Whole
    events: Callable[[str, int], Iterator[bytes]] | None = None
    kind: str = JSON


def route(path: str) -> ProviderRoute | None:
    """Return the route of `path`, if there is one."""
    return next((one for one in ROUTES if re.fullmatch(one.path, path)), None)


def asked(path: str, content_type: str, body: bytes) -> Asked:
    """Return what the request says; a form's fields count as a JSON body's do."""
    said = _form(content_type, body) if content_type.startswith("multipart/") else _json(body)
    return Asked(path, _model(path, said), said)


def _model(path: str, body: Mapping[str, Any]) -> str:
    one = route(path)
    match = re.fullmatch(one.path, path) if one else None
    named = match.group(1) if match and match.groups() else body.get("model") or _session(body).get("model")
    return named if isinstance(named, str) and named else UNNAMED


def _session(body: Mapping[str, Any]) -> Mapping[str, Any]:
    session = body.get("session")
    return session if isinstance(session, dict) else {}


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _form(content_type: str, body: bytes) -> Mapping[str, Any]:
    head = f"content-type: {content_type}\r\n\r\n".encode()
    parts = message_from_bytes(head + body, policy=policy.HTTP).iter_parts()
    return {
        str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True).decode()  # type: ignore[union-attr]
        for part in parts
        if part.get_filename() is None
    }


def _of(wire_path: str) -> Whole:
    return lambda asked: wire.answer(wire_path, asked.model)


def _fixed(**body: object) -> Whole:
    return lambda _: json.dumps(body).encode()


def _response(asked: Asked) -> bytes:
    """Answer, or ask for the tool `ok` first if the model is one that does so."""
    tools = [tool["name"] for tool in asked.body.get("tools") or () if str(tool.get("name")).endswith("ok")]
    if not asked.model.startswith("calls-tool") or not tools or _has_asked(asked.body.get("input")):
        return wire.answer("/v1/responses", asked.model)
    wish = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": tools[0],
        "arguments": "{}",
        "status": "completed",
    }
    return json.dumps({**json.loads(wire.answer("/v1/responses", asked.model)), "output": [wish]}).encode()


def _has_asked(turns: object) -> bool:
    return isinstance(turns, list) and any(turn.get("type") == "function_call_output" for turn in turns)


def _sound(_: Asked) -> bytes:
    return b"ID3" + wire.TEXT.encode()


def _candidates(text: str) -> bytes:
    content = {"role": "model", "parts": [{"text": text}]}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    return json.dumps({"candidates": [candidate], "usageMetadata": usage}).encode()


def _candidate_events(_: str, words: int) -> Iterator[bytes]:
    return (b"data: " + _candidates(f"{word} ") + b"\n\n" for word in range(words))


_FILE = {
    "id": "file-1",
    "object": "file",
    "bytes": 2,
    "created_at": 1,
    "filename": "one.jsonl",
    "purpose": "batch",
    "status": "processed",
}
_BATCH = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "in_progress",
    "created_at": 1,
}
_JOB = {
    "id": "ftjob-1",
    "object": "fine_tuning.job",
    "created_at": 1,
    "hyperparameters": {},
    "model": "ok",
    "organization_id": "org",
    "result_files": [],
    "seed": 1,
    "status": "queued",
    "training_file": "file-1",
}
_VIDEO = {"id": "video_1", "object": "video", "status": "queued", "created_at": 1, "model": "ok"}
_STORE = {"id": "vs_1", "object": "vector_store", "created_at": 1, "name": "one", "status": "completed"}
_CONTAINER = {
    "id": "cntr_1",
    "object": "container",
    "created_at": 1,
    "name": "one",
    "status": "running",
    "expires_after": {"anchor": "last_active_at", "minutes": 20},
    "last_active_at": 1,
}
_IMAGES = _fixed(created=1, data=[{"b64_json": "aGk="}])
_RESULTS = _fixed(id="r1", results=[{"index": 0, "relevance_score": 0.5}], meta={"billed_units": {}})
_FLAGS = _fixed(id="m1", model="ok", results=[{"flagged": False, "categories": {}, "category_scores": {}}])
_FOUND = _fixed(object="vector_store.search_results.page", search_query=["?"], data=[], has_more=False)
_COMPACTED = _fixed(id="resp_1", object="response.compaction", created_at=1, output=[])
_SECRET = _fixed(value="secret", expires_at=1, session={"type": "realtime", "id": "sess_1"})
_PAGES = _fixed(pages=[{"index": 0, "markdown": wire.TEXT}], model="ok", usage_info={"pages_processed": 1})

ROUTES: Iterable[ProviderRoute] = (
    ProviderRoute("/v1/responses", _response, wire.STREAMED["/v1/responses"]),
    *(ProviderRoute(re.escape(path), _of(path), wire.STREAMED.get(path)) for path in wire.WHOLE),
    ProviderRoute("/v1/responses/compact", _COMPACTED),
    ProviderRoute("/v1/realtime/client_secrets", _SECRET),
    ProviderRoute(r"/v1/responses/resp_\w+(?:/cancel)?", _of("/v1/responses")),
    ProviderRoute("/v1/messages/count_tokens", _fixed(input_tokens=3)),
    ProviderRoute(r"/(?:v1beta/)?models/([^/]+):generateContent", lambda _: _candidates(wire.TEXT)),
    ProviderRoute(
        r"/(?:v1beta/)?models/([^/]+):streamGenerateContent",
        lambda _: _candidates(wire.TEXT),
        _candidate_events,
    ),
    ProviderRoute("/v1/images/(?:generations|edits|variations)", _IMAGES),
    ProviderRoute("/v1/audio/speech", _sound, kind="audio/mpeg"),
    ProviderRoute("/v1/audio/transcriptions", _fixed(text=wire.TEXT)),
    ProviderRoute("/v1/moderations", _FLAGS),
    ProviderRoute("/v[12]/rerank", _RESULTS),
    ProviderRoute("/v1/ocr", _PAGES),
    ProviderRoute(r"/v1/files(?:/file-\w+)?", _fixed(**_FILE)),
    ProviderRoute(r"/v1/batches(?:/batch_\w+(?:/cancel)?)?", _fixed(**_BATCH)),
    ProviderRoute("/v1/fine_tuning/jobs", _fixed(**_JOB)),
    ProviderRoute(r"/v1/videos(?:/video_\w+)?", _fixed(**_VIDEO)),
    ProviderRoute("/v1/vector_stores", _fixed(**_STORE)),
    ProviderRoute(r"/v1/vector_stores/vs_(\w+)/search", _FOUND),
    ProviderRoute("/v1/containers", _fixed(**_CONTAINER)),
    ProviderRoute("/anything(?:/.*)?", _fixed(said=wire.TEXT)),
)
