-- release: running -> ready. Appends jobs as a new entry, then settles them in their old one.
-- ARGV  from 4 per entry: id, jobs in the entry, value of the new entry, jobs released,
--       and per job: index, id, name
-- Returns {entries stored, per entry 1 stored | 0 not this consumer's, or one of the jobs settled
--          before | an error text; nothing changed, and at the end events dropped, if any}.
local reply = {0}

local function release(i, jobs)
  local id, first, last = ARGV[i], i + 4, i + 3 + jobs * 3
  if not owned(id) then return 0 end
  local map = bitmap(id, tonumber(ARGV[i + 1]))
  for job = first, last, 3 do
    if is_settled(map, tonumber(ARGV[job])) then return 0 end
    map = mark(map, tonumber(ARGV[job]))
  end
  local fault = failure(redis.pcall('XADD', stream, '*', 'j', ARGV[i + 2]))
  if fault then return fault end
  settle(id, map)
  for job = first, last, 3 do tell('released', 'id', ARGV[job + 1], 'n', ARGV[job + 2]) end
  reply[1] = reply[1] + 1
  return 1
end

local i = 4
while i <= #ARGV do
  local jobs = tonumber(ARGV[i + 3])
  reply[#reply + 1] = release(i, jobs)
  i = i + 4 + jobs * 3
end
leave()
return with_dropped(reply)
