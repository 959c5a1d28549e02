-- Agents: the register, references to them, legal moves, and what their end means for their work.

local AGENT_CORE = {
  'id', 'number', 'name', 'nickname', 'role_id', 'state', 'current_task', 'incarnation', 'lease_expires_at',
  'last_heartbeat', 'rounds_completed', 'tasks_completed', 'added_as', 'reason', 'parent_agent_id', 'process_host',
  'process_pid', 'process_started_ticks', 'has_taken_mail',
}

-- Reading -------------------------------------------------------------------------------------------------------

function agents.load(id)
  return load(keys.agent(id), AGENT_CORE)
end

function agents.name(id)
  return call('HGET', keys.agent(id), 'name') or id
end

function agents.role(agent)
  return agent.role_id or DEFAULT_ROLE
end

function agents.label(agent)
  return (agent.nickname or agent.name) .. ' [' .. (agent.role_id or agent.name) .. ']'
end

-- The stored fields, then inbox_len, urgent_len and the description of the current task.
function agents.record(id)
  local values = call('HMGET', keys.agent(id), unpack(AGENT_FIELDS))
  local count = #AGENT_FIELDS
  values[count + 1] = queues.waiting(queues.inbox(id, false)) + call('ZCARD', keys.mail(id))
  values[count + 2] = queues.waiting(queues.inbox(id, true)) + call('ZCARD', keys.urgent_mail(id))
  local current = call('HGET', keys.agent(id), 'current_task')
  values[count + 3] = current and call('HGET', keys.task(current), 'description')
  return values
end

function agents.ids()
  return call('ZRANGE', keys.all_agents(), 0, -1)
end

function agents.takes_work(agent)
  return not AGENT_ENDED[agent.state] and agent.state ~= 'draining'
end

-- As the town's rule `is_live`, with its grace for agents that never reported.
function agents.is_live(agent)
  if not AGENT_ACTIVE[agent.state] then return false end
  if agent.lease_expires_at then return tonumber(agent.lease_expires_at) > NOW end
  return NOW - tonumber(agent.last_heartbeat) <= REPORT_GRACE_MS
end

-- How many live agents could take a task of `role` from the backlog, and how many of them are idle.
function agents.that_could_take(role)
  local matching, idle = 0, 0
  for _, id in ipairs(agents.ids()) do
    local agent = agents.load(id)
    local own = agents.role(agent)
    local fits = not role or own == role or GENERALIST_ROLES[own]
    if fits and agents.is_live(agent) and agent.state ~= 'draining' and agent.state ~= 'paused' then
      matching = matching + 1
      if agent.state == 'idle' then idle = idle + 1 end
    end
  end
  return matching, idle
end

-- References ----------------------------------------------------------------------------------------------------

local function as_id(text)
  local digits = text:gsub('^urn:uuid:', ''):gsub('[{}-]', '')
  if #digits ~= 32 or digits:find('%X') then return nil end
  return table.concat({digits:sub(1, 8), digits:sub(9, 12), digits:sub(13, 16), digits:sub(17, 20), digits:sub(21)}, '-')
end

