-- retry: running -> delayed. Writes the job to its new place, then settles it in its entry.
-- KEYS  4 delayed, 5 jobs, 6 retrying
-- ARGV  5 wake channel, then per job: entry id, jobs in the entry, index, job id, name, record,
--       backoff ms, run that failed, duration in us, error text
-- Returns {jobs stored, per job 1 stored | 0 not this consumer's or settled before | an error text,
--          nothing changed, and at the end events dropped, if any}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = tonumber((redis.pcall('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES'))[2])
local reply, accepted, earliest = {0}, {}, nil

-- Whether the job is this consumer's to settle; then it waits to be written with the others.
local function accept(i)
  local id, total, index = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if not owned(id) or total > 1 and is_settled(bitmap(id, total), index) then return end
  local due = now + tonumber(ARGV[i + 6])
  earliest = math.min(earliest or due, due)
  accepted[#accepted + 1] = {at = i, slot = #reply, due = due}
end

-- Writes all accepted jobs, or none: the error text.
local function write()
  local records, times, ids = {}, {}, {}
  for n, job in ipairs(accepted) do
    local id = ARGV[job.at + 3]
    ids[n] = id
    records[2 * n - 1], records[2 * n] = id, ARGV[job.at + 5]
    times[2 * n - 1], times[2 * n] = job.due, id
  end
  local fault = failure(redis.pcall('HSET', KEYS[5], unpack(records)))
  if fault then return fault end
  fault = failure(redis.pcall('ZADD', KEYS[4], unpack(times)))
  if fault then redis.call('HDEL', KEYS[5], unpack(ids)) end
  if not fault then redis.pcall('SADD', KEYS[6], unpack(ids)) end -- only counted: no reason to fail
  return fault
end

local failed, scheduled = {}, {}

local function finish(i)
  local id, total, index = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  settle(id, total > 1 and mark(bitmap(id, total), index) or '1')
  local job, name, run = ARGV[i + 3], ARGV[i + 4], ARGV[i + 7]
  failed[#failed + 1] = {job, name, run, ARGV[i + 8], ARGV[i + 9]}
  scheduled[#scheduled + 1] = {job, name, string.format('%.0f', run + 1), ARGV[i + 6]}
  reply[1] = reply[1] + 1
end

-- Small hashes, sets and sorted sets are lists that every look-up scans. One value of more than 64
-- bytes makes each a table for the rest of its life, which pays from some dozen members on.
local function spread()
  local members = redis.pcall('ZCARD', KEYS[4])
  if type(members) ~= 'number' or members < 64 or members > 600 then return end
  local long = string.rep(' ', 65)
  redis.pcall('HSET', KEYS[5], long, long)
  redis.pcall('HDEL', KEYS[5], long)
  redis.pcall('ZADD', KEYS[4], now, long)
  redis.pcall('ZREM', KEYS[4], long)
  redis.pcall('SADD', KEYS[6], long)
  redis.pcall('SREM', KEYS[6], long)
end

for i = 6, #ARGV, 10 do
  reply[#reply + 1] = 0
  accept(i)
end
if #accepted == 0 then return reply end
spread()
local fault = write()
for _, job in ipairs(accepted) do
  reply[job.slot] = fault or 1
  if not fault then finish(job.at) end
end
if not fault and (not before or earliest < before) then
  redis.pcall('PUBLISH', ARGV[5], string.format('%.0f', earliest))
end
remove_through()
tell_all('failed', {'id', 'n', 'attempt', 'duration_us', 'reason'}, failed)
tell_all('retry-scheduled', {'id', 'n', 'attempt', 'backoff_ms'}, scheduled)
return with_dropped(reply)
