-- What all workers have noted.
--
-- KEYS   what was noted at each place (hashes: sums by name)
-- Reply  for each key: names and sums by turns

local reply = {}
for index, key in ipairs(KEYS) do
  reply[index] = redis.call('HGETALL', key)
end
return reply
