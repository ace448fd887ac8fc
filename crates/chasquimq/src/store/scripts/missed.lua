-- missed: what was delivered to a consumer in a reply that it never got. Its lease begins anew; it
--         counts as delivered once.
-- KEYS  1 stream, 2 settled
-- ARGV  1 group, 2 consumer, 3 ms: what has been pending for longer is left alone, 4 entries at most,
--       then ids of the entries that the consumer has
-- Returns {entries, then per entry: id, {field, value, …}, deliveries, settled bitmap or ""}.
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local longest, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local known, reply = {}, {0}
for i = 5, #ARGV do known[ARGV[i]] = true end
for _, pending in ipairs(redis.call('XPENDING', stream, group, '-', '+', #ARGV - 4 + most, consumer)) do
  local id, idle, deliveries = pending[1], pending[3], pending[4]
  if not known[id] and idle <= longest and reply[1] < most then
    local entry = redis.call('XCLAIM', stream, group, consumer, 0, id, 'RETRYCOUNT', deliveries)[1]
    if entry and entry[2] then
      reply[1] = reply[1] + 1
      reply[#reply + 1] = id
      reply[#reply + 1] = entry[2]
      reply[#reply + 1] = deliveries
      reply[#reply + 1] = redis.call('HGET', KEYS[2], id) or ''
    end
  end
end
return reply
