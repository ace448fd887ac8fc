-- settling: what finish, complete, retry, bury and release share; it stands before each of them.
-- KEYS  1 stream, 2 settled, 3 events, 4 lingering
-- ARGV  1 group, 2 consumer, 3 events to keep (0: publish nothing)
local stream, settled, events, lingering = unpack(KEYS, 1, 4)
local group, consumer, cap = ARGV[1], ARGV[2], ARGV[3]
redis.call('XDEL', stream, '0-1') -- changes nothing, yet lets the script complete when out of memory

local maps, changed, delivered_again = {}, {}, false

local held = {}

-- Finds many that are this consumer's at once, which costs a third of a look at each.
local function look(first, last, most)
  for _, pending in ipairs(redis.call('XPENDING', stream, group, first, last, most, consumer)) do
    held[pending[1]] = pending
  end
end

local function owned(id)
  local pending = held[id] or redis.call('XPENDING', stream, group, id, id, 1)[1]
  delivered_again = delivered_again or pending and pending[4] > 1
  return pending and pending[2] == consumer
end

-- What is settled of an entry of `total` jobs: one character a job, `1` = settled.
local function bitmap(id, total)
  if not maps[id] then
    maps[id] = total > 1 and redis.call('HGET', settled, id) or string.rep('0', total)
  end
  return maps[id]
end

local function is_settled(map, index)
  return string.sub(map, index + 1, index + 1) == '1'
end

local function mark(map, index)
  return string.sub(map, 1, index) .. '1' .. string.sub(map, index + 2)
end

local function is_through(map)
  return not string.find(map, '0', 1, true)
end

-- Remembers what is settled of an entry, for leave.
local function settle(id, map)
  maps[id] = map
  changed[#changed + 1] = id
end

local MOST_LINGERING = 1000 -- entries
local FEW = 8 -- entries: to delete so few costs less than to let them linger

local function last_delivered()
  for _, told in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local of = {}
    for n = 1, #told, 2 do of[told[n]] = told[n + 1] end
    if of.name == group then return of['last-delivered-id'] end
  end
end

-- Deletes all before the first entry that runs or waits; how many linger then, of so many, and behind
-- which running entry. Behind the one of the last time there is nothing to delete. MINID names a live entry
-- only: a node of the stream without any is one that servers refuse to load.
local function sweep(count, last_time)
  local pending = redis.call('XPENDING', stream, group, '-', '+', 1)[1]
  local running = pending and pending[1]
  if running and running == last_time then return count, running end
  local from = running or '(' .. last_delivered()
  local first, gone = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1], nil
  if first then
    gone = redis.call('XTRIM', stream, 'MINID', first[1])
  else
    gone = redis.call('XTRIM', stream, 'MAXLEN', 0)
  end
  return running and count - gone or 0, running
end

-- Deletes entries that were acknowledged just now, or lets them linger until all before them are through:
-- XDEL searches a node of the stream for each id, a trim drops whole nodes. What a later holder has settled
-- never lingers: whoever had it before learns by XDEL in finish that it is gone.
local function delete(ids, may_linger)
  may_linger = may_linger and #ids >= FEW and not delivered_again
  if not may_linger and #ids > 0 then redis.call('XDEL', stream, unpack(ids)) end
  local told = redis.pcall('GET', lingering)
  local before, running = string.match(type(told) == 'string' and told or '', '^(%d+) (.+)$')
  local now = tonumber(before) or 0
  if may_linger then now = now + #ids end
  if now > 0 then now, running = sweep(now, running) end
  if may_linger and now > MOST_LINGERING then now = now - redis.call('XDEL', stream, unpack(ids)) end
  if now > 0 then
    redis.call('SET', lingering, string.format('%d %s', now, running))
  elseif told then
    redis.call('DEL', lingering)
  end
end

-- Keeps what is settled of entries that are partly settled; acknowledges and deletes those that are
-- through. The last step, after every new place is written.
local function leave(may_linger)
  local through, marks, gone = {}, {}, {}
  for _, id in ipairs(changed) do
    local map = maps[id]
    maps[id] = nil -- each once
    if map and is_through(map) then
      through[#through + 1] = id
      if #map > 1 then gone[#gone + 1] = id end
    elseif map then
      marks[#marks + 1], marks[#marks + 2] = id, map
    end
  end
  if #marks > 0 then redis.call('HSET', settled, unpack(marks)) end
  if #gone > 0 then redis.call('HDEL', settled, unpack(gone)) end
  if #through > 0 then
    redis.call('XACK', stream, group, unpack(through))
    delete(through, may_linger)
  end
end

-- The error text of a pcall's reply, or nil.
local function failure(reply)
  return type(reply) == 'table' and reply.err or nil
end

local dropped = 0

-- Publishes `count` events in one entry, or counts them as dropped: what they tell of is stored either way.
local function publish(count, ...)
  if cap == '0' then return end
  local entry = {...}
  if count > 1 then entry[#entry + 1], entry[#entry + 2] = 'k', count end
  if failure(redis.pcall('XADD', events, 'MAXLEN', '~', cap, '*', 'e', unpack(entry))) then
    dropped = dropped + count
  end
end

local function tell(...) publish(1, ...) end

local function lines(text)
  local all = {}
  for line in string.gmatch(text .. '\n', '(.-)\n') do all[#all + 1] = line end
  return all
end

local function with_dropped(reply)
  if dropped > 0 then reply[#reply + 1] = dropped end
  return reply
end
