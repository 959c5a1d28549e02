-- Tasks: records, legal moves, and the acts on tasks that wait or are over.
--
-- `owner` is the agent whose inbox a task belongs to (none: the backlog); `assigned_to` is who has it now or had it
-- last. `ended_epoch` and `ended_how` tell how the last attempt ended, so that a repeated call knows itself again.

local TASK_CORE = {
  'id', 'number', 'kind', 'state', 'sender', 'role', 'urgent', 'tags', 'owner', 'assigned_to', 'attempts', 'max_attempts',
  'epoch', 'queue', 'entry', 'returned', 'ended_epoch', 'ended_how', 'claimed_by', 'replayed_by',
}

-- Reading -------------------------------------------------------------------------------------------------------

function tasks.load(id)
  return load(keys.task(id), TASK_CORE)
end

function tasks.require(id)
  local task = tasks.load(id)
  if not task then
    refuse('not_found', 'task_not_found', 'there is no task ' .. id, '', 'list the tasks to find its id')
  end
  return task
end

function tasks.record(id)
  return call('HMGET', keys.task(id), unpack(TASK_FIELDS))
end

function tasks.records(ids)
  local records = {}
  for index, id in ipairs(ids) do records[index] = tasks.record(id) end
  return records
end

function tasks.excerpt(id)
  return cut(call('HGET', keys.task(id), 'description') or '', EXCERPT_BYTES)
end

-- A task and whom it went to, as `Assignment`.
function tasks.assignment(id, agent_id)
  return {tasks.record(id), agent_id, call('HGET', keys.agent(agent_id), 'name') or agent_id}
end

-- Writing -------------------------------------------------------------------------------------------------------

function tasks.write(task, changes)
  if changes.assigned_to ~= nil then
    if task.assigned_to then call('ZREM', keys.tasks_of(task.assigned_to), task.id) end
    if changes.assigned_to then call('ZADD', keys.tasks_of(changes.assigned_to), task.number, task.id) end
  end
  changes.updated_at = NOW
  write(keys.task(task.id), task, changes)
end

function tasks.move(task, state, changes)
  local old = task.state
  if not TASK_MOVES[old][state] then error('a task may not go from ' .. old .. ' to ' .. state) end
  call('ZREM', keys.tasks_in(old), task.id)
  call('ZADD', keys.tasks_in(state), task.number, task.id)
  changes.state = state
  changes.state_since = NOW
  tasks.write(task, changes)
  return old
end

function tasks.tell(kind, task, words, subjects)
  subjects.task_id = task.id
  subjects.attempt = tonumber(task.attempts)
  subjects.epoch = tonumber(task.epoch)
  subjects.new_state = subjects.new_state or task.state
  tell(kind, words .. ': ' .. tasks.excerpt(task.id), subjects)
end

-- Store a new record; it belongs nowhere until it is placed.
function tasks.create(new)
  local task = {
    id = new.id, number = next_number(), kind = new.kind, state = new.owner and 'assigned' or 'pending',
    sender = new.sender, role = given(new.role), urgent = new.urgent, tags = new.tags, attempts = 0, epoch = 0,
    max_attempts = new.max_attempts,
  }
  local record = {
    description = new.description, parent_id = given(new.parent_id), timeout_s = given(new.timeout_s),
    created_at = NOW, updated_at = NOW, state_since = NOW,
  }
  for field, value in pairs(task) do record[field] = value end
  write(keys.task(task.id), {}, record)
  call('ZADD', keys.all_tasks(), task.number, task.id)
  call('ZADD', keys.tasks_in(task.state), task.number, task.id)
  if task.role then call('ZADD', keys.tasks_for(task.role), task.number, task.id) end
  for _, tag in ipairs(cjson.decode(task.tags)) do call('ZADD', keys.tasks_tagged(tag), task.number, task.id) end
  return task
end

-- Append the task to the end of `owner`'s inbox, or of the backlog.
local function append(task, owner)
  local urgent = task.urgent == '1'
  tasks.write(task, {
    owner = owner or false, assigned_to = owner or false, entry = next_number(), returned = false,
    queue = owner and queues.inbox(owner, urgent) or queues.backlog(task.role, urgent),
  })
  queues.push(task, tasks.excerpt(task.id))
