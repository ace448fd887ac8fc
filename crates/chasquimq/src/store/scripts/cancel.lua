-- cancel: delayed -> cancelled, by job id, retrying jobs included.
-- KEYS  1 delayed, 2 jobs, 3 unique, 4 events, 5 retrying
-- ARGV  1 events to keep (0: publish nothing), then job ids
-- Returns {jobs cancelled, per job 1 cancelled | 0 not delayed}.
local cap = ARGV[1]
local reply = {0}
for i = 2, #ARGV do
  local id = ARGV[i]
  local removed = 0
  local score = redis.call('ZSCORE', KEYS[1], id)
  if score then
    local record = cap ~= '0' and redis.call('HGET', KEYS[2], id)
    redis.call('HDEL', KEYS[2], id)
    removed = redis.call('ZREM', KEYS[1], id)
    redis.pcall('HDEL', KEYS[3], id)
    if tonumber(score) % 1 ~= 0 then redis.pcall('DECRBY', KEYS[5], 1) end -- it waited for a retry
    if cap ~= '0' then
      redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', cap, '*', 'e', 'cancelled', 'id', id,
        'n', record and name_of(record) or '')
    end
  end
  reply[1] = reply[1] + removed
  reply[#reply + 1] = removed
end
return reply
