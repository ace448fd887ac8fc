-- finish: running -> done, where nothing stands in the way: the lease is fresh, all jobs of an entry
--         are done at once, and no id is to be released.
-- ARGV  4 least and 5 greatest of their ids (empty: do not look whether one trim deletes them), 6 entries,
--       7… their ids, then per event entry: first and last entry it tells of, jobs, and of these ids,
--       names, attempts, durations in us, joined by line ends when they are several; the jobs are those
--       of one entry, or one an entry
-- Returns the number of entries when all are stored and told of, else
--         {entries stored, events dropped, per entry 1 stored | 0 settled before}.
local TOLD = 7
local least, greatest, entries = ARGV[4], ARGV[5], tonumber(ARGV[6])
local after = 7 + entries
local stored = 0

local function is_before(id, other)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  local other_ms, other_seq = string.match(other, '(%d+)-(%d+)')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms < other_ms or ms == other_ms and tonumber(seq) < tonumber(other_seq)
end

-- How long the stream is without these entries, if they are its head and nothing else is in it; or nil.
-- Nothing between them is pending (what else is live there was acknowledged by hand and will not run),
-- nothing live stands before them, and none of them has been deleted by others: what deletes elsewhere than
-- at the head moves max-deleted-entry-id. Redis 6.2 tells neither id.
local function rest()
  if least == '' or redis.call('XPENDING', stream, group, least, greatest, 1)[1] then return nil end
  local told, info = redis.call('XINFO', 'STREAM', stream), {}
  for n = 1, #told, 2 do info[told[n]] = told[n + 1] end
  if info['recorded-first-entry-id'] ~= least then return nil end
  return is_before(info['max-deleted-entry-id'], least) and info.length - entries or nil
end

-- Deletes entries that all were pending until now. XDEL searches a node of the stream for each id, a trim
-- drops whole nodes. By MAXLEN alone: MINID after XDEL leaves nodes without live entries, and servers refuse
-- to load these.
local function delete()
  local length = rest()
  if length then
    redis.call('XTRIM', stream, 'MAXLEN', length)
  else
    redis.call('XDEL', stream, unpack(ARGV, 7, after - 1))
  end
end

-- Per entry 1, or 0 when it was settled before.
local function acknowledge()
  local gone = {}
  local all = redis.call('XACK', stream, group, unpack(ARGV, 7, after - 1)) == entries
  if all then delete() end
  for n = 1, entries do
    gone[n] = all and 1 or redis.call('XDEL', stream, ARGV[6 + n]) -- what is settled is deleted, too
  end
  return gone
end

local function tell_jobs(jobs, ids, names, attempts, durations)
  publish(jobs, 'completed', 'id', ids, 'n', names, 'attempt', attempts, 'duration_us', durations)
end

local acked = acknowledge()
-- This may have been on its way for longer than the lease, while another consumer settled a part.
if redis.call('EXISTS', settled) == 1 then redis.call('HDEL', settled, unpack(ARGV, 7, after - 1)) end
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