end

-- Bring a task that is in no queue (any more) to the end of `owner`'s inbox, or of the backlog.
function tasks.place(task, owner, changes)
  changes.started_at = false
  tasks.move(task, owner and 'assigned' or 'pending', changes)
  append(task, owner)
end

function tasks.add(new, owner)
  new.owner = owner
  local task = tasks.create(new)
  append(task, owner)
  if owner then
    tasks.tell('task_assigned', task, 'assigned to ' .. agents.name(owner), {agent_id = owner})
  else
    tasks.tell('task_queued', task, 'added to the backlog', {})
  end
  return task
end

-- Take a task out of wherever it waits or is held: queue, lease, retry list.
function tasks.withdraw(task)
  if task.state == 'delayed' then
    call('ZREM', keys.retry(), task.id)
  else
    queues.drop(task)
    if task.state == 'running' then call('ZREM', keys.leases(), task.id) end
  end
end

function tasks.delete(task)
  for _, tag in ipairs(cjson.decode(task.tags)) do call('ZREM', keys.tasks_tagged(tag), task.id) end
  if task.role then call('ZREM', keys.tasks_for(task.role), task.id) end
  if task.assigned_to then call('ZREM', keys.tasks_of(task.assigned_to), task.id) end
  call('ZREM', keys.tasks_in(task.state), task.id)
  call('ZREM', keys.all_tasks(), task.id)
  call('ZREM', keys.finished(), task.id)
  call('UNLINK', keys.task(task.id), keys.task_history(task.id))
end

-- Ends of attempts ----------------------------------------------------------------------------------------------

local function ending(epoch, by)
  return epoch or 'outside:' .. (by or '')
end

-- Whether this very act has been done: the answer was lost and the caller asks again.
function tasks.already(task, how, epoch, by, field, text)
  if task.ended_how ~= how or task.ended_epoch ~= ending(epoch, by) then return false end
  if epoch then return true end
  return (TASK_TERMINAL[task.state] or task.state == 'delayed') and call('HGET', keys.task(task.id), field) == text
end

-- Refuse to end what is over, or what another epoch holds.
function tasks.require_end(task, state, epoch)
  if not TASK_MOVES[task.state][state] then
    refuse('conflict', 'task_finished', 'task ' .. task.id .. ' is ' .. task.state .. ' already', '',
      'look at its result; replay it if it is to be done again')
  end
  if epoch and (task.state ~= 'running' or task.epoch ~= epoch) then
    refuse('conflict', 'stale_epoch', 'epoch ' .. epoch .. ' does not hold task ' .. task.id .. ' any more',
      'the task is ' .. task.state .. ' in epoch ' .. task.epoch, 'drop this attempt; its lease has ended')
  end
end

-- What every end of a lease or a wait has in common. An act from outside raises the epoch: the holder is fenced.
function tasks.ended(task, how, epoch, by, changes)
  changes.ended_how = how
  changes.ended_epoch = ending(epoch, by)
  changes.lease_expires_at = false
  changes.not_before = false
  changes.claimed_by = false
  changes.replayed_by = false
  if not epoch then changes.epoch = tonumber(task.epoch) + 1 end
  return changes
end

function tasks.finish(task, state, how, epoch, text, by)
  tasks.withdraw(task)
  local changes = tasks.ended(task, how, epoch, by, {result = text, completed_at = NOW})
  if state == 'failed' then changes.last_error = text end
  local held = task.state == 'running'
  local old = tasks.move(task, state, changes)
  if state ~= 'failed' then call('ZADD', keys.finished(), NOW, task.id) end
  if state == 'completed' then call('HINCRBY', keys.counters(), 'completed', 1) end
  tasks.tell('task_' .. state, task, state, {
    agent_id = task.assigned_to, old_state = old, by = by, reason = state ~= 'completed' and text or nil,
  })
  if task.assigned_to then agents.round_ended(task.assigned_to, task.id, held and how, state == 'completed') end
end

