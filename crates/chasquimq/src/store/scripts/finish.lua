-- finish: running -> done, where nothing stands in the way: the lease is fresh and the first of this entry,
--         it is told of for the first time, all its jobs are done at once, and no id is to be released.
-- ARGV  4 may linger (1|0), 5 entries, 6… their ids,
--       then per event entry: first and last entry it tells of, jobs, and of these ids,
--       names, attempts, durations in us, joined by line ends when they are several; the jobs are those
--       of one entry, or one an entry
-- Returns the number of entries when all are stored and told of, else
--         {entries stored, events dropped, per entry 1 stored | 0 settled before}.
local TOLD = 7
local may_linger, entries = ARGV[4] == '1', tonumber(ARGV[5])
local after = 6 + entries
local ids, stored = {unpack(ARGV, 6, after - 1)}, 0

-- Per entry 1, or 0 when it was settled before.
local function acknowledge()
  local gone = {}
  local count = redis.call('XACK', stream, group, unpack(ids))
  local all = count == entries
  if all then delete(ids, may_linger) end
  for n = 1, entries do
    gone[n] = all and 1 or redis.call('XDEL', stream, ids[n]) -- settled before by another: that is gone
  end
  if not all and count > 0 then delete({}) end
  return gone
end

local function tell_jobs(jobs, ids, names, attempts, durations)
  publish(jobs, 'completed', 'id', ids, 'n', names, 'attempt', attempts, 'duration_us', durations)
end

local acked = acknowledge()
-- This may have been on its way for longer than the lease, while another consumer settled a part.
if redis.call('EXISTS', settled) == 1 then redis.call('HDEL', settled, unpack(ids)) end
for n = 1, entries do
  if acked[n] == 1 then stored = stored + 1 end
end

-- Tells of those jobs whose entry was stored.
local function tell_some(i, first, jobs)
  local ids, names, attempts, durations =
    lines(ARGV[i + 3]), lines(ARGV[i + 4]), lines(ARGV[i + 5]), lines(ARGV[i + 6])
  for n = 1, jobs do
    if acked[first + n - 1] == 1 then tell_jobs(1, ids[n], names[n], attempts[n], durations[n]) end
  end
end

for i = after, #ARGV, TOLD do
  local first, last, jobs = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if stored == entries or first == last and acked[first] == 1 then
    tell_jobs(jobs, unpack(ARGV, i + 3, i + TOLD - 1))
  elseif first < last then
    tell_some(i, first, jobs)
  end
end
if stored == entries and dropped == 0 then return stored end
return {stored, dropped, unpack(acked)}
