-- replay: dead -> ready. Appends the job with fresh counters, then removes it from the dead.
-- KEYS  1 dlq, 2 stream, 3 unique, 4 events
-- ARGV  1 events to keep (0: publish nothing),
--       then per job: dlq id, record, job id, name, hold the id (1|0)
-- Returns {jobs replayed, per job 1 replayed | 0 no longer dead, or a job of this id is live}.
local cap = ARGV[1]
local reply = {0}
for i = 2, #ARGV, 5 do
  local dead, id, result = ARGV[i], ARGV[i + 2], 0
  if #redis.call('XRANGE', KEYS[1], dead, dead) == 1
    and (ARGV[i + 4] == '0' or redis.call('HSET', KEYS[3], id, '1') == 1) then
    local ok = redis.pcall('XADD', KEYS[2], '*', 'j', ARGV[i + 1])
    if type(ok) == 'table' and ok.err then
      if ARGV[i + 4] == '1' then redis.call('HDEL', KEYS[3], id) end
      return redis.error_reply(ok.err)
    end
    redis.call('XDEL', KEYS[1], dead)
    if cap ~= '0' then
      redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', cap, '*', 'e', 'replayed', 'id', id, 'n', ARGV[i + 3])
    end
    result = 1
  end
  reply[1] = reply[1] + result
  reply[#reply + 1] = result
end
return reply
