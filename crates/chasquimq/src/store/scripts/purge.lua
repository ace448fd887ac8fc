-- purge: dead -> gone, the oldest first.
-- KEYS  1 dlq, 2 events
-- ARGV  1 events to keep (0: publish nothing), 2 jobs at most
-- Returns how many went.
local cap, most = ARGV[1], tonumber(ARGV[2])
local function field(entry, name)
  for i = 1, #entry, 2 do
    if entry[i] == name then return entry[i + 1] end
  end
  return ''
end
for purged = 0, most - 1 do
  -- One at a time: each may hold a large payload.
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', '1')[1]
  if not oldest then return purged end
  redis.call('XDEL', KEYS[1], oldest[1])
  if cap ~= '0' then
    redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', cap, '*', 'e', 'purged',
      'id', field(oldest[2], 'id'), 'n', field(oldest[2], 'n'))
  end
end
return most
