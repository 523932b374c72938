-- Those that wait in Redis: `line.py` tells what it is about and does the same in SQL. Part of exchange.lua.
--
-- Keys, all below the root. They are told by the data, not by the caller: a slot that comes free is given
-- to somebody of whom its former holder knows nothing. All have the root's hash tag.
--   waiters:<lane>               those of a lane (sorted set: waiter, by when it came in µs)
--   lane:<lane>                  what they have in common (hash): `home`, the scope they came for; `flow`;
--                                `limits`; `at`, the index of the limit where it stands; `passes`
--   flow:<number>:<scope>:<flow> the lanes of a flow at a scope and number (sorted set: lane, by its first)
--   queue:<number>:<scope>       the flows there (sorted set: flow, by when their turn is, in µs)
--   numbers:<scope>              the numbers at which lanes stand there (sorted set: number, by number)
--   alarms                       scopes at which lanes stand (sorted set: scope, by when a lease lapses)
--   closed                       scopes that are kept free for a lane (hash)
--   waiting:<scope>              how many wait that came for it (hash: number by worker)
--   wake:<worker>                who of a worker's waiters was admitted (stream)
-- A waiter is `id:worker:started:model`, a flow `priority:name`, limits `scope number observed` each.

local function key(...)
  return root .. ':' .. table.concat({...}, ':')
end

local alarms, closed_scopes = KEYS[5], key('closed')
local nobody_waits = redis.call('EXISTS', alarms) == 0

-- Scopes at which turns are still to be given when this call has given as many as it may.
local unfinished = {}

-- In µs, and no two in this call the same.
local ticks = 0
local function tick()
  ticks = ticks + 1
  return time[1] * 1000000 + time[2] + ticks
end

-- Lets `name` live longer than anybody may wait.
local function keep(name)
  if redis.call('PTTL', name) < longest_wait then
    redis.call('PEXPIRE', name, 2 * longest_wait)
  end
end

local function worker_of(waiter)
  return waiter:match('^[^:]*:([^:]*):')
end

