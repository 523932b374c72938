"""A proxy that serves the page, and answers what the tests want it to."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

from litellm_parallel_limits.page_routes import page
from tests.rig.process import HOST, free_port

ADMIN, VIEWER, GUEST = "sk-admin", "sk-viewer", "sk-guest"
"""Who may release; who sees everything; who sees what is its own."""

PREFIX = "/below/here"
"""As by LiteLLM's SERVER_ROOT_PATH: the page may not think that it is at the top."""

Scope = dict[str, Any]


def scope(
    name: str,
    in_flight: int,
    limit: int | None,
    *,
    waiting: int = 0,
    refused: int = 0,
    models: Sequence[str] = ("gpt-4",),
    **identities: str,
) -> Scope:
    """Return a scope as the status has it, whose holders ask for `models` by turns."""
    number = f"{abs(hash((name, *identities.items()))):016x}"[:16]
    utilization = None if limit is None else round(in_flight / limit, 3) if limit else 1.0
    holders = [
        {
            "lease": f"{number[:12]}{one:04x}",
            "model": models[one % len(models)],
            "worker": f"da8fea3{one % 4}",
            "age_seconds": round(0.4 + 2.9 * (in_flight - one), 1),
        }
        for one in range(in_flight)
    ]
    return {
        "id": number,
        "name": name,
        "scope": identities,
        "limit": limit,
        "in_flight": in_flight,
        "waiting": waiting,
        "utilization": utilization,
        "refused_lately": refused,
        "holders": holders,
    }


def some_scopes() -> list[Scope]:
    """Return scopes of each kind there is; their order by name is that by key, user, team."""
    return [
        scope("a-pool", 2, 8, waiting=3),
        scope("b-key", 2, 2, refused=31, key="3fa9c1e5", model="gpt-4"),
        scope("c-user", 9, 10, user="ann"),
        scope("d-observed", 7, 5, team="research"),
        scope("e-blocked", 0, 0, refused=4, key="77aa01fe"),
        scope("f-unknown", 1, None, end_user="customer-1"),
    ]


@dataclass
class Fake:
    """What is answered, and after how many `seconds`, and what it was asked.

    `asked` are the requests for the status, by what they asked for, `at_once` how many there were together.
    With `failing` it answers nothing but that code.
    """

    port: int
    scopes: list[Scope] = field(default_factory=list)
    past: dict[str, Any] = field(default_factory=dict)
    degraded: bool = False
    failing: int | None = None
    seconds: float = 0
    asked: list[Mapping[str, str]] = field(default_factory=list)
    at_once: list[int] = field(default_factory=lambda: [0])
    released: list[Mapping[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing in flight."""
        self.reset()

    def reset(self) -> None:
        """Be as at the beginning."""
        nothing = {"in_flight": [0.0] * 180, "refused": [0] * 180}
        self.scopes, self.degraded, self.failing, self.seconds = [], False, None, 0
        self.past = {"step_seconds": 5, **nothing, "limits": {}}
        self.asked, self.released, self.at_once = [], [], [0]

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.port}{PREFIX}/parallel_limits/"

    def status(self, asked: Mapping[str, str], *, sees_holders: bool) -> dict[str, Any]:
        """Return the status as the proxy would, of what it holds."""
        page, size, by = int(asked["page"]), int(asked["page_size"]), asked["sort"]
        of = {"refused": "refused_lately"}.get(by, by)
        ordered = sorted(self.scopes, key=lambda one: one["name"])
        if by != "name":
            ordered.sort(key=lambda one: -(one[of] or 0))
        shown = ordered[(page - 1) * size : page * size]
        leases = {held["lease"] for one in self.scopes for held in one["holders"]}
        return {
            "in_flight": len(leases),
            "waiting": sum(one["waiting"] for one in self.scopes),
            "refused_lately": sum(one["refused_lately"] for one in self.scopes),
            "store": "redis",
            "degraded": self.degraded,
            "total": len(ordered),
            "page": page,
            "page_size": size,
            "total_pages": math.ceil(len(ordered) / size),
            "scopes": shown if sees_holders else [{**one, "holders": []} for one in shown],
        }

    def release(self, meant: Mapping[str, str]) -> int:
        """Let go of a lease; return how many slots it held."""
        self.released.append(meant)
        slots = 0
        for one in self.scopes:
            kept = [held for held in one["holders"] if held["lease"] != meant["lease"]]
            slots += len(one["holders"]) - len(kept)
            one.update(holders=kept, in_flight=len(kept))
        return slots

    def has_answered(self, number: int) -> bool:
        """Whether it was asked for so many statuses, and has answered all of them."""
        return len(self.asked) >= number and self.at_once[-1] == 0

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Note in `at_once` that one more status is being asked for, and then one fewer."""
        self.at_once.append(self.at_once[-1] + 1)
        yield
        self.at_once.append(self.at_once[-1] - 1)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve, in a thread, as long as the context lasts."""
        config = uvicorn.Config(
            _app(self), host=HOST, port=self.port, log_level="error", ws="none", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def fake() -> Iterator[Fake]:
    """Yield a fake proxy that serves, as long as the context lasts."""
    one = Fake(free_port())
    with one.running():
        yield one


def _json(document: object, status: int = 200) -> Response:
    # In ASCII: half surrogates are in no other encoding.
    return Response(json.dumps(document), status, media_type="application/json")


def _app(fake: Fake) -> FastAPI:
    app = FastAPI()
    app.include_router(page(), prefix=PREFIX)
    routes = PREFIX + "/parallel_limits"

    def refusal(request: Request, *keys: str) -> Response | None:
        _, _, key = request.headers.get("authorization", "").partition(" ")
        if fake.failing:
            return _json({"detail": "out of order"}, fake.failing)
        if key not in {ADMIN, VIEWER, GUEST}:
            return _json({"error": {"message": f"no such key: {key}"}}, 401)
        return None if key in keys else _json({"detail": "not for you"}, 403)

    @app.get(f"{routes}/status")
    def status(request: Request) -> Response:
        asked = dict(request.query_params)
        fake.asked.append(asked)
        with fake.answering():
            time.sleep(fake.seconds)
        sees_holders = refusal(request, ADMIN, VIEWER) is None
        return refusal(request, ADMIN, VIEWER, GUEST) or _json(fake.status(asked, sees_holders=sees_holders))

    @app.get(f"{routes}/history")
    def history(request: Request) -> Response:
        return refusal(request, ADMIN, VIEWER) or _json(fake.past)

    @app.get(f"{routes}/health")
    def health(request: Request) -> Response:
        return refusal(request, ADMIN, VIEWER) or _json(
            {"store_ms": 0.41, "workers": 4, "degraded_seconds": 12.0 if fake.degraded else None}
        )

    @app.post(f"{routes}/release")
    async def release(request: Request) -> Response:
        refused = refusal(request, ADMIN)
        return refused or _json({"released": fake.release(await request.json())})

    return app
