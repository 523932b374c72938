-- Frees slots by an admin's order.
--
-- KEYS   the scopes at which somebody waits (sorted set: scope, by when to look), then the leases of some
--        scopes (sorted sets: member, by deadline)
-- ARGV   time to live of a lease in ms, how the members that are meant begin, the scopes
-- Reply  how many slots were freed
--
-- A freed slot stays, its deadline below zero, so that a renewal of its lease finds that it is not to count.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl, beginning = tonumber(ARGV[1]), ARGV[2]
local freed = 0
for index = 2, #KEYS do
  local key = KEYS[index]
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, now, '+inf')) do
    if string.sub(member, 1, #beginning) == beginning then
      redis.call('ZADD', key, -(now + ttl), member)
      if redis.call('PTTL', key) < ttl then
        redis.call('PEXPIRE', key, ttl + 1)
      end
      freed = freed + 1
    end
  end
end
for index = 3, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', 0, ARGV[index])  -- to be looked at with the next call
end
return freed
