-- choosing: what dead and purge share; it stands before each of them.
-- KEYS  1 dlq
-- ARGV  1 where to begin, as XRANGE takes it, 2 the last job to look at ("": the newest there is),
--       3 jobs to choose, and at the end the conditions, each a field and a value: values of one
--       field are alternatives
local MOST, ENOUGH = 100, 1048576 -- jobs, and bytes, to look at: other commands wait meanwhile

local function newest()
  if redis.call('EXISTS', KEYS[1]) == 0 then return '0' end
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local function value(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return ''
end

local function size(fields)
  local sum = 0
  for i = 2, #fields, 2 do sum = sum + #fields[i] end
  return sum
end

local function conditions(first)
  local wanted = {}
  for i = first, #ARGV, 2 do
    wanted[ARGV[i]] = wanted[ARGV[i]] or {}
    wanted[ARGV[i]][ARGV[i + 1]] = true
  end
  return wanted
end

local function fits(fields, wanted)
  for name, values in pairs(wanted) do
    if not values[value(fields, name)] then return false end
  end
  return true
end

-- Calls take with each that fits, oldest first. Returns 1 when there may be more, else 0, then where
-- to go on, and the last job to look at.
local function choose(wanted, take)
  local from, to, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
  if to == '' then to = newest() end
  local looked, bytes, chosen = 0, 0, 0
  while looked < MOST and bytes < ENOUGH and chosen < most do
    -- One at a time: each may hold a large payload.
    local entry = redis.call('XRANGE', KEYS[1], from, to, 'COUNT', '1')[1]
    if not entry then return 0, from, to end
    from, looked, bytes = '(' .. entry[1], looked + 1, bytes + size(entry[2])
    if fits(entry[2], wanted) then
      chosen = chosen + 1
      take(entry)
    end
  end
  return 1, from, to
end
