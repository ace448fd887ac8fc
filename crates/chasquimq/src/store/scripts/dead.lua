-- dead: looks at dead jobs; changes nothing.
-- ARGV  4 conditions
-- Returns {jobs looked at, where to go on, per job chosen {dlq id, fields}}.
local reply = {0, ''}
reply[1], reply[2] = choose(conditions(4), function(entry) reply[#reply + 1] = entry end)
return reply
