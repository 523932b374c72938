-- How many wait.
--
-- KEYS   the live workers (sorted set: worker, by deadline), then how many wait that came for a scope (hashes:
--        number by worker)
-- Reply  for each scope: how many of live workers

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {}
for index = 2, #KEYS do
  local found = redis.call('HGETALL', KEYS[index])
  reply[index - 1] = 0
  for field = 1, #found, 2 do
    local deadline = redis.call('ZSCORE', KEYS[1], found[field])
    if deadline and tonumber(deadline) >= now then
      reply[index - 1] = reply[index - 1] + found[field + 1]
    end
  end
end
return reply
