"""What a worker knows of the others of its proxy."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping

import pytest

from litellm_parallel_limits.siblings import has_siblings, workers

GUNICORN = {"SERVER_SOFTWARE": "gunicorn/23.0.0"}


@pytest.mark.parametrize(
    ("environment", "number", "several"),
    [
        ({}, 1, False),
        ({"NUM_WORKERS": "1"}, 1, False),
        ({"NUM_WORKERS": "4"}, 4, True),
        ({"NUM_WORKERS": "many"}, 1, False),
        ({"NUM_WORKERS": ""}, 1, False),
        ({"WEB_CONCURRENCY": "4"}, 1, False),
        (GUNICORN, 1, True),
        (GUNICORN | {"WEB_CONCURRENCY": "4"}, 4, True),
        (GUNICORN | {"NUM_WORKERS": "4", "WEB_CONCURRENCY": "2"}, 4, True),
        ({"SERVER_SOFTWARE": "other/1.0"}, 1, False),
    ],
)
def test_workers_are_known_by_the_environment(
    environment: Mapping[str, str], number: int, *, several: bool
) -> None:
    """LiteLLM tells how many it starts; a server that starts some itself tells that it does, or is asked."""
    assert (workers(environment), has_siblings(environment)) == (number, several)


def test_a_process_that_was_made_has_siblings() -> None:
    """A worker that another process of Python made counts on others, and on as many as servers make."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(has_siblings, ({},))
        assert pool.apply(workers, ({"WEB_CONCURRENCY": "3"},)) == 3