-- End an attempt badly; with attempts left the task is tried again after `pause` ms.
function tasks.fail_attempt(task, how, epoch, reason, pause, by)
  if tonumber(task.attempts) >= tonumber(task.max_attempts) then
    tasks.finish(task, 'failed', how, epoch, reason, by)
    return 'failed'
  end
  tasks.withdraw(task)
  local holder = task.assigned_to
  local due = NOW + pause
  local changes = tasks.ended(task, how, epoch, by, {last_error = reason, assigned_to = task.owner or false})
  changes.not_before = due
  local old = tasks.move(task, 'delayed', changes)
  call('ZADD', keys.retry(), due, task.id)
  tasks.tell('task_retry_scheduled', task, 'attempt ' .. task.attempts .. ' failed, to be tried again at ' .. rfc3339(due),
    {agent_id = holder, old_state = old, by = by, reason = reason})
  agents.round_ended(holder, task.id, how, false)
  return 'delayed'
end

-- The pause after failed attempt number `attempt`: exponential, bounded.
function tasks.pause(attempt, base, cap)
  return math.min(tonumber(cap), tonumber(base) * 2 ^ (attempt - 1))
end

-- Give a leased task back to the place it had; the attempt is not counted.
function tasks.give_back(task, how, epoch, reason)
  call('ZREM', keys.leases(), task.id)
  queues.give_back(task)
  local holder = task.assigned_to
  local changes = tasks.ended(task, how, epoch, nil, {
    attempts = tonumber(task.attempts) - 1, assigned_to = task.owner or false, returned = '1', started_at = false,
  })
  local old = tasks.move(task, task.owner and 'assigned' or 'pending', changes)
  tasks.tell('task_released', task, 'given back', {agent_id = holder, old_state = old, reason = reason})
  agents.round_ended(holder, task.id, nil, false)
end

-- Where a task whose wait is over belongs: its owner's inbox while that takes work, else the backlog.
function tasks.home(task)
  local owner = task.owner and agents.load(task.owner)
  return owner and agents.takes_work(owner) and owner.id or nil
end

