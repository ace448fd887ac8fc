-- dead: looks at dead jobs; changes nothing.
-- ARGV  4 conditions
-- Returns {1 when there may be more, where to go on, the last job to look at,
--          per job chosen {dlq id, fields}}.
local reply = {0, '', ''}
reply[1], reply[2], reply[3] = choose(conditions(4), function(entry) reply[#reply + 1] = entry end)
return reply
