-- renew: starts the lease of running entries anew, only of those this consumer still owns.
-- KEYS  1 stream
-- ARGV  1 group, 2 consumer, then entry ids
-- Returns {entries renewed, per entry 1 renewed | 0 lost}.
-- A bare XCLAIM would steal back what another consumer has claimed meanwhile.
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local reply, claim = {0}, {'XCLAIM', stream, group, consumer, '0'}
for i = 3, #ARGV do
  local pending = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1)[1]
  local mine = pending and pending[2] == consumer
  if mine then
    claim[#claim + 1] = ARGV[i]
    reply[1] = reply[1] + 1
  end
  reply[#reply + 1] = mine and 1 or 0
end
if reply[1] > 0 then
  claim[#claim + 1] = 'IDLE'
  claim[#claim + 1] = '0'
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
end
return reply