function tasks.promote(limit)
  local due = call('ZRANGEBYSCORE', keys.retry(), '-inf', NOW, 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    local task = tasks.load(id)
    local owner = tasks.home(task)
    tasks.withdraw(task)
    tasks.place(task, owner, {not_before = false})
    tasks.tell('task_requeued', task, 'its pause is over', {agent_id = owner, old_state = 'delayed'})
  end
  return #due
end

-- Move a waiting task into another queue; the one primitive behind claim, reclaim and prune.
function tasks.hand_over(task, owner, kind, words, subjects, changes)
  tasks.withdraw(task)
  subjects.old_state = task.state
  changes.claimed_by = changes.claimed_by or false
  tasks.place(task, owner, changes)
  subjects.agent_id = owner or subjects.agent_id
  tasks.tell(kind, task, words, subjects)
end

-- Functions: waiting tasks --------------------------------------------------------------------------------------

function tasks.arguments(id, description, kind, sender, role, urgent, tags, parent_id, max_attempts, timeout_s)
  return {
    id = id, description = description, kind = kind, sender = sender, role = role, urgent = urgent, tags = tags,
    parent_id = parent_id, max_attempts = max_attempts, timeout_s = timeout_s,
  }
end

publish('town_add_to_backlog', function(...)
  local new = tasks.arguments(...)
  if not tasks.load(new.id) then tasks.add(new, nil) end
  return tasks.record(new.id)
end)

publish('town_assign', function(reference, ...)
  local new = tasks.arguments(...)
  local existing = tasks.load(new.id)
  if existing then return tasks.assignment(new.id, existing.assigned_to or agents.require(reference).id) end
  local agent = agents.require_working(reference)
  tasks.add(new, agent.id)
  return tasks.assignment(new.id, agent.id)
end)

publish('town_claim', function(id, reference)
  local task = tasks.require(id)
  local agent = agents.require_working(reference)
  if task.claimed_by == agent.id then return tasks.assignment(id, agent.id) end
  if task.state ~= 'pending' then
    refuse('conflict', 'not_in_backlog', 'task ' .. id .. ' is not in the backlog', 'it is ' .. task.state,
      'list the backlog and claim a task that is there')
  end
  tasks.hand_over(task, agent.id, 'task_assigned', 'claimed for ' .. agent.name, {}, {claimed_by = agent.id})
  return tasks.assignment(id, agent.id)
end)

publish('town_claim_all', function(reference)
  local agent = agents.require_working(reference)
  local moved = {}
  for _, urgent in ipairs({true, false}) do
    for _, found in ipairs(queues.merged(queues.all_backlogs(urgent), '-inf', 2 ^ 31)) do
      local task = tasks.load(found[2])
      tasks.hand_over(task, agent.id, 'task_assigned', 'claimed for ' .. agent.name, {}, {claimed_by = agent.id})
      moved[#moved + 1] = task.id
    end
  end
  return {agent.id, moved}
end)

publish('town_remove_from_backlog', function(id)
  local task = tasks.require(id)
  if task.state ~= 'pending' then
    refuse('not_found', 'not_in_backlog', 'task ' .. id .. ' is not in the backlog', 'it is ' .. task.state,
      'cancel it instead')
  end
  tasks.withdraw(task)
  tell('task_removed', 'removed from the backlog: ' .. tasks.excerpt(id), {task_id = id, old_state = task.state})
  tasks.delete(task)
  return true
end)

-- Functions: ends -----------------------------------------------------------------------------------------------

publish('town_complete', function(id, epoch, result, by)
  epoch = given(epoch)
  local task = tasks.require(id)
  if not tasks.already(task, 'completed', epoch, by, 'result', result) then
    tasks.require_end(task, 'completed', epoch)
    tasks.finish(task, 'completed', 'completed', epoch, result, by)
  end
  return tasks.record(id)
end)

publish('town_fail', function(id, epoch, reason, base, cap, final, by)
  epoch = given(epoch)
  local task = tasks.require(id)
  if tasks.already(task, 'failed', epoch, by, 'last_error', reason) then return tasks.record(id) end
  tasks.require_end(task, 'failed', epoch)
  if final == '1' or task.state ~= 'running' then
    tasks.finish(task, 'failed', 'failed', epoch, reason, by)
  else
    tasks.fail_attempt(task, 'failed', epoch, reason, tasks.pause(tonumber(task.attempts), base, cap), by)
  end
  return tasks.record(id)
end)

publish('town_release', function(id, epoch, reason)
  local task = tasks.require(id)
  if not tasks.already(task, 'released', epoch) then
    tasks.require_end(task, 'completed', epoch)
    tasks.give_back(task, 'released', epoch, reason)
  end
  return tasks.record(id)
end)

publish('town_cancel', function(id, reason, by)
  local task = tasks.require(id)
  if task.state ~= 'cancelled' then
    tasks.require_end(task, 'cancelled', nil)
    tasks.finish(task, 'cancelled', 'cancelled', nil, reason, by)
  end
  return tasks.record(id)
end)

-- Functions: again ----------------------------------------------------------------------------------------------

function tasks.replay(task, by)
  local changes = {not_before = false, replayed_by = by}
  if TASK_TERMINAL[task.state] then
    changes.attempts, changes.result, changes.completed_at = 0, false, false
    call('ZREM', keys.finished(), task.id)
  else
    tasks.withdraw(task)
  end
  local old, owner = task.state, tasks.home(task)
  tasks.place(task, owner, changes)
  tasks.tell('task_replayed', task, 'put back to work', {agent_id = owner, old_state = old, by = by})
end

publish('town_replay', function(id, by)
  local task = tasks.require(id)
  local waits = task.state == 'pending' or task.state == 'assigned'
  if waits and task.replayed_by == by then return tasks.record(id) end
  if not TASK_REPLAYABLE[task.state] then
    refuse('conflict', 'not_replayable', 'task ' .. id .. ' cannot be replayed', 'it is ' .. task.state,
      'only failed, cancelled and delayed tasks can be replayed')
  end
  tasks.replay(task, by)
  return tasks.record(id)
end)

publish('town_replay_dead_letters', function(limit, by)
  local ids = call('ZRANGE', keys.tasks_in('failed'), 0, tonumber(limit) - 1)
  for _, id in ipairs(ids) do tasks.replay(tasks.load(id), by) end
  return ids
end)

publish('town_forget_finished', function(before, limit)
  local ids = call('ZRANGEBYSCORE', keys.finished(), '-inf', '(' .. before, 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do tasks.delete(tasks.load(id)) end
  if #ids > 0 then tell('tasks_forgotten', #ids .. ' finished tasks were forgotten', {}) end
  return ids
end)

publish('town_forget', function(id)
  local task = tasks.require(id)
  if not TASK_TERMINAL[task.state] then
    refuse('conflict', 'task_not_finished', 'task ' .. id .. ' is not over', 'it is ' .. task.state, 'cancel it first')
  end
  tell('task_removed', 'forgotten: ' .. tasks.excerpt(id), {task_id = id, old_state = task.state})
  tasks.delete(task)
  return true
end)

-- Functions: reading --------------------------------------------------------------------------------------------

publish('town_task', function(id)
  tasks.require(id)
  return {tasks.record(id), call('LRANGE', keys.task_history(id), 0, -1)}
end, {'no-writes'})

-- The shortest index that holds all tasks wanted.
local function narrowest(indexes)
  local best, size = keys.all_tasks(), nil
  for _, index in ipairs(indexes) do
    local length = call('ZCARD', index)
    if not size or length < size then best, size = index, length end
  end
  return best
end

publish('town_find', function(state, reference, role, tag, after, limit)
  local indexes = {}
  if given(state) then indexes[#indexes + 1] = keys.tasks_in(state) end
  if given(reference) then indexes[#indexes + 1] = keys.tasks_of(agents.resolve(reference)) end
  if given(role) then indexes[#indexes + 1] = keys.tasks_for(role) end
  if given(tag) then indexes[#indexes + 1] = keys.tasks_tagged(tag) end
  local along, wanted, found = narrowest(indexes), tonumber(limit), {}
  local last, looked, step = given(after) or '-inf', 0, 200
  while true do
    local part = call('ZRANGEBYSCORE', along, '(' .. last, '+inf', 'WITHSCORES', 'LIMIT', 0, step)
    for position = 1, #part, 2 do
      local fits = true
      for _, index in ipairs(indexes) do
        fits = fits and (index == along or call('ZSCORE', index, part[position]) ~= false)
      end
      if fits and #found == wanted then return {tasks.records(found), last} end
      if fits then found[#found + 1] = part[position] end
      last, looked = part[position + 1], looked + 1
    end
    if #part < 2 * step then return {tasks.records(found), false} end
    -- One call never looks at more than this many records: the reader comes back with the position.
    if looked >= FIND_LOOKS then return {tasks.records(found), last} end
  end
end, {'no-writes'})

-- Positions are 'u<entry>' among the urgent and 'n<entry>' among the rest.
publish('town_backlog', function(after, limit)
  local ids, wanted, last = {}, tonumber(limit), nil
  local in_normal = after:sub(1, 1) == 'n'
  for _, urgent in ipairs(in_normal and {false} or {true, false}) do
    local mark = urgent and 'u' or 'n'
    local from = after:sub(1, 1) == mark and after:sub(2) or '-inf'
    for _, found in ipairs(queues.merged(queues.all_backlogs(urgent), from, wanted - #ids + 1)) do
      if #ids == wanted then return {tasks.records(ids), last} end
      ids[#ids + 1] = found[2]
      last = mark .. found[1]
    end
  end
  return {tasks.records(ids), false}
end, {'no-writes'})

publish('town_pending', function(after, limit)
  local from = given(after) and '(' .. after or '-inf'
  local found = call('ZRANGEBYSCORE', keys.tasks_in('assigned'), from, '+inf', 'LIMIT', 0, tonumber(limit) + 1)
  local more = #found > tonumber(limit)
  if more then found[#found] = nil end
  local assignments = {}
  for index, id in ipairs(found) do
    assignments[index] = tasks.assignment(id, call('HGET', keys.task(id), 'assigned_to'))
  end
  return {assignments, more and call('HGET', keys.task(found[#found]), 'number')}
end, {'no-writes'})

publish('town_context', function(id)
  local task = tasks.require(id)
  local ahead = task.queue and call('ZRANK', keys.waiting(task.queue), id) or 0
  local assignee = task.assigned_to and agents.load(task.assigned_to)
  local matching, idle = agents.that_could_take(task.role)
  return {
    tasks.record(id), NOW, call('HGET', keys.task(id), 'state_since'), assignee and agents.record(assignee.id) or false,
    ahead or 0, matching, idle,
  }
end, {'no-writes'})
