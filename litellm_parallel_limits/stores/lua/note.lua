-- Adds to what all workers have noted at a place.
--
-- KEYS   what was noted (hash: sums by name)
-- ARGV   for how long it is kept, in ms; how many names there may be; then names and amounts by turns

local room = ARGV[2] - redis.call('HLEN', KEYS[1])
for index = 3, #ARGV, 2 do
  local is_new = redis.call('HEXISTS', KEYS[1], ARGV[index]) == 0
  if room > 0 or not is_new then
    redis.call('HINCRBY', KEYS[1], ARGV[index], ARGV[index + 1])
    room = is_new and room - 1 or room
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
