-- purge: dead -> gone, the oldest first.
-- KEYS  2 events
-- ARGV  4 events to keep (0: publish nothing), 5 conditions
-- Returns {1 when there may be more, where to go on, the last job to look at, how many went}.
local purged = 0
local more, from, to = choose(conditions(5), function(entry)
  redis.call('XDEL', KEYS[1], entry[1])
  purged = purged + 1
  if ARGV[4] ~= '0' then
    redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'e', 'purged',
      'id', value(entry[2], 'id'), 'n', value(entry[2], 'n'))
  end
end)
return {more, from, to, purged}
