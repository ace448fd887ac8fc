-- choosing: what dead and purge share; it stands before each of them.
-- KEYS  1 dlq
-- ARGV  1 where to begin, as XRANGE takes it, 2 jobs to look at, 3 jobs to choose, and at the end the
--       conditions, each a field and a value: values of one field are alternatives
local function value(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return ''
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

-- Calls take with each that fits, oldest first. Returns how many it looked at, and where to go on.
local function choose(wanted, take)
  local from, looked, chosen = ARGV[1], 0, 0
  while looked < tonumber(ARGV[2]) and chosen < tonumber(ARGV[3]) do
    -- One at a time: each may hold a large payload.
    local entry = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', '1')[1]
    if not entry then break end
    from, looked = '(' .. entry[1], looked + 1
    if fits(entry[2], wanted) then
      chosen = chosen + 1
      take(entry)
    end
  end
  return looked, from
end
