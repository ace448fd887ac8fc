-- unlock: gives up the promoter's lead, if it is held by this holder.
-- KEYS  1 promoter
-- ARGV  1 holder
-- Returns 1 given up | 0 another leads, or nobody.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
