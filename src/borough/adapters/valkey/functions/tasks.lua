-- Tasks: records, legal moves, and how tasks get into queues and out of them. What can be called is in task_calls.lua.
--
-- `owner` is the agent whose inbox a task belongs to (none: the backlog); `assigned_to` is who has it now or had it
-- last. `ended_epoch` and `ended_how` tell how the last attempt ended, so that a repeated call knows itself again.

local TASK_CORE = {
  'id', 'number', 'kind', 'state', 'sender', 'role', 'urgent', 'tags', 'owner', 'assigned_to', 'attempts', 'max_attempts',
  'epoch', 'queue', 'entry', 'returned', 'ended_epoch', 'ended_how', 'claimed_by', 'replayed_by', 'excerpt',
  'started_at', 'completed_at', 'not_before', 'lease_expires_at',
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

-- A task and whom it went to, as `Assignment`.
function tasks.assignment(id, agent_id)
  return {tasks.record(id), agent_id, call('HGET', keys.agent(agent_id), 'name') or agent_id}
end

-- Writing -------------------------------------------------------------------------------------------------------

function tasks.write(task, changes)
  if changes.assigned_to ~= nil and changes.assigned_to ~= (task.assigned_to or false) then
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
  tell(kind, words .. ': ' .. task.excerpt, subjects)
end

local function queue_of(task, owner)
  local urgent = task.urgent == '1'
  return owner and queues.inbox(owner, urgent) or queues.backlog(task.role, urgent)
end

-- Store a new task at the end of `owner`'s inbox, or of the backlog.
function tasks.add(new, owner)
  local number = next_number()
  local task = {
    id = new.id, number = number, entry = number, kind = new.kind, state = owner and 'assigned' or 'pending',
    sender = new.sender, role = given(new.role), urgent = new.urgent, tags = new.tags, attempts = 0, epoch = 0,
    max_attempts = new.max_attempts, excerpt = cut(new.description, EXCERPT_BYTES), owner = owner, assigned_to = owner,
  }
  task.queue = queue_of(task, owner)
  local record = {
    description = new.description, parent_id = given(new.parent_id), timeout_s = given(new.timeout_s),
    created_at = NOW, updated_at = NOW, state_since = NOW,
  }
  for field, value in pairs(task) do record[field] = value end
  write(keys.task(task.id), {}, record)
  call('ZADD', keys.all_tasks(), number, task.id)
  call('ZADD', keys.tasks_in(task.state), number, task.id)
  if owner then call('ZADD', keys.tasks_of(owner), number, task.id) end
  if task.role then call('ZADD', keys.tasks_for(task.role), number, task.id) end
  if task.tags ~= '[]' then
    for _, tag in ipairs(cjson.decode(task.tags)) do call('ZADD', keys.tasks_tagged(tag), number, task.id) end
  end
  queues.push(task)
  if owner then
    tasks.tell('task_assigned', task, 'assigned to ' .. agents.name(owner), {agent_id = owner})
  else
    tasks.tell('task_queued', task, 'added to the backlog', {})
  end
end

-- Bring a task that is in no queue (any more) to the end of `owner`'s inbox, or of the backlog.
function tasks.place(task, owner, changes)
  changes.owner, changes.assigned_to = owner or false, owner or false
  changes.queue, changes.entry = queue_of(task, owner), next_number()
  changes.returned, changes.started_at = false, false
  tasks.move(task, owner and 'assigned' or 'pending', changes)
  queues.push(task)
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
  local old = tasks.move(task, state, changes)
  if state ~= 'failed' then call('ZADD', keys.finished(), NOW, task.id) end
  if state == 'completed' then call('HINCRBY', keys.counters(), 'completed', 1) end
  tasks.tell('task_' .. state, task, state, {
    agent_id = task.assigned_to, old_state = old, by = by, reason = state ~= 'completed' and text or nil,
  })
  if task.assigned_to then agents.round_ended(task.assigned_to, task.id, how, state == 'completed') end
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