local function lapses_at(scope)
  local first = redis.call('ZRANGEBYSCORE', key('lease', scope), now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(first[2] or deadline)
end

local function is_live(worker)
  local score = redis.call('ZSCORE', KEYS[1], worker)
  return score and tonumber(score) >= now
end

local function parsed(text)
  local limits = {}
  for scope, number, observed in text:gmatch('(%S+) (%d+) (%d)') do
    limits[#limits + 1] = {
      scope = scope, number = number, capacity = tonumber(number), observed = observed == '1',
      key = key('lease', scope), apart_key = key(observed == '1' and 'apart' or 'lease', scope),
    }
  end
  return limits
end

local function find_lane(id)
  local home, flow, limits, at = unpack(redis.call('HMGET', key('lane', id), 'home', 'flow', 'limits', 'at'))
  return home and {
    id = id, home = home, flow = flow, limits = parsed(limits), at = tonumber(at),
    later = tonumber(flow:match('^-?%d+')) * priority_step,
  }
end

local function first_of(lane)
  local found = redis.call('ZRANGE', key('waiters', lane.id), 0, 0, 'WITHSCORES')
  return found[1], tonumber(found[2])
end

-- Whether `scope` is kept free for another than `lane`.
local function is_closed(scope, lane)
  local found = not nobody_waits and redis.call('HGET', closed_scopes, scope)
  return (found and found ~= lane) or unfinished[scope]
end

local function lacks(limit, lane)
  return not limit.observed and (unexpired(limit.key) >= limit.capacity or is_closed(limit.scope, lane))
end

local function place_of(lane)
  local limit = lane.limits[lane.at]
  return limit.number .. ':' .. limit.scope, limit
end

local function keep_lane(lane)
  local place, limit = place_of(lane)
  for _, name in ipairs({
    key('lane', lane.id), key('waiters', lane.id), key('flow', place, lane.flow), key('queue', place),
    key('numbers', limit.scope), alarms,
  }) do
    keep(name)
  end
end

local function stand(lane, at, rank)
  lane.at = at
  local place, limit = place_of(lane)
  local _, came = first_of(lane)
  redis.call('HSET', key('lane', lane.id), 'at', at)
  redis.call('ZADD', key('flow', place, lane.flow), came, lane.id)
  redis.call('ZADD', key('queue', place), 'NX', rank, lane.flow)
  redis.call('ZADD', key('numbers', limit.scope), limit.number, limit.number)
  redis.call('ZADD', alarms, 'NX', lapses_at(limit.scope), limit.scope)
  keep_lane(lane)
end

local function go_away(lane)
  local place, limit = place_of(lane)
  redis.call('ZREM', key('flow', place, lane.flow), lane.id)
  if redis.call('EXISTS', key('flow', place, lane.flow)) == 0 then
    redis.call('ZREM', key('queue', place), lane.flow)
  end
  if redis.call('EXISTS', key('queue', place)) == 0 then
    redis.call('ZREM', key('numbers', limit.scope), limit.number)
  end
end

local function uncount(waiter, lane, home)
  if redis.call('ZREM', key('waiters', lane), waiter) == 1 then
    if redis.call('HINCRBY', key('waiting', home), worker_of(waiter), -1) < 1 then
      redis.call('HDEL', key('waiting', home), worker_of(waiter))
    end
  end
end

-- Takes `waiter`, or a lane of which Redis has lost all that wait, out of `lane`, and returns the limits that this opens to others.
local function drop(waiter, lane)
  local first = first_of(lane)
  if waiter then
    uncount(waiter, lane.id, lane.home)
  end
  if first ~= waiter then
    return {}
  end
  local following, came = first_of(lane)
  if following then
    redis.call('HSET', key('lane', lane.id), 'passes', 0)
    redis.call('ZADD', key('flow', (place_of(lane)), lane.flow), came, lane.id)
  else
    go_away(lane)
    redis.call('DEL', key('lane', lane.id))
  end
  local opened = {}
  for _, limit in ipairs(lane.limits) do
    if redis.call('HGET', closed_scopes, limit.scope) == lane.id then
      redis.call('HDEL', closed_scopes, limit.scope)
      opened[#opened + 1] = limit
    end
  end
  return opened
end

local function is_before(one, other)
  if one.rank ~= other.rank then
    return one.rank < other.rank
  elseif one.came ~= other.came then
    return one.came < other.came
  end
  return one.scope < other.scope
end

-- The first lane at a `number` of `scope`. What leads nowhere is forgotten: Redis may have evicted the rest.
local function first_at(scope, number)
  local place = number .. ':' .. scope
  local flow, rank = unpack(redis.call('ZRANGE', key('queue', place), 0, 0, 'WITHSCORES'))
  if not flow then
    redis.call('ZREM', key('numbers', scope), number)
    return nil
  end
  local id, came = unpack(redis.call('ZRANGE', key('flow', place, flow), 0, 0, 'WITHSCORES'))
  local lane = id and find_lane(id)
  if not lane then
    redis.call('ZREM', key('flow', place, flow), id or '')
    if redis.call('EXISTS', key('flow', place, flow)) == 0 then
      redis.call('ZREM', key('queue', place), flow)
    end
    return first_at(scope, number)
  end
  return {lane = lane, rank = tonumber(rank), came = tonumber(came), scope = scope}
end

local function closer_at(scope)
  local closer = not nobody_waits and redis.call('HGET', closed_scopes, scope)
  local lane = closer and find_lane(closer)
  if closer and not lane then
    redis.call('HDEL', closed_scopes, scope)
  end
  return lane
end

-- The lane that is next at `scope`, with its rank and when its first came; nil if there is room for none.
local function next_at(scope)
  local count = unexpired(key('lease', scope))
  local closer = closer_at(scope)
  if closer then
    local place, limit = place_of(closer)
    local rank = redis.call('ZSCORE', key('queue', place), closer.flow)
    local _, came = first_of(closer)
    local is_next = limit.scope == scope and limit.capacity > count
    return is_next and {lane = closer, rank = tonumber(rank or 0), came = came or 0, scope = scope} or nil
  end
  local best
  for _, number in ipairs(redis.call('ZRANGEBYSCORE', key('numbers', scope), '(' .. count, '+inf')) do
    local one = first_at(scope, number)
    best = (best and not (one and is_before(one, best))) and best or one
  end
  return best
end

-- Lets `lane` stand where it lacks a slot; closes its limits if it has missed too many turns.
local function miss(lane, lacking, rank)
  local can_close = redis.call('HINCRBY', key('lane', lane.id), 'passes', 1) >= most_passes
  for _, limit in ipairs(lane.limits) do
    can_close = can_close and (limit.observed or not is_closed(limit.scope, lane.id))
  end
  if can_close then
    for _, limit in ipairs(lane.limits) do
      if not limit.observed then
        redis.call('HSET', closed_scopes, limit.scope, lane.id)
      end
    end
    keep(closed_scopes)
  end
  go_away(lane)
  stand(lane, lacking, rank)
  return {}
end

local function grant(waiter, lane)
  local id, worker, started, model = waiter:match('^(.-):(.-):(.-):(.*)$')
  local told, apart = {}, false
  for index, limit in ipairs(lane.limits) do
    told[index] = unexpired(limit.key)
    apart = apart or told[index] >= limit.capacity
  end
  for _, limit in ipairs(lane.limits) do
    local member = table.concat({id, worker, started, limit.number, model}, ':')
    hold((limit.observed and apart) and limit.apart_key or limit.key, member)
    use(limit.scope)
  end
  local wake = key('wake', worker)
  redis.call('XADD', wake, 'MAXLEN', '~', 1000, '*', id, (apart and 1 or 0) .. ' ' .. table.concat(told, ' '))
  redis.call('PEXPIRE', wake, ttl)
end

-- Admits the first of `lane`, or lets it stand where it lacks a slot; returns the limits opened by that.
local function turn(lane, rank)
  local waiter = first_of(lane)
  if not waiter or not is_live(worker_of(waiter)) then
    return drop(waiter, lane)
  end
  for index, limit in ipairs(lane.limits) do
    if lacks(limit, lane.id) then
      return miss(lane, index, rank)
    end
  end
  grant(waiter, lane)
  redis.call('ZADD', key('queue', (place_of(lane))), 'XX', tick() + lane.later, lane.flow)
  return drop(waiter, lane)
end

local function set_alarm(scope, due)
  if redis.call('EXISTS', key('numbers', scope)) == 1 then
    redis.call('ZADD', alarms, due, scope)
    keep(alarms)
  else
    redis.call('ZREM', alarms, scope)
  end
end

-- Drops the dead for whom limits are closed, and adds these to those that were `freed`.
local function bury(freed)
  local found = nobody_waits and {} or redis.call('HGETALL', closed_scopes)
  for index = 1, #found, 2 do
    local lane = find_lane(found[index + 1])
    local waiter = lane and first_of(lane)
    if waiter and not is_live(worker_of(waiter)) then
      for _, limit in ipairs(drop(waiter, lane)) do
        freed[limit.scope] = true
      end
    end
  end
end

local function keep_waited_for(freed)
  for scope in pairs(freed) do
    if nobody_waits or not redis.call('ZSCORE', alarms, scope) then
      freed[scope] = nil
    end
  end
end

-- Lets turns at `freed` be given later.
local function postpone(freed)
  keep_waited_for(freed)
  for scope in pairs(freed) do
    set_alarm(scope, now - 1)
    unfinished[scope] = true
  end
end

-- Gives turns to those that wait for a slot in `freed` (a set of scopes), or where leases may have lapsed.
local function serve(freed)
  keep_waited_for(freed)
  local due = nobody_waits and {} or redis.call('ZRANGEBYSCORE', alarms, '-inf', '(' .. now, 'LIMIT', 0, most_turns)
  for _, scope in ipairs(due) do
    freed[scope] = true
  end
  local known = {}
  for _ = 1, most_turns do
    local first
    for scope in pairs(freed) do
      if known[scope] == nil then
        known[scope] = next_at(scope) or false
      end
      if known[scope] and (not first or is_before(known[scope], first)) then
        first = known[scope]
      end
    end
    if not first then
      for scope in pairs(freed) do
        set_alarm(scope, lapses_at(scope))
      end
      return
    end
    for _, limit in ipairs(turn(first.lane, first.rank)) do
      freed[limit.scope] = true
    end
    for _, limit in ipairs(first.lane.limits) do
      known[limit.scope] = nil  -- all that a turn changes
    end
  end
  postpone(freed)
end

local function waiting(scope)
  local total, found = 0, nobody_waits and {} or redis.call('HGETALL', key('waiting', scope))
  for index = 1, #found, 2 do
    if is_live(found[index]) then
      total = total + found[index + 1]
    end
  end
  return total
end

-- Who has waited elsewhere may come before those that are there.
local function move_up(lane, rank)
  local place, _, came = place_of(lane), first_of(lane)
  redis.call('ZADD', key('flow', place, lane.flow), came, lane.id)
  if tonumber(redis.call('ZSCORE', key('queue', place), lane.flow) or rank + 1) > rank then
    redis.call('ZADD', key('queue', place), rank, lane.flow)
  end
end

-- The index of the limit for which a waiter came that stands in line, nil if it does not.
local function place_of_waiter(waiter, name, number_of_limits)
  for index = 1, nobody_waits and 0 or number_of_limits do
    if redis.call('ZSCORE', key('waiters', name .. ':' .. index), waiter) then
      return index
    end
  end
end

-- Lets `ask.waiter` wait for a slot in the first of its limits that has none for it, the one with this index.
local function join(ask, index)
  local home, came, lane = ask.limits[index], tick() - ask.waited, ask.lane .. ':' .. index
  redis.call('ZADD', key('waiters', lane), came, ask.waiter)
  nobody_waits = false
  redis.call('HINCRBY', key('waiting', home.scope), worker_of(ask.waiter), 1)
  keep(key('waiting', home.scope))
  local known, rank = find_lane(lane), came + ask.priority * priority_step
  if known then
    keep_lane(known)
    move_up(known, rank)
    return
  end
  local told = {}
  for place, limit in ipairs(ask.limits) do
    told[place] = table.concat({limit.scope, limit.number, limit.observed and 1 or 0}, ' ')
  end
  redis.call(
    'HSET', key('lane', lane), 'home', home.scope, 'flow', ask.priority .. ':' .. home.flow,
    'limits', table.concat(told, ' '), 'at', index, 'passes', 0
  )
  stand(find_lane(lane), index, rank)
  move_up(find_lane(lane), rank)
end

-- Lets `waiter`, who came for slots in `limits`, wait no longer; returns the limits that this opens to others.
local function leave(waiter, name, limits)
  local index = place_of_waiter(waiter, name, #limits)
  local lane = index and find_lane(name .. ':' .. index)
  if index and not lane then
    uncount(waiter, name .. ':' .. index, limits[index].scope)
  end
  return lane and drop(waiter, lane) or {}
end

-- When this is to be called again for those that wait, in ms and not before `earliest`; 0 if nobody waits.
local function next_alarm(earliest)
  local first = nobody_waits and {} or redis.call('ZRANGE', alarms, 0, 0, 'WITHSCORES')
  return first[2] and math.max(tonumber(first[2]), earliest) or 0
end
