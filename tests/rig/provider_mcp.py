"""An MCP server over HTTP whose tools do as their names say, as the provider's models do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.rig.provider_routes import ProviderRoute

PATH = "/mcp"
CALL = "tools/call"
TOOLS = ("ok", "gated")

_SCHEMA = {"type": "object", "properties": {"question": {"type": "string"}}}


def is_call(body: Mapping[str, Any]) -> bool:
    """Whether the message asks a tool: all others are answered at once, and not counted."""
    return body.get("method") == CALL


def tool(body: Mapping[str, Any]) -> str:
    """Return the name of the tool that a call is for."""
    return str(body["params"]["name"])


def answer(body: Mapping[str, Any]) -> bytes | None:
    """Return the answer to a message, None to a notification."""
    if "id" not in body:
        return None
    return json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": _result(body)}).encode()


ROUTE = ProviderRoute(PATH, lambda asked: answer(asked.body) or b"")


def _result(body: Mapping[str, Any]) -> object:
    match body.get("method"):
        case "initialize":
            version = body["params"]["protocolVersion"]
            server = {"name": "rig", "version": "1"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}
        case "tools/list":
            return {"tools": [{"name": name, "inputSchema": _SCHEMA} for name in TOOLS]}
        case "tools/call":
            return {"content": [{"type": "text", "text": "asked"}], "isError": False}
        case _:
            return {}
