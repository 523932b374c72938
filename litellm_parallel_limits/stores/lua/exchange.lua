-- One exchange of a worker with Redis: releases, then renewals, then admissions, in order. With leases.lua and
-- queue.lua before it.
--
-- KEYS   1  the live workers (sorted set: worker, by deadline)
--        2  the scopes in use (sorted set: scope, by deadline)
--        3  the number of this worker's last call
--        4  the epoch: when Redis was last found without leases that it had, in ms; below zero if never
--        5  scopes at which somebody waits (sorted set: scope, by when a lease lapses)
--        6… the leases of a scope (sorted sets: member, by deadline), named below by their index here
--        (a member is head, number and tail, which are the lease's but for the number, the limit's)
-- ARGV   one text, a line each:
--        time to live of a lease and how long an epoch is unsettled, in ms
--        root of every key, how long anybody may wait at most in ms
--        what a step of priority is worth in µs, turns to be missed, turns in a call (order.py)
--        lapsed leases removed at a time
--        worker, number of this call, number of its last call that was answered (0 if it matters no more),
--        1 if that was so short ago that Redis must know of it still, epoch that it knows of
--        number of limits,     for each:
--            key, key of those apart, scope, number, 1 if it is only observed
--            how many may wait for it, or an empty text if nobody may; if not: flow
--        (apart are the slots that enforcement would not have given; the same key where it is enforced)
--        number of releases,   for each: waiter and lane, or an empty text if it never waited, then the lease
--        number of renewals,   for each: 1 if it is apart, the lease
--        number of admissions, for each:
--            waiter, or an empty text if it must not wait; if not: lane, priority, µs it has waited; the lease
--        (a lease is head, tail, number of limits, and the index of each)
-- Reply  now in ms, number of live workers, epoch, when this is to be called again for those that wait in ms
--        or 0, for each admission:
--            {0 or the index of the limit that refused, below zero if it waits there; 1 if apart; how many
--             wait there; unexpired leases of each limit}
--            or {} for each if nobody was admitted, because the worker did not know of the epoch
--
-- A worker numbers its calls upwards. One that arrives after a later one (held up on its way, given up by its
-- sender) is an error and does nothing: it would bring back leases that have been released since. The same
-- call again, from a client that lost the reply, is carried out anew: what it took before is given back
-- first, but to whom has waited for it.

local worker, call, acknowledged = take(), take_number(), take_number()
local lately, known = take() == '1', take_number()
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
if call < last then
  return redis.error_reply('LATE a later call of this worker was here before')
end
redis.call('SET', KEYS[3], call, 'PX', ttl + 1)

local died = prune(KEYS[1])
prune(KEYS[2])
hold(KEYS[1], worker)

-- Leases are lost with the epoch itself (flush, restart); where this one is older than one that is known, or
-- Redis knows less of this worker than it did in the same epoch (a replica that was behind); or where this
-- worker's have lapsed and nobody else is there (all have).
local function is_lost(epoch)
  local is_alone = redis.call('ZCARD', KEYS[1]) == 1
  local is_behind = known == epoch and last < acknowledged and (last > 0 or lately or is_alone)
  return epoch == 0 or math.abs(epoch) > now or math.abs(known) > math.abs(epoch) or is_behind
end

-- The epoch that a worker begins who knew no other is taken for the first, before which there were no
-- leases. It has the time it began below zero, and ends when somebody calls who knew another.
local epoch = tonumber(redis.call('GET', KEYS[4]) or '0')
if is_lost(epoch) or (epoch < 0 and known ~= 0 and known ~= epoch) then
  epoch = known == 0 and -now or now
  redis.call('SET', KEYS[4], epoch)
end

-- Turns are given when every worker has had the time to renew what it holds.
local is_settled = epoch < 0 or now - epoch >= settling
local freed = {}

local known_limits = {}
for index = 1, take_number() do
  local limit = {key = take_key(), apart_key = take_key(), scope = take(), number = take(), observed = take() == '1'}
  limit.capacity, limit.most_waiting = tonumber(limit.number), tonumber(take())
  limit.flow = limit.most_waiting and take()
  known_limits[index] = limit
end

