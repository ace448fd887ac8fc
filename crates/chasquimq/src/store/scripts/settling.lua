-- settling: what complete, retry, bury and release share; it stands before each of them.
-- KEYS  1 stream, 2 settled, 3 events
-- ARGV  1 group, 2 consumer, 3 events to keep (0: publish nothing), 4 events an entry
local stream, settled, events = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, cap = ARGV[1], ARGV[2], ARGV[3]
redis.call('XDEL', stream, '0-1') -- changes nothing, yet lets the script complete when out of memory

local function owned(id)
  local pending = redis.call('XPENDING', stream, group, id, id, 1)[1]
  return pending and pending[2] == consumer
end

-- What is settled of an entry of `total` jobs: one character a job, `1` = settled.
local function bitmap(id, total)
  return total > 1 and redis.call('HGET', settled, id) or string.rep('0', total)
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

local through = {}

-- Keeps what is settled of an entry; an entry that is through waits for remove_through.
local function settle(id, map)
  if not is_through(map) then return redis.call('HSET', settled, id, map) end
  through[#through + 1] = id
  if #map > 1 then redis.call('HDEL', settled, id) end
end

-- Acknowledges and deletes the entries that are through: the last step, after every new place is written.
local function remove_through()
  if #through == 0 then return end
  redis.call('XACK', stream, group, unpack(through))
  redis.call('XDEL', stream, unpack(through))
end

-- The error text of a pcall's reply, or nil.
local function failure(reply)
  return type(reply) == 'table' and reply.err or nil
end

local dropped = 0
local pack = tonumber(ARGV[4])

-- Publishes an event, or counts it as dropped: what it tells of is stored either way.
local function tell(...)
  if cap == '0' then return end
  if failure(redis.pcall('XADD', events, 'MAXLEN', '~', cap, '*', 'e', ...)) then
    dropped = dropped + 1
    return true
  end
end

local function joined(rows, column, first, last)
  local values = {}
  for n = first, last do values[#values + 1] = rows[n][column] end
  return table.concat(values, '\n')
end

-- Publishes events of one kind, `pack` an entry. A line end in a text would be taken for the next
-- event: then each has an entry of its own.
local function tell_all(event, fields, rows)
  local most = pack
  for column = 1, #fields do
    local text = joined(rows, column, 1, #rows)
    if select(2, string.gsub(text, '\n', '')) >= #rows then most = 1 end
  end
  for first = 1, #rows, most do
    local last, entry = math.min(first + most - 1, #rows), {event}
    for column, field in ipairs(fields) do
      entry[#entry + 1], entry[#entry + 2] = field, joined(rows, column, first, last)
    end
    if last > first then entry[#entry + 1], entry[#entry + 2] = 'k', last - first + 1 end
    if tell(unpack(entry)) then dropped = dropped + last - first end
  end
end

local function with_dropped(reply)
  if dropped > 0 then reply[#reply + 1] = dropped end
  return reply
end
