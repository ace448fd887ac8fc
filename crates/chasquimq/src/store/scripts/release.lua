-- release: running -> ready. Appends jobs as a new entry, then settles them in their old one.
-- ARGV  from 4 per entry: id, jobs in the entry, jobs released, and per job: index, id, name, record
-- Returns {entries stored, per entry 1 stored | 0 not this consumer's, or all of the jobs settled
--          before | an error text; nothing changed, and at the end events dropped, if any}.
-- Jobs that were settled before stay so: they were sent before, in a call whose reply was lost.
local reply = {0}

local function release(i, jobs)
  local id, first, last = ARGV[i], i + 3, i + 2 + jobs * 4
  local records, released = {}, {}
  if not owned(id) then return 0 end
  local map = bitmap(id, tonumber(ARGV[i + 1]))
  for job = first, last, 4 do
    local index = tonumber(ARGV[job])
    if not is_settled(map, index) then
      map = mark(map, index)
      released[#released + 1], records[#records + 1] = job, ARGV[job + 3]
    end
  end
  if #released == 0 then return 0 end
  local fault = failure(redis.pcall('XADD', stream, '*', 'j', table.concat(records)))
  if fault then return fault end
  settle(id, map)
  for _, job in ipairs(released) do tell('released', 'id', ARGV[job + 1], 'n', ARGV[job + 2]) end
  reply[1] = reply[1] + 1
  return 1
end

local i = 4
while i <= #ARGV do
  local jobs = tonumber(ARGV[i + 2])
  reply[#reply + 1] = release(i, jobs)
  i = i + 3 + jobs * 4
end
leave()
return with_dropped(reply)
