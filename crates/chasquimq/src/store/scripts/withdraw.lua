-- withdraw: sees to it that calls whose replies were lost are not carried out any more.
-- KEYS  bitmaps of calls
-- ARGV  1 ms to remember them, then per key: the bit of the call
-- Returns {calls carried out, per call 1 it was carried out | 0 it never will be}.
local reply = {0}
for i, key in ipairs(KEYS) do
  local at, stored = ARGV[i + 1], 0
  if redis.call('SETBIT', key, at, 1) == 0 then
    redis.call('SETBIT', key, at + 1, 1)
  elseif redis.call('GETBIT', key, at + 1) == 0 then
    stored = 1
  end
  redis.call('PEXPIRE', key, ARGV[1])
  reply[1] = reply[1] + stored
  reply[#reply + 1] = stored
end
return reply
