-- record: the name in a job's record, for those that tell of it; it stands before cancel and promote.
-- The layout is described in store/wire.rs: an array of version, attempt, lost, id, name, ….
local UINTS = {[0xcc] = 2, [0xcd] = 3, [0xce] = 5, [0xcf] = 9}

-- Where a text begins and how long it is.
local function text(record, at)
  local kind = string.byte(record, at)
  if kind >= 0xa0 and kind <= 0xbf then return at + 1, kind - 0xa0 end
  if kind == 0xd9 or kind == 0xc4 then return at + 2, string.byte(record, at + 1) end
  return at + 3, string.byte(record, at + 1) * 256 + string.byte(record, at + 2)
end

local function name(record)
  local at = 2
  for _ = 1, 3 do
    local kind = string.byte(record, at)
    at = at + (kind < 0x80 and 1 or UINTS[kind])
  end
  local id, id_length = text(record, at)
  local start, length = text(record, id + id_length)
  return string.sub(record, start, start + length - 1)
end

-- The job's name; empty where the bytes are no record.
local function name_of(record)
  local readable, found = pcall(name, record)
  return readable and found or ''
end