-- The limits of a lease, and what stands for it in each.
local function take_lease()
  local head, tail, limits, members = take(), take(), {}, {}
  for index = 1, take_number() do
    limits[index] = known_limits[take_number()]
    members[index] = head .. limits[index].number .. tail
  end
  return limits, members
end

for _ = 1, take_number() do
  local waiter = take()
  local name = waiter ~= '' and take()
  local limits, members = take_lease()
  for index, limit in ipairs(limits) do
    release(limit, members[index])
    freed[limit.scope] = true
  end
  for _, limit in ipairs(name and leave(waiter, name, limits) or {}) do
    freed[limit.scope] = true
  end
end

-- A call that knows of another epoch was made before leases were lost. It may have been held up since, and
-- its sender have released what it would renew; if not, the reply lets it renew everything once more.
local is_stranger = known ~= 0 and known ~= epoch
for _ = 1, take_number() do
  local is_apart = take() == '1'
  local limits, members = take_lease()
  for index, limit in ipairs(is_stranger and {} or limits) do
    local key = (is_apart and limit.observed) and limit.apart_key or limit.key
    prune(key)
    renew(key, members[index])
    use(limit.scope)
  end
end

if died > 0 then
  bury(freed)
end
if is_settled then
  serve(freed)
else
  postpone(freed)
end

-- Whether a call before, of which the reply was lost, or somebody's release has given it what it asks for.
local function holds(ask)
  local first, member = ask.limits[1], ask.members[1]
  return is_unexpired(first.key, member) or is_unexpired(first.apart_key, member)
end

local function counts(ask, holds_already)
  local told, apart, full = {}, 0, {}
  for index, limit in ipairs(ask.limits) do
    told[index] = unexpired(limit.key)
    if holds_already and is_unexpired(limit.key, ask.members[index]) then
      told[index] = told[index] - 1
    end
    local is_full = told[index] >= limit.capacity
    if is_full then
      prune(limit.key)
      apart = limit.observed and 1 or apart
    end
    if not limit.observed and (is_full or is_closed(limit.scope)) then
      full[#full + 1] = index
    end
  end
  return told, apart, full
end

-- Returns which of the `full` limits to name, below zero if it is to be waited for, and how many wait for it.
local function outcome_of(limits, full, may_wait)
  for _, index in ipairs(full) do
    may_wait = may_wait and limits[index].most_waiting
    if not may_wait then
      return index, waiting(limits[index].scope)
    end
  end
  local first = full[1]
  local number = waiting(limits[first].scope)
  return number < limits[first].most_waiting and -first or first, number
end

-- Whether what is asked for may be there already: the reply to a call before was lost, or to this very one.
local may_be_again = call ~= acknowledged + 1 or call == last

local function admit(ask)
  local limits = ask.limits
  if ask.waiter ~= '' and holds(ask) then
    local told, apart = counts(ask, true)
    return {0, apart, 0, unpack(told)}
  end
  local place = ask.waiter ~= '' and place_of_waiter(ask.waiter, ask.lane, #limits)
  if place then
    return {-place, 0, waiting(limits[place].scope) - 1, unpack((counts(ask)))}
  end
  for index, limit in ipairs(may_be_again and limits or {}) do
    release(limit, ask.members[index])
  end
  local told, apart, full = counts(ask)
  if #full == 0 then
    for index, limit in ipairs(limits) do
      hold((limit.observed and apart == 1) and limit.apart_key or limit.key, ask.members[index])
      use(limit.scope)
    end
    return {0, apart, 0, unpack(told)}
  end
  local outcome, number = outcome_of(limits, full, is_settled and ask.waiter ~= '')
  if outcome < 0 then
    join(ask, -outcome)
  end
  return {outcome, 0, number, unpack(told)}
end

local function take_ask()
  local ask = {waiter = take()}
  if ask.waiter ~= '' then
    ask.lane, ask.priority, ask.waited = take(), take_number(), take_number()
  end
  ask.limits, ask.members = take_lease()
  return ask
end

local admits = known == epoch or (known == 0 and now - epoch >= settling)
local reply = {now, unexpired(KEYS[1]), epoch, 0}
for _ = 1, take_number() do
  local ask = take_ask()
  reply[#reply + 1] = admits and admit(ask) or {}
end
reply[4] = next_alarm(is_settled and 0 or epoch + settling)
return reply
