-- Leases in Redis. Part of exchange.lua, which tells of KEYS and ARGV.
--
-- Deadlines are in ms by Redis' own clock, so that no worker's clock matters. A lease is unexpired
-- until its deadline has passed. The score of a slot that an admin has freed is its deadline below zero:
-- its lease may be renewed, and is not counted.

local take = string.gmatch(ARGV[1], '([^\n]*)\n')

local function take_number()
  return tonumber(take())
end

local function take_key()
  return KEYS[take_number()]
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl, settling = take_number(), take_number()
local root, longest_wait = take(), take_number()
local priority_step, most_passes, most_turns, most_pruned = take_number(), take_number(), take_number(), take_number()
local deadline = now + ttl

-- Adds `member` until `deadline`; the key vanishes soon after the last deadline in it, and has not to be told of
-- each: that would be a command for each slot.
local lasting = {}
local function hold(key, member)
  redis.call('ZADD', key, deadline, member)
  if not lasting[key] and redis.call('PTTL', key) <= ttl then
    redis.call('PEXPIRE', key, math.floor(ttl * 1.25))
  end
  lasting[key] = true  -- while there is something in it: `release` may leave nothing
end

-- Notes that there are leases in `scope`.
local used = {}
local function use(scope)
  if not used[scope] then
    hold(KEYS[2], scope)
  end
  used[scope] = true
end

local function remove(key, member)
  if redis.call('ZREM', key, member) == 1 then
    lasting[key] = nil
  end
end

local function release(limit, member)
  remove(limit.key, member)
  if limit.observed then
    remove(limit.apart_key, member)
  end
end

local function renew(key, member)
  local score = redis.call('ZSCORE', key, member)
  hold(key, member)
  if score and tonumber(score) < 0 then
    redis.call('ZADD', key, -deadline, member)
  end
end

-- Drops what has lapsed, freed or not, but not too much at a time; returns how much that was.
local function prune(key)
  local lapsed = redis.call('ZCOUNT', key, '(' .. -now, '(' .. now)
  if lapsed > 0 then
    local first = redis.call('ZCOUNT', key, '-inf', -now)
    redis.call('ZREMRANGEBYRANK', key, first, first + math.min(lapsed, most_pruned) - 1)
    lasting[key] = nil
  end
  return lapsed
end

local function unexpired(key)
  return redis.call('ZCOUNT', key, now, '+inf')
end

local function is_unexpired(key, member)
  local score = redis.call('ZSCORE', key, member)
  return score and tonumber(score) >= now
end
