-- complete: running -> done. Marks jobs settled; acknowledges and deletes entries that are through.
-- KEYS  5 unique
-- ARGV  4… per entry: id, look at the owner (1|0), jobs in the entry, jobs settled now, and per job:
--       index, id, name, attempt, duration in us, release the id (1|0)
-- Returns {entries stored, per entry 1 stored | 0 not this consumer's or settled before,
--          and at the end events dropped, if any}.
local STRIDE = 6
local reply, closing, open, done = {0}, {}, {}, {}

-- Marks the jobs that were not settled before and collects them.
local function settle_jobs(entry, first, last)
  for job = first, last, STRIDE do
    local index = tonumber(ARGV[job])
    if not is_settled(entry.map, index) then
      entry.map = mark(entry.map, index)
      entry.jobs[#entry.jobs + 1] = job
    end
  end
end

local function acknowledge()
  local acked, gone = {}, {}
  for n, id in ipairs(closing) do
    acked[n] = redis.call('XACK', stream, group, id)
    if acked[n] == 1 then gone[#gone + 1] = id end
  end
  if #gone > 0 then delete(gone) end
  return acked
end

local function tell_jobs(entry)
  for _, job in ipairs(entry.jobs) do
    if ARGV[job + 5] == '1' then redis.pcall('HDEL', KEYS[5], ARGV[job + 1]) end
    tell('completed', 'id', ARGV[job + 1], 'n', ARGV[job + 2], 'attempt', ARGV[job + 3],
      'duration_us', ARGV[job + 4])
  end
end

local i = 4
while i <= #ARGV do
  local id, total, jobs = ARGV[i], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local entry = {slot = #reply + 1, jobs = {}}
  reply[entry.slot] = 0
  -- Without a look at the owner only the acknowledgement of the whole entry tells whose it was.
  if ARGV[i + 1] == '0' and jobs == total or owned(id) then
    entry.map = bitmap(id, total)
    settle_jobs(entry, i + 4, i + 3 + jobs * STRIDE)
    maps[id] = entry.map
    if #entry.jobs > 0 and is_through(entry.map) then
      closing[#closing + 1] = id
      open[#open + 1] = entry
    elseif #entry.jobs > 0 then
      redis.call('HSET', settled, id, entry.map)
      done[#done + 1] = entry
    end
  end
  i = i + 4 + jobs * STRIDE
end
if #closing > 0 then
  local acked = acknowledge()
  for n, entry in ipairs(open) do
    if acked[n] == 1 then
      if #entry.map > 1 then redis.call('HDEL', settled, closing[n]) end
      done[#done + 1] = entry
    end
  end
end
for _, entry in ipairs(done) do
  reply[1] = reply[1] + 1
  reply[entry.slot] = 1
  tell_jobs(entry)
end
return with_dropped(reply)
