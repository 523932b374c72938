"""The live page, as the proxy serves it."""

from __future__ import annotations

from functools import partial
from importlib.resources import files

from fastapi import APIRouter, Response

FILES = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
"""By their place below the page's."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Nothing from elsewhere, nothing written into the page, and no page around it."""

_FOLDER = files("litellm_parallel_limits") / "page"


def page() -> APIRouter:
    """Return the routes of the page. They need no key: the page asks for one, and shows nothing without."""
    routes = APIRouter(prefix="/parallel_limits", include_in_schema=False)
    for place, (name, kind) in FILES.items():
        routes.add_api_route(f"/{place}", partial(_file, name, kind))
    return routes


async def _file(name: str, kind: str) -> Response:
    return Response((_FOLDER / name).read_bytes(), media_type=kind, headers=HEADERS)
