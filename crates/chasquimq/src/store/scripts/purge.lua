-- purge: dead -> gone.
-- KEYS  1 dlq, 2 events
-- ARGV  1 events to keep (0: publish nothing), then per job: dlq id, job id, name
-- Returns {jobs purged, per job 1 purged | 0 no longer dead}.
local cap = ARGV[1]
local reply = {0}
for i = 2, #ARGV, 3 do
  local removed = redis.call('XDEL', KEYS[1], ARGV[i])
  if removed == 1 and cap ~= '0' then
    redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', cap, '*', 'e', 'purged', 'id', ARGV[i + 1], 'n', ARGV[i + 2])
  end
  reply[1] = reply[1] + removed
  reply[#reply + 1] = removed
end
return reply
