-- Adds to what all workers have noted in a step of time.
--
-- KEYS   what was noted (hash: sums by name)
-- ARGV   for how long it is kept, in ms; then names and amounts by turns

for index = 2, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[index], ARGV[index + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
