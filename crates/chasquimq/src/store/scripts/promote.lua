-- promote: the leader moves due jobs from delayed to the stream; takes or renews the lead first.
-- Where many are due, several share an entry.
-- KEYS  1 promoter, 2 delayed, 3 jobs, 4 stream, 5 events, 6 retrying
-- ARGV  1 holder, 2 lock ms, 3 jobs to move at most, 4 events to keep (0: publish nothing)
-- Returns {0, lock ms left} when another leads, else
--         {1, promoted, still delayed, ms the oldest left behind is overdue,
--          ms until the next is due (-1: none), members without a record, error text or ""}.
redis.call('XDEL', KEYS[4], '0-1') -- frees nothing, yet lets the script complete when out of memory
local holder, cap = ARGV[1], ARGV[4]
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= holder then return {0, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], holder, 'PX', ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'WITHSCORES',
  'LIMIT', 0, ARGV[3])
local pack = math.max(1, math.min(8, math.floor(#due / 2 / 16)))
local promoted, ghosts, retries, fault = 0, 0, 0, ''

local function tell(ids, records)
  if cap == '0' then return end
  for n, id in ipairs(ids) do
    redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', cap, '*', 'e', 'promoted', 'id', id,
      'n', name_of(records[n]))
  end
end

-- Moves the jobs of one entry; an error text when it cannot be written, and then they stay.
local function move(ids, records, values)
  if #ids == 0 then return end
  local ok = redis.pcall('XADD', KEYS[4], '*', 'j', table.concat(values))
  if type(ok) == 'table' and ok.err then return ok.err end
  promoted = promoted + #ids
  tell(ids, records)
end

-- Takes out what has been moved; when it is all that was looked at, that is what is due first.
local function leave(ids, all)
  if #ids == 0 then return end
  if all then
    redis.call('ZREMRANGEBYRANK', KEYS[2], 0, #ids - 1)
  else
    redis.call('ZREM', KEYS[2], unpack(ids))
  end
  redis.call('HDEL', KEYS[3], unpack(ids))
end

local FULL = 256 * 1024 -- bytes: an entry that holds so much is not given more

-- Whether a record may share an entry: one that cannot be read would take the others with it.
local function looks_sound(record)
  local array, version = string.byte(record, 1, 2)
  return array == 0x98 and version == 1
end

-- Moves jobs of these ids and scores, `pack` an entry, and takes out what has been moved.
local function promote(ids, scores)
  local found = redis.call('HMGET', KEYS[3], unpack(ids))
  local moved, some, records, values, bytes, retried = {}, {}, {}, {}, 0, 0
  local function next_entry()
    fault = move(some, records, values) or ''
    if fault ~= '' then return end
    for _, id in ipairs(some) do moved[#moved + 1] = id end
    retries = retries + retried
    some, records, values, bytes, retried = {}, {}, {}, 0, 0
  end
  for n, id in ipairs(ids) do
    local is_sound = not found[n] or looks_sound(found[n])
    if not is_sound then next_entry() end
    if fault ~= '' then break end
    local due_ms = math.max(0, math.ceil(scores[n]))
    if due_ms ~= scores[n] then retried = retried + 1 end
    if found[n] then
      some[#some + 1], records[#records + 1] = id, found[n]
      -- The due time stands behind the record, as a msgpack uint: who starts the job knows how late it is.
      values[#values + 1] = found[n] .. cmsgpack.pack(due_ms)
      bytes = bytes + #found[n]
      if #some == pack or bytes >= FULL or not is_sound then next_entry() end
    else
      ghosts = ghosts + 1
      moved[#moved + 1] = id
    end
    if fault ~= '' then break end
  end
  if fault == '' then next_entry() end
  leave(moved, fault == '')
end

-- So many at a time that they can be arguments of one call.
for first = 1, #due, 1000 do
  local ids, scores = {}, {}
  for i = first, math.min(first + 998, #due - 1), 2 do
    ids[#ids + 1], scores[#scores + 1] = due[i], tonumber(due[i + 1])
  end
  promote(ids, scores)
  if fault ~= '' then break end
end
local left = redis.call('ZCARD', KEYS[2])
if left == 0 then
  redis.call('DEL', KEYS[6])
elseif retries > 0 then
  redis.pcall('DECRBY', KEYS[6], retries)
end
local next_due = tonumber(redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2])
local lag, wait = 0, -1
if next_due then
  next_due = math.ceil(next_due)
  lag, wait = math.max(0, now - next_due), math.max(0, next_due - now)
end
return {1, promoted, left, lag, wait, ghosts, fault}
