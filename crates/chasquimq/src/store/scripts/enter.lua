-- enter: makes the consumer group from the beginning of the stream, unless it is there.
-- KEYS  1 stream
-- ARGV  1 group
-- Returns {1 made | 0 was there, names of the other groups…}.
redis.call('XDEL', KEYS[1], '0-1') -- lets the script complete when out of memory
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then return redis.error_reply(made.err) end
local reply = {made.err and 0 or 1}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if group[2] ~= ARGV[1] then reply[#reply + 1] = group[2] end
end
return reply
