-- Queues: where tasks wait for a worker.
--
-- A queue is a stream with the group `workers` (waiting = XLEN - pending, in hand = pending: every acknowledged entry
-- is deleted too) and a sorted set that orders what waits by entry number. Entry numbers are the town's own count, so
-- they order entries across queues. The sorted set is what makes "next", "how many before me" and "give it back to
-- its old place" cheap; it always names exactly the entries that the group does not hold.

local GROUP, CONSUMER = 'workers', 'town'

function queues.backlog(role, urgent)
  if role then return (urgent and 'docket:urgent:role:' or 'docket:role:') .. role end
  return urgent and 'docket:urgent' or 'docket:tasks'
end

function queues.inbox(agent_id, urgent)
  return (urgent and 'urgent:' or 'inbox:') .. agent_id
end

local function is_urgent(task)
  return task.urgent == '1'
end

-- Append `task` to the queue named in `task.queue` under `task.entry`. The stream and its group are made on first use.
function queues.push(task)
  local stream = keys.stream(task.queue)
  local add = {'XADD', stream, 'NOMKSTREAM', task.entry .. '-0', 'task_id', task.id, 'type', task.kind,
    'message', task.excerpt, 'priority', is_urgent(task) and 'urgent' or 'normal', 'from', task.sender,
    'to', task.owner or '', 'timestamp', rfc3339(NOW)}
  if not call(unpack(add)) then
    call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
    call(unpack(add))
  end
  call('ZADD', keys.waiting(task.queue), task.entry, task.id)
  if not task.owner and task.role then call('SADD', keys.roles(), task.role) end
end

-- Put the task's entry into the group's hands.
function queues.deliver(task)
  local stream = keys.stream(task.queue)
  local entry = task.entry .. '-0'
  if task.returned then
    -- It was delivered before and given back; XREADGROUP would pass it over, so it is claimed by its id.
    call('XCLAIM', stream, GROUP, CONSUMER, 0, entry, 'FORCE', 'JUSTID')
  else
    local read = call('XREADGROUP', 'GROUP', GROUP, CONSUMER, 'COUNT', 1, 'STREAMS', stream, '>')
    if not read or read[1][2][1][1] ~= entry then error('queue ' .. task.queue .. ' does not hold ' .. entry .. ' next') end
  end
  call('ZREM', keys.waiting(task.queue), task.id)
end

-- Give a delivered entry back to the place it had.
function queues.give_back(task)
  call('XACK', keys.stream(task.queue), GROUP, task.entry .. '-0')
  call('ZADD', keys.waiting(task.queue), task.entry, task.id)
end

-- Take the task's entry out, delivered or not.
function queues.drop(task)
  local stream = keys.stream(task.queue)
  call('XACK', stream, GROUP, task.entry .. '-0')
  call('XDEL', stream, task.entry .. '-0')
  if task.state ~= 'running' then call('ZREM', keys.waiting(task.queue), task.id) end
  if not task.owner and task.role then queues.forget_role(task.role) end
end

-- A role whose queues are empty is not looked at by generalists any more.
function queues.forget_role(role)
  local normal, urgent = keys.stream(queues.backlog(role, false)), keys.stream(queues.backlog(role, true))
  if call('XLEN', normal) + call('XLEN', urgent) == 0 then
    call('DEL', normal, urgent)
    call('SREM', keys.roles(), role)
  end
end

function queues.first(queue)
  local found = call('ZRANGE', keys.waiting(queue), 0, 0, 'WITHSCORES')
  if found[1] then return found[1], tonumber(found[2]) end
end

-- The task that has waited longest in any of `names`.
function queues.earliest(names)
  local best, best_entry
  for _, name in ipairs(names) do
    local id, entry = queues.first(name)
    if id and (not best or entry < best_entry) then best, best_entry = id, entry end
  end
  return best
end

-- All backlog queues of one priority.
function queues.all_backlogs(urgent)
  local names = {queues.backlog(nil, urgent)}
  for _, role in ipairs(call('SMEMBERS', keys.roles())) do names[#names + 1] = queues.backlog(role, urgent) end
  return names
end

-- The backlog queues of one priority that an agent of `role` may draw from.
function queues.backlogs_for(role, urgent)
  if GENERALIST_ROLES[role] then return queues.all_backlogs(urgent) end
  return {queues.backlog(nil, urgent), queues.backlog(role, urgent)}
end

-- Waiting and in hand, as the server counts them.
function queues.count(queue)
  local stream = keys.stream(queue)
  if call('EXISTS', stream) == 0 then return 0, 0 end
  local group = call('XINFO', 'GROUPS', stream)[1]
  for index = 1, #group, 2 do
    if group[index] == 'pending' then return call('XLEN', stream) - group[index + 1], group[index + 1] end
  end
end

function queues.waiting(queue)
  return call('ZCARD', keys.waiting(queue))
end

-- Up to `limit` {entry, id} of several queues together, in order, after the entry number `after`.
function queues.merged(names, after, limit)
  local found = {}
  for _, name in ipairs(names) do
    local part = call('ZRANGEBYSCORE', keys.waiting(name), '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
    for index = 1, #part, 2 do found[#found + 1] = {tonumber(part[index + 1]), part[index]} end
  end
  table.sort(found, function(left, right) return left[1] < right[1] end)
  while #found > limit do found[#found] = nil end
  return found
end