local function candidates(wanted)
  local found = {}
  for _, id in ipairs(agents.ids()) do
    local agent = agents.load(id)
    local display = (agent.nickname or agent.name):lower()
    if display == wanted or agents.label(agent):lower() == wanted or id:sub(1, SHORT_LENGTH) == wanted then
      found[#found + 1] = agent
    end
  end
  return found
end

-- The id that a reference stands for (the supervisor's included), or nil.
function agents.seek(reference)
  local wanted = reference:match('^%s*(.-)%s*$'):lower()
  if SUPERVISOR_NAMES[wanted] then return SUPERVISOR_ID end
  local id = as_id(wanted)
  if id and (id == SUPERVISOR_ID or call('EXISTS', keys.agent(id)) == 1) then return id end
  local named = call('HGET', keys.agent_names(), wanted)
  if named then return named end
  local found = candidates(wanted)
  if #found > 1 then
    local labels = {}
    for index, agent in ipairs(found) do labels[index] = agents.label(agent) .. ' (' .. agent.name .. ')' end
    refuse('conflict', 'agent_ambiguous', cut(reference, 100) .. ' could be any of ' .. #found .. ' agents',
      table.concat(labels, ', '), 'use the name or the whole id')
  end
  return found[1] and found[1].id
end

local function refuse_unknown(reference)
  refuse('not_found', 'agent_not_found', 'there is no agent ' .. cut(reference, 100), '', 'list the agents to find its name')
end

function agents.resolve(reference)
  local id = agents.seek(reference)
  if not id then refuse_unknown(reference) end
  return id
end

-- A registered agent; the supervisor is none.
function agents.require(reference)
  local agent = agents.load(agents.resolve(reference))
  if not agent then refuse_unknown(reference) end
  return agent
end

-- An agent that new work may be given to.
function agents.require_working(reference)
  local id = agents.resolve(reference)
  if id == SUPERVISOR_ID then
    refuse('conflict', 'agent_is_supervisor', 'the supervisor does no tasks', 'it is a mailbox, not a worker',
      'send it a message, or choose an agent')
  end
  local agent = agents.load(id)
  if not agents.takes_work(agent) then
    refuse('conflict', 'agent_not_running', 'agent ' .. agent.name .. ' takes no work', 'it is ' .. agent.state,
      'restart it, choose another agent, or use the backlog')
  end
  return agent
end

-- Writing -------------------------------------------------------------------------------------------------------

local MOVE_EVENTS = {stopped = 'agent_stopped', error = 'agent_failed', paused = 'agent_interrupted'}

function agents.write(agent, changes)
  write(keys.agent(agent.id), agent, changes)
end

-- Add to `changes` what brings the agent into `state`.
function agents.enter(agent, state, reason, changes)
  if not AGENT_MOVES[agent.state][state] then error('an agent may not go from ' .. agent.state .. ' to ' .. state) end
  changes.state, changes.state_since, changes.reason = state, NOW, reason or false
end

function agents.move(agent, state, reason, changes, kind)
  local old = agent.state
  changes = changes or {}
  agents.enter(agent, state, reason, changes)
  agents.write(agent, changes)
  tell(kind or MOVE_EVENTS[state] or 'agent_state_changed', 'agent ' .. agent.name .. ' is ' .. state,
    {agent_id = agent.id, task_id = agent.current_task, old_state = old, new_state = state, reason = reason})
end

-- Keep the agent's own lease, which ends by itself when nobody renews it; write `changes` with it.
function agents.renew(agent, due, changes)
  changes = changes or {}
  changes.last_heartbeat, changes.lease_expires_at = NOW, due
  agents.write(agent, changes)
  call('ZADD', keys.agent_leases(), due, agent.id)
end

-- Its task is no longer in the agent's hand; `how` says how the attempt ended. That the agent is idle again is told by
-- the task's event, as the one that told of the lease told that it worked.
function agents.round_ended(id, task_id, how, completed)
  local agent = agents.load(id)
  if not agent then return end
  local changes = {}
  if completed then changes.tasks_completed = tonumber(agent.tasks_completed) + 1 end
  if agent.current_task == task_id then
    local finished = how == 'completed' or how == 'failed'
    if finished then changes.rounds_completed = tonumber(agent.rounds_completed) + 1 end
    changes.current_task, changes.last_active_at = false, NOW
    mail.settle(agent, finished, changes)
    if agent.state == 'working' then agents.enter(agent, 'idle', nil, changes) end
  end
  if next(changes) then agents.write(agent, changes) end
end

-- The task that the agent holds a lease of.
function agents.held(agent)
  local task = agent.current_task and tasks.load(agent.current_task)
  if task and task.state == 'running' and task.assigned_to == agent.id then return task end
end

-- The agent ends: its incarnation is over and what it held goes where `dispose(task)` puts it.
function agents.finish(agent, state, reason, fence, dispose)
  local task = agents.held(agent)
  local changes = {current_task = false, lease_expires_at = false}
  if fence then changes.incarnation = tonumber(agent.incarnation) + 1 end
  call('ZREM', keys.agent_leases(), agent.id)
  call('ZREM', keys.unreported(), agent.id)
  mail.settle(agent, false, changes)
  agents.move(agent, state, reason, changes)
  if task then dispose(task) end
end

function agents.kill(agent, reason)
  agents.finish(agent, 'stopped', reason, true, function(task)
    tasks.give_back(task, 'killed', nil, reason)
  end)
end

-- Unread work of an agent's inbox, in the order in which it would be taken.
function agents.waiting_work(id)
  local found = {}
  for _, urgent in ipairs({true, false}) do
    for _, task_id in ipairs(call('ZRANGE', keys.waiting(queues.inbox(id, urgent)), 0, -1)) do found[#found + 1] = task_id end
  end
  return found
end

-- Forget the agent; what waits in its inbox goes to the backlog, its mail is dropped.
function agents.forget(agent, reason)
  if not AGENT_ENDED[agent.state] then agents.kill(agent, reason) end
  for _, id in ipairs(agents.waiting_work(agent.id)) do
    tasks.hand_over(tasks.load(id), nil, 'task_requeued', 'its agent is gone', {reason = reason}, {})
  end
  tell('agent_pruned', 'agent ' .. agent.name .. ' was forgotten', {agent_id = agent.id, old_state = agent.state, reason = reason})
  local dropped = mail.forget(agent.id)
  call('HDEL', keys.agent_names(), agent.name:lower())
  call('ZREM', keys.all_agents(), agent.id)
  call('UNLINK', keys.agent(agent.id), keys.agent_history(agent.id), keys.agent_events(agent.id),
    keys.stream(queues.inbox(agent.id, false)), keys.stream(queues.inbox(agent.id, true)))
  return dropped
end
