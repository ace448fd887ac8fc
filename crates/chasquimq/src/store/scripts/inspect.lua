-- inspect: counts what a queue holds. Writes nothing, so it also answers when out of memory.
-- KEYS  1 stream, 2 delayed, 3 retrying, 4 dlq, 5 lingering
-- Returns {ready entries, delivered entries, delayed jobs, of these waiting for a retry, dead jobs,
--          ms since the oldest ready entry became ready (0: none is)}.
-- A queue has one group at most; without it every entry is ready.
local pending, delivered = 0, '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local group = redis.call('XINFO', 'GROUPS', KEYS[1])[1] or {}
  for i = 1, #group, 2 do
    if group[i] == 'pending' then pending = group[i + 1] end
    if group[i] == 'last-delivered-id' then delivered = group[i + 1] end
  end
end
local oldest = redis.call('XRANGE', KEYS[1], '(' .. delivered, '+', 'COUNT', 1)[1]
local age = 0
if oldest then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  age = math.max(0, now - tonumber(string.match(oldest[1], '^%d+')))
end
local told = redis.pcall('GET', KEYS[5])
local lingering = type(told) == 'string' and tonumber(string.match(told, '^%d+')) or 0
local ready = math.max(0, redis.call('XLEN', KEYS[1]) - pending - lingering)
local delayed = redis.call('ZCARD', KEYS[2])
local count = redis.pcall('GET', KEYS[3])
local retrying = type(count) == 'string' and tonumber(count) or 0
return {ready, pending, delayed, math.max(0, math.min(delayed, retrying)),
  redis.call('XLEN', KEYS[4]), age}
