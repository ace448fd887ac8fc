-- promote: the leader moves due jobs from delayed to the stream; takes or renews the lead first.
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
local some_retry = redis.call('EXISTS', KEYS[6]) == 1
local promoted, ghosts, fault = 0, 0, ''

local function ready(id, record, due_at)
  -- The due time stands behind the record, as a msgpack uint: who starts the job knows how late it is.
  local due_ms = cmsgpack.pack(math.max(0, math.floor(tonumber(due_at))))
  local ok = redis.pcall('XADD', KEYS[4], '*', 'j', record .. due_ms)
  if type(ok) == 'table' and ok.err then return ok.err end
  promoted = promoted + 1
  if cap ~= '0' then
    redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', cap, '*', 'e', 'promoted', 'id', id, 'n', name_of(record))
  end
end

local function leave(ids)
  if #ids == 0 then return end
  redis.call('ZREM', KEYS[2], unpack(ids))
  redis.call('HDEL', KEYS[3], unpack(ids))
  if some_retry then redis.pcall('SREM', KEYS[6], unpack(ids)) end
end

-- Moves so many at a time that they can be arguments of one call.
for first = 1, #due, 1000 do
  local ids, moved = {}, {}
  for i = first, math.min(first + 998, #due - 1), 2 do ids[#ids + 1] = due[i] end
  local records = redis.call('HMGET', KEYS[3], unpack(ids))
  for n, id in ipairs(ids) do
    if records[n] then
      local failed = ready(id, records[n], due[first + n * 2 - 1])
      if failed then
        fault = failed
        break
      end
    else
      ghosts = ghosts + 1
    end
    moved[n] = id
  end
  leave(moved)
  if fault ~= '' then break end
end
local next_due = tonumber(redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2])
local lag, wait = 0, -1
if next_due then
  lag, wait = math.max(0, now - next_due), math.max(0, next_due - now)
end
return {1, promoted, redis.call('ZCARD', KEYS[2]), lag, wait, ghosts, fault}
