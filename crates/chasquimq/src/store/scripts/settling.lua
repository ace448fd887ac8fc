-- settling: what complete, retry, bury and release share; it stands before each of them.
-- KEYS  1 stream, 2 settled, 3 events
-- ARGV  1 group, 2 consumer, 3 events to keep (0: publish nothing)
local stream, settled, events = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, cap = ARGV[1], ARGV[2], ARGV[3]
redis.call('XDEL', stream, '0-1') -- changes nothing, yet lets the script complete when out of memory

local function owned(id)
  local pending = redis.call('XPENDING', stream, group, id, id, 1)[1]
  return pending and pending[2] == consumer
end

-- Whether job `index` of an entry of `total` jobs was settled before.
local function was_settled(id, total, index)
  if total == 1 then return false end
  local map = redis.call('HGET', settled, id)
  return map and string.sub(map, index + 1, index + 1) == '1'
end

-- Marks job `index`; true when it was the last of its entry.
local function mark(id, total, index)
  if total == 1 then return true end
  local map = redis.call('HGET', settled, id) or string.rep('0', total)
  map = string.sub(map, 1, index) .. '1' .. string.sub(map, index + 2)
  if string.find(map, '0', 1, true) then
    redis.call('HSET', settled, id, map)
    return false
  end
  redis.call('HDEL', settled, id)
  return true
end

local function settle(id, total, index)
  if mark(id, total, index) then
    redis.call('XACK', stream, group, id)
    redis.call('XDEL', stream, id)
  end
end

local function tell(...)
  if cap ~= '0' then redis.pcall('XADD', events, 'MAXLEN', '~', cap, '*', 'e', ...) end
end

-- The error text of a pcall's reply, or nil.
local function failure(reply)
  return type(reply) == 'table' and reply.err or nil
end
