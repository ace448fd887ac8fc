-- retry: running -> delayed. Writes jobs to their new place, then settles them in their entries.
-- KEYS  5 delayed, 6 jobs, 7 retrying
-- ARGV  4 wake channel, 5 may linger (1|0), 6 jobs, 7 and 8 the oldest and the newest of their entries,
--       then per job: entry id, jobs in the entry, index, job id, record, backoff ms; then per event entry: first job it tells of, jobs,
--       and of these, joined by line ends when they are several: ids, names, runs that failed,
--       durations in us, error texts, runs to come, backoffs in ms
-- Returns the number of jobs when all are stored, else
--         {jobs stored, per job 1 stored | 0 not this consumer's or settled before | an error text,
--          nothing changed, and at the end events dropped, if any}.
local JOBS, STRIDE, TOLD = 9, 6, 9 -- where jobs begin, arguments a job, arguments an event entry
local jobs = tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = tonumber((redis.pcall('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES'))[2])
local accepted, reply, earliest = {}, {0}, math.huge

-- Whether the job is this consumer's to settle. It always looks: this may have been on its way for
-- longer than the lease, and would bring back a job that has ended elsewhere.
local function is_ours(i)
  if not owned(ARGV[i]) then return false end
  local total = tonumber(ARGV[i + 1])
  return total == 1 or not is_settled(bitmap(ARGV[i], total), tonumber(ARGV[i + 2]))
end

-- Writes all accepted jobs, or none: the error text.
local function write()
  local records, times, ids = {}, {}, {}
  for n = 1, #accepted do
    local i = accepted[n]
    local id, due = ARGV[i + 3], now + ARGV[i + 5]
    ids[n] = id
    records[2 * n - 1], records[2 * n] = id, ARGV[i + 4]
    times[2 * n - 1], times[2 * n] = due - 0.5, id -- the half tells a retry, for the counts
    if due < earliest then earliest = due end
  end
  local fault = failure(redis.pcall('HSET', KEYS[6], unpack(records)))
  if fault then return fault end
  local added = redis.pcall('ZADD', KEYS[5], unpack(times))
  fault = failure(added)
  if fault then redis.call('HDEL', KEYS[6], unpack(ids)) end
  -- A job that is told of under two leases is delayed once.
  if not fault then redis.pcall('INCRBY', KEYS[7], added) end
  return fault
end

local function settle_job(i)
  local id, total = ARGV[i], tonumber(ARGV[i + 1])
  settle(id, total == 1 and '1' or mark(bitmap(id, total), tonumber(ARGV[i + 2])))
end

local function tell_jobs(jobs, ids, names, runs, durations, errors, coming, backoffs)
  publish(jobs, 'failed', 'id', ids, 'n', names, 'attempt', runs, 'duration_us', durations,
    'reason', errors)
  publish(jobs, 'retry-scheduled', 'id', ids, 'n', names, 'attempt', coming, 'backoff_ms', backoffs)
end

-- Tells of those jobs of an event entry that were stored.
local function tell_some(i, first, count)
  local columns = {}
  for column = 1, TOLD - 2 do
    local text = ARGV[i + 1 + column]
    columns[column] = count > 1 and lines(text) or {text}
  end
  for n = 1, count do
    local job = {}
    for column = 1, #columns do job[column] = columns[column][n] end
    if reply[first + n] == 1 then tell_jobs(1, unpack(job)) end
  end
end

-- Small hashes and sorted sets are lists that every look-up scans. One value of more than 64
-- bytes makes each a table for the rest of its life, which pays from some dozen members on.
local function spread()
  local members = redis.pcall('ZCARD', KEYS[5])
  if type(members) ~= 'number' or members < 64 or members > 600 then return end
  local long = string.rep(' ', 300) -- no job's id is as long
  redis.pcall('HSET', KEYS[6], long, long)
  redis.pcall('HDEL', KEYS[6], long)
  redis.pcall('ZADD', KEYS[5], now, long)
  redis.pcall('ZREM', KEYS[5], long)
end

local after = JOBS + jobs * STRIDE
look(ARGV[7], ARGV[8], 2 * jobs)
for n = 1, jobs do
  local i = JOBS + (n - 1) * STRIDE
  reply[n + 1] = 0
  if is_ours(i) then
    accepted[#accepted + 1] = i
    reply[n + 1] = 1
  end
end
if #accepted == 0 then return reply end
spread()
local fault = write()
if fault then
  for n = 2, #reply do reply[n] = reply[n] == 1 and fault or 0 end
  return reply
end
for n = 1, #accepted do settle_job(accepted[n]) end
if not before or earliest < before then
  redis.pcall('PUBLISH', ARGV[4], string.format('%.0f', earliest))
end
leave(ARGV[5] == '1')
reply[1] = #accepted
for i = after, #ARGV, TOLD do
  local first, count = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if #accepted == jobs then
    tell_jobs(count, unpack(ARGV, i + 2, i + TOLD - 1))
  else
    tell_some(i, first, count)
  end
end
if #accepted == jobs and dropped == 0 then return jobs end
return with_dropped(reply)
