"""The histories find mistakes: each of these, made on purpose, is found in a few of them.

Who changes a script, or a statement, so that a mistake can no longer be made in it, is told so here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from unittest import mock

import pytest

from litellm_parallel_limits.stores.host import _Work
from litellm_parallel_limits.stores.redis import _LUA
from tests.stores.histories import History, WrongError
from tests.stores.mistakes import Mistake, MistakenClient, called
from tests.stores.storages import Connect, SharedStorage, in_file, in_redis

SEEDS = range(16)
STEPS = 80

FEW = range(6)
"""Of these; test_histories.py goes through all of them where there is no mistake."""

Open = Callable[[], AbstractAsyncContextManager[SharedStorage]]


IN_EXCHANGE = (
    Mistake(
        "a release frees whoever comes first",
        "  if redis.call('ZREM', key, member) == 1 then",
        "  if #redis.call('ZPOPMIN', key) > 0 then",
    ),
    Mistake(
        "a release frees nothing that is apart",
        "    remove(limit.apart_key, member)\n",
        "",
    ),
    Mistake(
        "a renewal does not bring back what was lost",
        "  hold(key, member)\n  if score and",
        "  if score then hold(key, member) end\n  if score and",
    ),
    Mistake(
        "a renewal brings back what an admin has freed",
        "if score and tonumber(score) < 0 then",
        "if false then",
    ),
    Mistake(
        "a freed slot does not live as long as its lease",
        "redis.call('ZADD', key, -deadline, member)",
        "redis.call('ZADD', key, score, member)",
    ),
    Mistake(
        "a renewal is for nothing",
        "  redis.call('ZADD', key, deadline, member)",
        "  redis.call('ZADD', key, 'NX', deadline, member)",
    ),
    Mistake(
        "a key ends before its leases",
        "redis.call('PEXPIRE', key, math.floor(ttl * 1.25))",
        "redis.call('PEXPIRE', key, math.floor(ttl * 0.5))",
    ),
    Mistake(
        "lapsed leases are counted",
        "return redis.call('ZCOUNT', key, now, '+inf')",
        "return redis.call('ZCARD', key)",
    ),
    Mistake(
        "one more is admitted than there is room for",
        "local is_full = told[index] >= limit.capacity",
        "local is_full = told[index] > limit.capacity",
    ),
    Mistake(
        "who is refused keeps what there was room for",
        "  local outcome, number = outcome_of(",
        "  for _, limit in ipairs(limits) do hold(limit.key, ask.members[_]) use(limit.scope) end\n"
        "  local outcome, number = outcome_of(",
    ),
    Mistake(
        "the last limit that is full is named",
        "full[#full + 1] = index",
        "full[1] = index",
    ),
    Mistake(
        "a lease is counted against itself when it is asked for again",
        "    release(limit, ask.members[index])\n",
        "",
    ),
    Mistake(
        "what a call that was lost has taken is not looked for",
        "local may_be_again = call ~= acknowledged + 1 or call == last",
        "local may_be_again = false",
    ),
    Mistake(
        "a slot that enforcement would not have given takes room",
        "(limit.observed and apart == 1) and limit.apart_key or limit.key",
        "limit.key",
    ),
    Mistake(
        "late calls are carried out",
        "if call < last then",
        "if false then",
    ),
    Mistake(
        "an epoch outlives the loss of everything",
        "epoch = known == 0 and -now or now",
        "epoch = known ~= 0 and known or -now",
    ),
    Mistake(
        "no epoch ends with a replica that was behind",
        "(last > 0 or lately or is_alone)",
        "(last == 0 and is_alone)",
    ),
    Mistake(
        "no epoch ends with a replica that knows nothing of a worker",
        "(last > 0 or lately or is_alone)",
        "(last > 0 or is_alone)",
    ),
    Mistake(
        "no epoch ends when all that was held has lapsed",
        "(last > 0 or lately or is_alone)",
        "(last > 0 or lately)",
    ),
    Mistake(
        "one worker that was held up makes everybody renew",
        "(last > 0 or lately or is_alone)",
        "true",
    ),
    Mistake(
        "an epoch ends as often as there are workers who find it lost",
        "known == epoch and last < acknowledged",
        "last < acknowledged",
    ),
    Mistake(
        "an epoch comes back with a replica",
        "math.abs(known) > math.abs(epoch)",
        "false",
    ),
    Mistake(
        "a call from before a loss renews what was released after it",
        "ipairs(is_stranger and {} or limits)",
        "ipairs(limits)",
    ),
    Mistake(
        "what a new worker takes for the first epoch goes on though others know better",
        "(epoch < 0 and known ~= 0 and known ~= epoch)",
        "false",
    ),
    Mistake(
        "who does not know of the epoch is admitted",
        "local admits = known == epoch or (known == 0 and now - epoch >= settling)",
        "local admits = true",
    ),
    Mistake(
        "a new worker is admitted before the others have renewed",
        "(known == 0 and now - epoch >= settling)",
        "known == 0",
    ),
    Mistake(
        "a new worker must always renew first",
        " or (known == 0 and now - epoch >= settling)",
        "",
    ),
)

ELSEWHERE = (
    Mistake(
        "freeing a lease frees all that are beside it",
        "if string.sub(member, 1, #beginning) == beginning then",
        "if true then",
    ),
    Mistake(
        "freed slots are counted on",
        "redis.call('ZADD', key, -(now + ttl), member)",
        "redis.call('ZADD', key, now + ttl, member)",
    ),
    Mistake(
        "a snapshot shows what has lapsed",
        "reply[index + 1] = redis.call('ZRANGEBYSCORE', key, now, '+inf')",
        "reply[index + 1] = redis.call('ZRANGE', key, 0, -1)",
    ),
)

IN_LUA = IN_EXCHANGE + ELSEWHERE

IN_SQL = (
    Mistake(
        "a release frees everybody",
        "WHERE scope = :scope AND id = :id",
        "WHERE scope = :scope",
    ),
    Mistake(
        "a renewal is for nothing",
        "DO UPDATE SET deadline = :deadline",
        "DO NOTHING",
    ),
    Mistake(
        "a renewal brings back what an admin has freed",
        "DO UPDATE SET deadline = :deadline",
        "DO UPDATE SET deadline = :deadline, freed = 0",
    ),
    Mistake(
        "a slot that lapsed after it was freed is free for ever",
        "DELETE FROM leases_1 WHERE deadline < :now",
        "DELETE FROM leases_1 WHERE deadline < :now AND NOT freed",
    ),
    Mistake(
        "lapsed leases are counted",
        "AND NOT apart AND NOT freed AND deadline >= :now",
        "AND NOT apart AND NOT freed",
    ),
    Mistake(
        "freed slots are counted",
        "AND NOT apart AND NOT freed AND deadline >= :now",
        "AND NOT apart AND deadline >= :now",
    ),
    Mistake(
        "a slot that enforcement would not have given takes room",
        "AND NOT apart AND NOT freed AND deadline >= :now",
        "AND NOT freed AND deadline >= :now",
    ),
    Mistake(
        "freeing a lease frees all that are beside it",
        "AND (:id IS NULL OR id = :id)",
        "AND (:id IS NULL OR id)",
    ),
    Mistake(
        "workers are counted that have not called for long",
        "DELETE FROM workers_1 WHERE deadline < :now",
        "DELETE FROM workers_1 WHERE deadline < 0",
    ),
    Mistake(
        "the number of a worker's call is not kept",
        "VALUES (:worker, :number, :deadline)",
        "VALUES (:worker, 1, :deadline)",
    ),
    Mistake(
        "an epoch is not kept",
        "VALUES (:epoch, :now)",
        "VALUES (:epoch - 1, :now)",
    ),
)


async def is_found(open_storage: Open, seeds: range = SEEDS) -> bool:
    """Whether one of a few histories goes wrong."""
    for seed in seeds:
        async with open_storage() as storage:
            try:
                await History(storage, seed, perils=storage).run(STEPS)
            except WrongError as error:
                assert "ResponseError" not in str(error), "the script does not run"  # noqa: PT017
                return True
    return False


@pytest.mark.parametrize("mistake", IN_LUA, ids=called)
def test_mistake_can_be_made_in_a_script(mistake: Mistake) -> None:
    """What would be replaced stands once in all scripts together."""
    scripts = [file.read_text() for file in _LUA.iterdir()]
    assert sum(script.count(mistake.right) for script in scripts) == 1


@pytest.mark.parametrize("mistake", IN_LUA, ids=called)
async def test_mistake_in_a_script_is_found(connect_redis: Connect, mistake: Mistake) -> None:
    """A mistake in a script is found in one of a few histories."""
    assert await is_found(partial(in_redis, lambda: MistakenClient(connect_redis(), mistake)))


async def test_nothing_is_found_in_the_scripts_as_they_are(connect_redis: Connect) -> None:
    """Where the same histories meet no mistake, nothing is found."""
    assert not await is_found(partial(in_redis, connect_redis), FEW)


@pytest.mark.parametrize("mistake", IN_SQL, ids=called)
async def test_mistake_in_a_statement_is_found(mistake: Mistake) -> None:
    """A mistake in a statement is found in one of a few histories."""
    do, made = _Work._do, []  # noqa: SLF001 (where all statements come by)

    def do_wrong(work: _Work, statement: str, **values: object) -> sqlite3.Cursor:
        wrong = mistake.made_in(statement)
        made.append(wrong != statement)
        return do(work, wrong, **values)

    with mock.patch.object(_Work, "_do", do_wrong):
        assert await is_found(in_file)
    assert any(made)


async def test_nothing_is_found_in_the_statements_as_they_are() -> None:
    """Where the same histories meet no mistake, nothing is found."""
    assert not await is_found(in_file, FEW)
