-- What can be called about tasks: adding, moving, ending, replaying, reading.

-- Waiting tasks --------------------------------------------------------------------------------------

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
  tell('task_removed', 'removed from the backlog: ' .. task.excerpt, {task_id = id, old_state = task.state})
  tasks.delete(task)
  return true
end)

-- Ends -----------------------------------------------------------------------------------------------

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

-- Again ----------------------------------------------------------------------------------------------

function tasks.replay(task, by)
  local changes = {not_before = false, replayed_by = by}
  if TASK_TERMINAL[task.state] then
    changes.attempts, changes.completed_at = 0, false
    call('HDEL', keys.task(task.id), 'result')
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
  tell('task_removed', 'forgotten: ' .. (task.excerpt or ''), {task_id = id, old_state = task.state})
  tasks.delete(task)
  return true
end)

-- Reading --------------------------------------------------------------------------------------------

publish('town_task', function(id)
  tasks.require(id)
  return {tasks.record(id), call('LRANGE', keys.task_history(id), 0, -1)}
end, {'no-writes'})

publish('town_newest_tasks', function(limit)
  return tasks.records(call('ZREVRANGE', keys.all_tasks(), 0, tonumber(limit) - 1))
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

publish('town_find', function(state, reference, role, tag, newest, after, limit)
  local indexes = {}
  if given(state) then indexes[#indexes + 1] = keys.tasks_in(state) end
  if given(reference) then indexes[#indexes + 1] = keys.tasks_of(agents.resolve(reference)) end
  if given(role) then indexes[#indexes + 1] = keys.tasks_for(role) end
  if given(tag) then indexes[#indexes + 1] = keys.tasks_tagged(tag) end
  local along, wanted, found = narrowest(indexes), tonumber(limit), {}
  local begins, ends, command = '-inf', '+inf', 'ZRANGEBYSCORE'
  if given(newest) then begins, ends, command = '+inf', '-inf', 'ZREVRANGEBYSCORE' end
  local last, looked, step = given(after) or begins, 0, 200
  while true do
    local part = call(command, along, '(' .. last, ends, 'WITHSCORES', 'LIMIT', 0, step)
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
