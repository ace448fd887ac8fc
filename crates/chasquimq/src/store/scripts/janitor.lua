-- janitor: forgets consumers that hold nothing and have long been silent: workers that died. Each
-- name costs the server some 230 bytes.
-- KEYS  1 stream
-- ARGV  1 ms of silence, 2 consumers to forget at most
-- Returns the number of consumers forgotten.
-- Servers before 7.2 do not count a read that found nothing as a sign of life, so the name of a worker
-- that waits for jobs may go, too. It comes back with the worker's next job.
local silence, most, forgotten = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group[2])) do
    local consumer = {}
    for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
    if consumer.pending == 0 and consumer.idle >= silence and forgotten < most then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group[2], consumer.name)
      forgotten = forgotten + 1
    end
  end
end
return forgotten
