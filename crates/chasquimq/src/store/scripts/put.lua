-- put: appends entries, once however often the call is sent.
-- KEYS  1 stream, 2 bitmap of calls
-- ARGV  1 bit of this call, 2 ms to remember it, then the value of each entry
-- Returns 1, also when the call was withdrawn: then nobody listens.
if seen(KEYS[2], ARGV[1], ARGV[2]) then return 1 end
local stream, call = KEYS[1], redis.pcall
for i = 3, #ARGV do
  local ok = call('XADD', stream, '*', 'j', ARGV[i])
  if type(ok) == 'table' and ok.err then
    redis.call('SETBIT', KEYS[2], ARGV[1], 0)
    return redis.error_reply(ok.err)
  end
end
return 1
