-- claim: takes over entries whose holder has been silent for a lease.
-- KEYS  1 stream, 2 settled
-- ARGV  1 group, 2 consumer, 3 lease ms, 4 entries at most, 5 cursor
-- Returns {entries, next cursor, ghosts acknowledged,
--          then per entry: id, {field, value, …}, deliveries with this one, settled bitmap or ""}.
-- Redis 6.2 answers nil for entries that are pending but deleted; they are found among those that
-- it looked at and acknowledged. Later versions drop them from the pending list and name them.
local ENOUGH = 1000 -- entries to look at in a call: with room for one job XAUTOCLAIM looks at ten
local stream, group, consumer, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[4])
local from, looked_at, claimed = nil, 0, {ARGV[5]}
repeat
  from, looked_at = claimed[1], looked_at + most * 10 -- at most, as XAUTOCLAIM has it
  claimed = redis.call('XAUTOCLAIM', stream, group, consumer, ARGV[3], from, 'COUNT', most)
until claimed[2][1] ~= nil or claimed[3] and claimed[3][1] or claimed[1] == '0-0' or looked_at >= ENOUGH
local ghosts = claimed[3] or {}
local reply = {0, claimed[1], 0}
local nils = false
for i = 1, #claimed[2] do
  local entry = claimed[2][i]
  if entry and entry[2] then
    local id = entry[1]
    local pending = redis.call('XPENDING', stream, group, id, id, 1)[1]
    local bitmap = redis.call('HGET', KEYS[2], id)
    reply[1] = reply[1] + 1
    reply[#reply + 1] = id
    reply[#reply + 1] = entry[2]
    reply[#reply + 1] = pending and pending[4] or 1
    reply[#reply + 1] = bitmap or ''
  else
    nils = true
  end
end
if nils then
  local last = claimed[1] == '0-0' and '+' or claimed[1]
  for _, pending in ipairs(redis.call('XPENDING', stream, group, from, last, most * 10, consumer)) do
    if #redis.call('XRANGE', stream, pending[1], pending[1]) == 0 then
      redis.call('XACK', stream, group, pending[1])
      ghosts[#ghosts + 1] = pending[1]
    end
  end
end
for _, id in ipairs(ghosts) do redis.call('HDEL', KEYS[2], id) end
reply[3] = #ghosts
return reply
