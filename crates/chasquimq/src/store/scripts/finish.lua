-- finish: running -> done, where nothing stands in the way: the lease is fresh, all jobs of an entry
--         are done at once, and no id is to be released.
-- KEYS  1 stream, 2 events
-- ARGV  1 group, 2 events to keep (0: publish nothing), 3 XACKDEL available (1|0), 4 entries,
--       5… their ids, then per event entry: first and last entry it tells of, jobs, and of these
--       ids, names, attempts, durations in us, joined by line ends; the jobs are those of one entry,
--       or one an entry
-- Returns the number of entries when all are stored, else
--         {entries stored, events dropped, per entry 1 stored | another number: settled before}.
local stream, events, group, cap = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local entries = tonumber(ARGV[4])
local after = 5 + entries
redis.call('XDEL', stream, '0-1') -- changes nothing, yet lets the script complete when out of memory
local stored, dropped = 0, 0

-- Per entry 1, or another number when it was settled before.
local function acknowledge()
  if ARGV[3] == '1' then
    return redis.call('XACKDEL', stream, group, 'IDS', entries, unpack(ARGV, 5, after - 1))
  end
  local gone = {}
  local all = redis.call('XACK', stream, group, unpack(ARGV, 5, after - 1)) == entries
  if all then redis.call('XDEL', stream, unpack(ARGV, 5, after - 1)) end
  for n = 1, entries do
    gone[n] = all and 1 or redis.call('XDEL', stream, ARGV[4 + n]) -- what is settled is deleted, too
  end
  return gone
end

local function tell(jobs, ids, names, attempts, durations)
  local told
  if jobs == '1' then
    told = redis.pcall('XADD', events, 'MAXLEN', '~', cap, '*', 'e', 'completed', 'id', ids, 'n', names,
      'attempt', attempts, 'duration_us', durations)
  else
    told = redis.pcall('XADD', events, 'MAXLEN', '~', cap, '*', 'e', 'completed', 'id', ids, 'n', names,
      'attempt', attempts, 'duration_us', durations, 'k', jobs)
  end
  if type(told) == 'table' and told.err then dropped = dropped + tonumber(jobs) end
end

local function lines(text)
  local all = {}
  for line in string.gmatch(text .. '\n', '(.-)\n') do all[#all + 1] = line end
  return all
end

local acked = acknowledge()
for n = 1, entries do
  if acked[n] == 1 then stored = stored + 1 end
end

-- Tells of those jobs whose entry was stored.
local function tell_some(i, first)
  local ids, names, attempts, durations =
    lines(ARGV[i + 3]), lines(ARGV[i + 4]), lines(ARGV[i + 5]), lines(ARGV[i + 6])
  for n = 1, tonumber(ARGV[i + 2]) do
    if acked[first + n - 1] == 1 then tell('1', ids[n], names[n], attempts[n], durations[n]) end
  end
end

for i = after, #ARGV, 7 do
  local first, last = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if stored == entries or first == last and acked[first] == 1 then
    tell(ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
  elseif first < last then
    tell_some(i, first)
  end
end
if stored == entries and dropped == 0 then return stored end
return {stored, dropped, unpack(acked)}
