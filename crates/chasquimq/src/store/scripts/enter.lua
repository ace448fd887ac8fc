-- enter: makes the consumer group from the beginning of the stream, unless it or another is there.
-- KEYS  1 stream, 2 lingering
-- ARGV  1 group
-- Returns {1 made | 0 was there}, or {0, name of the other group}, nothing changed.
redis.call('XDEL', KEYS[1], '0-1') -- lets the script complete when out of memory
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if group[2] ~= ARGV[1] then return {0, group[2]} end
  end
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if not made.err then
  redis.call('DEL', KEYS[2]) -- a new group is given all that is there
  return {1}
end
if string.find(made.err, 'BUSYGROUP', 1, true) then return {0} end
return redis.error_reply(made.err)
