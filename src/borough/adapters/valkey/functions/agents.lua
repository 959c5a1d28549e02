-- Agents: the register, references to them, legal moves, and what their end means for their work.

local AGENT_CORE = {
  'id', 'number', 'name', 'nickname', 'role_id', 'state', 'current_task', 'incarnation', 'lease_expires_at',
  'last_heartbeat', 'rounds_completed', 'tasks_completed', 'added_as',
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

function agents.move(agent, state, reason, changes, kind)
  local old = agent.state
  if not AGENT_MOVES[old][state] then error('an agent may not go from ' .. old .. ' to ' .. state) end
  changes = changes or {}
  changes.state, changes.state_since, changes.reason = state, NOW, reason or false
  agents.write(agent, changes)
  tell(kind or MOVE_EVENTS[state] or 'agent_state_changed', 'agent ' .. agent.name .. ' is ' .. state,
    {agent_id = agent.id, task_id = agent.current_task, old_state = old, new_state = state, reason = reason})
end

-- Keep the agent's own lease; it ends by itself when nobody renews it.
function agents.renew(agent, lease)
  local due = NOW + tonumber(lease)
  agents.write(agent, {last_heartbeat = NOW, lease_expires_at = due})
  call('ZADD', keys.agent_leases(), due, agent.id)
  call('ZREM', keys.unreported(), agent.id)
  return due
end

-- Its task is no longer in the agent's hand: `how` says how a round ended, nil that none was run.
function agents.round_ended(id, task_id, how, completed)
  local agent = agents.load(id)
  if not agent then return end
  local changes = {}
  if completed then changes.tasks_completed = tonumber(agent.tasks_completed) + 1 end
  if agent.current_task == task_id then
    local finished = how == 'completed' or how == 'failed'
    if finished then changes.rounds_completed = tonumber(agent.rounds_completed) + 1 end
    changes.current_task, changes.last_active_at = false, NOW
    mail.settle(id, finished)
  end
  if next(changes) then agents.write(agent, changes) end
  if agent.state == 'working' and not agent.current_task then agents.move(agent, 'idle') end
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
  agents.move(agent, state, reason, changes)
  mail.settle(agent.id, false)
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

-- Functions -----------------------------------------------------------------------------------------------------

local function refuse_full(limit)
  local standing = 0
  for _, id in ipairs(agents.ids()) do
    if not AGENT_ENDED[call('HGET', keys.agent(id), 'state')] then standing = standing + 1 end
  end
  if standing >= tonumber(limit) then
    refuse('conflict', 'town_full', 'the town has ' .. standing .. ' agents', 'at most ' .. limit .. ' may run',
      'stop an agent, or raise max_agents')
  end
end

-- What every new incarnation starts with.
local function fresh(agent)
  call('ZADD', keys.unreported(), NOW, agent.id)
  return {
    last_heartbeat = NOW, last_active_at = NOW, rounds_completed = 0, current_task = false, lease_expires_at = false,
    process_host = false, process_pid = false, process_started_ticks = false,
  }
end

publish('town_add_agent', function(id, name, cli, role, nickname, parent, adopt, limit)
  local present = agents.load(id)
  if present then return agents.record(id) end
  if given(parent) and parent ~= SUPERVISOR_ID and call('EXISTS', keys.agent(parent)) == 0 then
    refuse('not_found', 'parent_not_found', 'there is no parent agent ' .. parent, '', 'leave the parent out')
  end
  local holder = call('HGET', keys.agent_names(), name:lower())
  local former = holder and agents.load(holder)
  if former and former.added_as == id then return agents.record(holder) end
  if former and not (adopt == '1' and AGENT_ENDED[former.state]) then
    refuse('conflict', 'agent_exists', 'there is an agent ' .. name .. ' already', 'it is ' .. former.state,
      'choose another name, or restart that agent')
  end
  if given(limit) then refuse_full(limit) end
  local about = {cli = cli, role_id = given(role) or false, nickname = given(nickname) or false,
    parent_agent_id = given(parent) or false, added_as = id}
  local agent = former or {id = id, name = name}
  for field, value in pairs(fresh(agent)) do about[field] = value end
  if former then
    about.incarnation = tonumber(former.incarnation) + 1
    agents.move(former, 'starting', 'taken over', about, 'agent_spawned')
    return agents.record(former.id)
  end
  about.id, about.name, about.number, about.incarnation = id, name, next_number(), 1
  about.spawn_mode, about.created_at, about.tasks_completed = 'fresh', NOW, 0
  about.state, about.state_since = 'starting', NOW
  agents.write(agent, about)
  call('ZADD', keys.all_agents(), agent.number, id)
  call('HSET', keys.agent_names(), name:lower(), id)
  tell('agent_spawned', 'agent ' .. name .. ' is starting', {agent_id = id, new_state = 'starting', parent_agent_id = given(parent)})
  return agents.record(id)
end)

publish('town_agent', function(reference)
  return agents.record(agents.require(reference).id)
end, {'no-writes'})

publish('town_agent_history', function(reference)
  return call('LRANGE', keys.agent_history(agents.require(reference).id), 0, -1)
end, {'no-writes'})

publish('town_agents', function()
  local records = {}
  for index, id in ipairs(agents.ids()) do records[index] = agents.record(id) end
  return records
end, {'no-writes'})

publish('town_kill', function(reference, reason)
  local agent = agents.require(reference)
  local before = agents.record(agent.id)
  if not AGENT_ENDED[agent.state] then agents.kill(agent, reason) end
  return before
end)

publish('town_begin', function(reference, reason)
  local agent = agents.require(reference)
  if not AGENT_ENDED[agent.state] then agents.kill(agent, reason) end
  local changes = fresh(agent)
  changes.incarnation = tonumber(agent.incarnation) + 1
  agents.move(agent, 'starting', reason, changes)
  return agents.record(agent.id)
end)

local function require_move(agent, state)
  if agent.state ~= state and not AGENT_MOVES[agent.state][state] then
    refuse('conflict', 'agent_not_running', 'agent ' .. agent.name .. ' does not run', 'it is ' .. agent.state,
      'restart it first')
  end
end

publish('town_pause', function(reference)
  local agent = agents.require(reference)
  require_move(agent, 'paused')
  if agent.state ~= 'paused' then agents.move(agent, 'paused') end
  return agents.record(agent.id)
end)

publish('town_resume', function(reference)
  local agent = agents.require(reference)
  if agent.state ~= 'paused' then
    refuse('conflict', 'agent_not_paused', 'agent ' .. agent.name .. ' is not paused', 'it is ' .. agent.state, 'nothing is to be done')
  end
  agents.move(agent, agent.current_task and 'working' or 'idle', nil, {last_active_at = NOW}, 'agent_resumed')
  return agents.record(agent.id)
end)

publish('town_close', function(reference)
  local agent = agents.require(reference)
  require_move(agent, 'draining')
  if agent.state ~= 'draining' then agents.move(agent, 'draining', 'closed') end
  return agents.record(agent.id)
end)

publish('town_prune', function(every, dry_run)
  local gone, records = {}, {}
  for _, id in ipairs(agents.ids()) do
    local agent = agents.load(id)
    if every == '1' or AGENT_ENDED[agent.state] then
      gone[#gone + 1] = agent
      records[#records + 1] = agents.record(id)
    end
  end
  if dry_run ~= '1' then
    for _, agent in ipairs(gone) do agents.forget(agent, 'pruned') end
  end
  return records
end)

-- The ended agents whose work is meant.
local function ended_agents(of, after)
  local only = given(of) and agents.require(of)
  if only and not AGENT_ENDED[only.state] then
    refuse('conflict', 'agent_not_ended', 'agent ' .. only.name .. ' still runs', 'it is ' .. only.state, 'stop it first')
  end
  local found = {}
  for _, id in ipairs(only and {only.id} or agents.ids()) do
    local agent = agents.load(id)
    local since = NOW - tonumber(call('HGET', keys.agent(id), 'state_since'))
    if AGENT_ENDED[agent.state] and (not given(after) or since >= tonumber(after)) then found[#found + 1] = agent end
  end
  return found
end

publish('town_reclaim', function(of, to_backlog, to, after)
  local target = given(to) and agents.require_working(to)
  local moved = {}
  for _, agent in ipairs(ended_agents(of, after)) do
    for _, id in ipairs(agents.waiting_work(agent.id)) do
      if target or to_backlog == '1' then
        tasks.hand_over(tasks.load(id), target and target.id, target and 'task_assigned' or 'task_requeued',
          'reclaimed from ' .. agent.name, {reason = 'its agent has ended'}, {})
      end
      moved[#moved + 1] = {tasks.record(id), agent.id, agent.name}
    end
  end
  return moved
end)

publish('town_orphans', function()
  local found = {}
  for _, state in ipairs({'assigned', 'running', 'delayed'}) do
    for _, id in ipairs(call('ZRANGE', keys.tasks_in(state), 0, -1)) do
      local whose = call('HGET', keys.task(id), 'assigned_to')
      local agent = whose and whose ~= SUPERVISOR_ID and agents.load(whose)
      if whose and whose ~= SUPERVISOR_ID and not (agent and not AGENT_ENDED[agent.state]) then
        found[#found + 1] = {tasks.record(id), agent and 'agent_terminal' or 'agent_missing'}
      end
    end
  end
  return found
end, {'no-writes'})
