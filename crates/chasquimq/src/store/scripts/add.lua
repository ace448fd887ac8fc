-- add: appends entries to the stream, all of them or none, once however often the call is sent.
-- KEYS  1 stream, 2 unique, 3 events, 4 bitmap of calls, 5 lingering
-- ARGV  1 bit of this call, 2 ms to remember it, 3 entries the stream may hold (0: no bound),
--       4 events to keep (0: publish nothing),
--       then per entry: id to hold unique or "", value; with events also: job ids, job names, jobs
-- Returns {1, per entry 1 added | 0 a job of this id is live}, or {0, entries held} when full; {1} when
--         it was carried out before.
local max, cap = tonumber(ARGV[3]), ARGV[4]
local stride = cap == '0' and 2 or 5
local held = redis.call('XLEN', KEYS[1])
if max > 0 then
  local told = redis.pcall('GET', KEYS[5])
  held = held - (type(told) == 'string' and tonumber(string.match(told, '^%d+')) or 0)
end
redis.call('HLEN', KEYS[2]) -- fails on a wrong type while nothing is written
local before = seen(KEYS[4], ARGV[1], ARGV[2])
if before == 'stored' then return {1} end
if before == 'withdrawn' then return {0, held} end
if max > 0 and held + (#ARGV - 4) / stride > max then
  redis.call('SETBIT', KEYS[4], ARGV[1] + 1, 1)
  return {0, held}
end
local reply = {1}
for i = 5, #ARGV, stride do
  local id, added = ARGV[i], 1
  if id ~= '' then added = redis.call('HSET', KEYS[2], id, '1') end
  if added == 1 then
    local ok = redis.pcall('XADD', KEYS[1], '*', 'j', ARGV[i + 1])
    if type(ok) == 'table' and ok.err then
      if id ~= '' then redis.call('HDEL', KEYS[2], id) end
      redis.call('SETBIT', KEYS[4], ARGV[1], 0)
      return redis.error_reply(ok.err)
    end
    if stride == 5 then
      local event = {'e', 'waiting', 'id', ARGV[i + 2], 'n', ARGV[i + 3]}
      if ARGV[i + 4] ~= '1' then event[7], event[8] = 'k', ARGV[i + 4] end
      redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', cap, '*', unpack(event))
    end
  end
  reply[#reply + 1] = added
end
return reply
