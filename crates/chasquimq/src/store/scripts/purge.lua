-- purge: dead -> gone, the oldest first.
-- KEYS  2 events
-- ARGV  4 events to keep (0: publish nothing), 5 conditions
-- Returns {jobs looked at, where to go on, how many went}.
local purged = 0
local looked, from = choose(conditions(5), function(entry)
  redis.call('XDEL', KEYS[1], entry[1])
  purged = purged + 1
  if ARGV[4] ~= '0' then
    redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'e', 'purged',
      'id', value(entry[2], 'id'), 'n', value(entry[2], 'n'))
  end
end)
return {looked, from, purged}
