-- schedule: stores delayed jobs, addressable by id, and wakes the promoter for an earlier one; once
-- however often the call is sent.
-- KEYS  1 delayed, 2 jobs, 3 unique, 4 events, 5 bitmap of calls
-- ARGV  1 bit of this call, 2 ms to remember it, 3 wake channel, 4 jobs that may be delayed (0: no
--       bound), 5 events to keep (0: none),
--       then per job: id, unique (1|0), "in" or "at", ms (from now, or since the epoch), record, name
-- Returns {1, per job 1 scheduled | 0 a job of this id is live}, or {0, jobs delayed} when full; {1}
--         when it was carried out before.
local wake, max, cap = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local held = redis.call('ZCARD', KEYS[1])
for key = 2, 3 do redis.call('HLEN', KEYS[key]) end -- fails on a wrong type while nothing is written
local seen_before = seen(KEYS[5], ARGV[1], ARGV[2])
if seen_before == 'stored' then return {1} end
if seen_before == 'withdrawn' then return {0, held} end
if max > 0 and held + (#ARGV - 5) / 6 > max then
  redis.call('SETBIT', KEYS[5], ARGV[1] + 1, 1)
  return {0, held}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function earliest()
  return tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
end
local function undo(id, unique, err)
  redis.call('HDEL', KEYS[2], id)
  if unique == '1' then redis.call('HDEL', KEYS[3], id) end
  redis.call('SETBIT', KEYS[5], ARGV[1], 0)
  return redis.error_reply(err)
end
local before = earliest()
local reply = {1}
for i = 6, #ARGV, 6 do
  local id, unique, due = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 3])
  if ARGV[i + 2] == 'in' then due = now + due end
  local free = 1
  if unique == '1' then free = redis.call('HSET', KEYS[3], id, '1') end
  if free == 1 then
    redis.call('HSET', KEYS[2], id, ARGV[i + 4])
    local ok = redis.pcall('ZADD', KEYS[1], string.format('%.0f', due), id)
    if type(ok) == 'table' and ok.err then return undo(id, unique, ok.err) end
    if cap ~= '0' then
      redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', cap, '*', 'e', 'delayed', 'id', id,
        'n', ARGV[i + 5], 'delay_ms', string.format('%.0f', math.max(0, due - now)))
    end
  end
  reply[#reply + 1] = free
end
local after = earliest()
if after and (not before or after < before) then
  redis.pcall('PUBLISH', wake, string.format('%.0f', after))
end
return reply
