-- One exchange of a worker with Redis: releases, then renewals, then admissions, in order.
--
-- KEYS   1  the live workers (sorted set: worker, by deadline)
--        2  the scopes in use (sorted set: scope, by deadline)
--        3  the number of this worker's last call
--        4  the epoch: when Redis was last found without leases that it had, in ms; below zero if never
--        5… the leases of a scope (sorted sets: member, by deadline), named below by their index here
-- ARGV   time to live of a lease and how long an epoch is unsettled, in ms
--        worker, number of this call, number of its last call that was answered (0 if it matters no more),
--        1 if that was so short ago that Redis must know of it still, epoch that it knows of
--        number of releases,   for each: key, key of those apart, member
--        number of renewals,   for each: key, scope, member
--        number of admissions, for each: number of limits, for each limit:
--            key, key of those apart, scope, member, capacity, 1 if it is only observed
--        (apart are the slots that enforcement would not have given; the same key where it is enforced)
-- Reply  now in ms, number of live workers, epoch, for each admission:
--            {0 or the index of the limit that refused, 1 if apart, unexpired leases of each limit}
--            or {} for each if nobody was admitted, because the worker did not know of the epoch
--
-- Deadlines are in ms by Redis' own clock, so that no worker's clock matters. A lease is unexpired
-- until its deadline has passed. The score of a slot that an admin has freed is its deadline below zero:
-- its lease may be renewed, and is not counted. A worker numbers its calls upwards. One that arrives after
-- a later one (held up on its way, given up by its sender) is an error and does nothing: it would bring
-- back leases that have been released since. The same call again, from a client that lost the reply, is
-- carried out anew: what it took before is given back first.

local cursor = 0

local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local function take_number()
  return tonumber(take())
end

local function take_key()
  return KEYS[take_number()]
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl, settling = take_number(), take_number()
local deadline = now + ttl

-- Adds `member` until `deadline`; the key vanishes with the last deadline in it.
local function hold(key, member)
  redis.call('ZADD', key, deadline, member)
  if redis.call('PTTL', key) < ttl then
    redis.call('PEXPIRE', key, ttl + 1)
  end
end

local function release(key, apart_key, member)
  redis.call('ZREM', key, member)
  if apart_key ~= key then
    redis.call('ZREM', apart_key, member)
  end
end

local function renew(key, member)
  local score = redis.call('ZSCORE', key, member)
  hold(key, member)
  if score and tonumber(score) < 0 then
    redis.call('ZADD', key, -deadline, member)
  end
end

-- Drops what has lapsed, freed or not.
local function prune(key)
  redis.call('ZREMRANGEBYSCORE', key, '(' .. -now, '(' .. now)
end

local function unexpired(key)
  return redis.call('ZCOUNT', key, now, '+inf')
end

local worker, call, acknowledged = take(), take_number(), take_number()
local lately, known = take() == '1', take_number()
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
if call < last then
  return redis.error_reply('LATE a later call of this worker was here before')
end
redis.call('SET', KEYS[3], call, 'PX', ttl + 1)

prune(KEYS[1])
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

for _ = 1, take_number() do
  release(take_key(), take_key(), take())
end

-- A call that knows of another epoch was made before leases were lost. It may have been held up since, and
-- its sender have released what it would renew; if not, the reply lets it renew everything once more.
local is_stranger = known ~= 0 and known ~= epoch
for _ = 1, take_number() do
  local key, scope, member = take_key(), take(), take()
  if not is_stranger then
    prune(key)
    renew(key, member)
    hold(KEYS[2], scope)
  end
end

local function take_limit()
  return {
    key = take_key(), apart_key = take_key(), scope = take(), member = take(),
    capacity = take_number(), observed = take() == '1',
  }
end

local function admit(limits)
  local refused, apart, answer = 0, 0, {0, 0}
  for _, limit in ipairs(limits) do
    release(limit.key, limit.apart_key, limit.member)
  end
  for index, limit in ipairs(limits) do
    local count = unexpired(limit.key)
    answer[index + 2] = count
    if count >= limit.capacity then
      prune(limit.key)
      if limit.observed then
        apart = 1
      elseif refused == 0 then
        refused = index
      end
    end
  end
  if refused == 0 then
    for _, limit in ipairs(limits) do
      hold((limit.observed and apart == 1) and limit.apart_key or limit.key, limit.member)
      hold(KEYS[2], limit.scope)
    end
  end
  answer[1], answer[2] = refused, apart
  return answer
end

local admits = known == epoch or (known == 0 and now - epoch >= settling)
local reply = {now, unexpired(KEYS[1]), epoch}
for _ = 1, take_number() do
  local limits = {}
  for index = 1, take_number() do
    limits[index] = take_limit()
  end
  reply[#reply + 1] = admits and admit(limits) or {}
end
return reply
