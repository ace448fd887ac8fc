-- leave: removes a consumer from the group, unless entries are still pending for it.
-- KEYS  1 stream
-- ARGV  1 group, 2 consumer
-- Returns 1 removed | 0 entries are pending.
redis.call('XDEL', KEYS[1], '0-1') -- lets the script complete when out of memory
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
