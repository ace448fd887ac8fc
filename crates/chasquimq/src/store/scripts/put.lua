-- put: appends one entry, once however often the call is sent.
-- KEYS  1 stream, 2 bitmap of calls
-- ARGV  1 bit of this call, 2 ms to remember it, 3 value
-- Returns 1.
if seen(KEYS[2], ARGV[1], ARGV[2]) then return 1 end
local ok = redis.pcall('XADD', KEYS[1], '*', 'j', ARGV[3])
if type(ok) == 'table' and ok.err then
  redis.call('SETBIT', KEYS[2], ARGV[1], 0)
  return redis.error_reply(ok.err)
end
return 1
