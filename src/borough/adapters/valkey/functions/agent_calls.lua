-- What can be called about agents: the register, pauses and ends, and the work of those that ended.


local function refuse_full(limit)
  local standing = 0
  for _, id in ipairs(agents.ids()) do
    local found = call('HMGET', keys.agent(id), 'state', 'beyond_limit')
    if not AGENT_ENDED[found[1]] and not found[2] then standing = standing + 1 end
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
    parent_agent_id = given(parent) or false, added_as = id, beyond_limit = not given(limit) and '1' or false}
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
