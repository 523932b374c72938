-- Every unexpired lease of some scopes.
--
-- KEYS   the leases of a scope (sorted sets: member, by deadline)
-- Reply  now in ms, for each key: the members that have not lapsed

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {now}
for index, key in ipairs(KEYS) do
  reply[index + 1] = redis.call('ZRANGEBYSCORE', key, now, '+inf')
end
return reply
