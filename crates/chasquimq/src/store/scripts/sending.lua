-- sending: whether a call comes for the first time; it stands before those that may be sent twice.
-- Each call has two bits of a bitmap. The first: it was carried out, or it never shall be. The
-- second: it never shall be.

-- Takes the first bit; answers nil, or what became of the call before: 'stored' | 'withdrawn'.
local function seen(key, at, remember_ms)
  local was = redis.call('SETBIT', key, at, 1)
  redis.call('PEXPIRE', key, remember_ms)
  if was == 0 then return end
  return redis.call('GETBIT', key, at + 1) == 1 and 'withdrawn' or 'stored'
end

