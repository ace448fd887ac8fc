-- bury: running -> dead. Writes the job to the dead-letter queue, then settles it in its entry.
-- KEYS  5 dlq, 6 unique
-- ARGV  4 dead jobs to keep (0: all), then per job: entry id, jobs in the entry, index, job id or "",
--       name, release the id (1|0), reason, error text, run that gave up (0: none ran),
--       duration in us, lost, number of raw values, and these: field, value, … ("j", record for a job)
-- Returns {jobs stored, per job 1 stored | 0 not this consumer's or settled before | an error text,
--          nothing changed, and at the end events dropped, if any}.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local MOST = 4000 -- values of a foreign entry that are kept; Lua passes no more than 8000 at once
local reply = {0}

local function write(i, raw)
  local entry = {'XADD', KEYS[5], '*', 'id', ARGV[i + 3], 'n', ARGV[i + 4], 'reason', ARGV[i + 6],
    'error', ARGV[i + 7], 'attempt', ARGV[i + 8], 'lost', ARGV[i + 10], 'failed_at_ms', now,
    'source_id', ARGV[i]}
  for n = i + 12, i + 11 + math.min(raw, MOST) do entry[#entry + 1] = ARGV[n] end
  local fault = failure(redis.pcall(unpack(entry)))
  if not fault and ARGV[4] ~= '0' then redis.pcall('XTRIM', KEYS[5], 'MAXLEN', ARGV[4]) end
  return fault
end

local function bury(i, raw)
  local id, total, index = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if not owned(id) then return 0 end
  local map = bitmap(id, total)
  if is_settled(map, index) then return 0 end
  local fault = write(i, raw)
  if fault then return fault end
  settle(id, mark(map, index))
  local job, name, attempt = ARGV[i + 3], ARGV[i + 4], ARGV[i + 8]
  if ARGV[i + 5] == '1' then redis.pcall('HDEL', KEYS[6], job) end
  if attempt ~= '0' then
    tell('failed', 'id', job, 'n', name, 'attempt', attempt, 'duration_us', ARGV[i + 9], 'reason', ARGV[i + 7])
  end
  tell('dlq', 'id', job, 'n', name, 'attempt', attempt, 'reason', ARGV[i + 6])
  reply[1] = reply[1] + 1
  return 1
end

local i = 5
while i <= #ARGV do
  local raw = tonumber(ARGV[i + 11])
  reply[#reply + 1] = bury(i, raw)
  i = i + 12 + raw
end
leave()
return with_dropped(reply)
