-- add: appends entries to the stream, all of them or none.
-- KEYS  1 stream, 2 unique, 3 events
-- ARGV  1 entries the stream may hold (0: no bound), 2 events to keep (0: publish nothing),
--       then per entry: id to hold unique or "", value; with events also: job ids, job names, jobs
-- Returns {1, per entry 1 added | 0 a job of this id is live}, or {0, entries held} when full.
local max, cap = tonumber(ARGV[1]), ARGV[2]
local stride = cap == '0' and 2 or 5
local count = (#ARGV - 2) / stride
local held = redis.call('XLEN', KEYS[1])
if max > 0 and held + count > max then return {0, held} end
redis.call('HLEN', KEYS[2]) -- fails on a wrong type while nothing is written
local reply = {1}
for i = 3, #ARGV, stride do
  local id, added = ARGV[i], 1
  if id ~= '' then added = redis.call('HSETNX', KEYS[2], id, '1') end
  if added == 1 then
    local ok = redis.pcall('XADD', KEYS[1], '*', 'j', ARGV[i + 1])
    if type(ok) == 'table' and ok.err then
      if id ~= '' then redis.call('HDEL', KEYS[2], id) end
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
