-- Leases: work in hand. Every function is a worker's and names its incarnation.

local function require_incarnation(id, incarnation)
  local agent = agents.load(id)
  if not agent then
    refuse('not_found', 'agent_not_found', 'there is no agent ' .. id, 'it was forgotten', 'end this worker')
  end
  if agent.incarnation ~= incarnation then
    refuse('conflict', 'stale_incarnation', 'incarnation ' .. incarnation .. ' of agent ' .. agent.name .. ' is over',
      'the agent is ' .. agent.state .. ' in incarnation ' .. agent.incarnation, 'end this worker')
  end
  return agent
end

publish('town_start', function(id, incarnation, host, pid, ticks, lease)
  local agent = require_incarnation(id, incarnation)
  if not AGENT_ACTIVE[agent.state] then
    refuse('conflict', 'stale_incarnation', 'agent ' .. agent.name .. ' has ended', 'it is ' .. agent.state, 'end this worker')
  end
  local task = agents.held(agent)
  if task then tasks.give_back(task, 'restarted', nil, 'its worker started again') end
  agent = agents.load(id)
  call('ZREM', keys.unreported(), id)
  agents.renew(agent, NOW + tonumber(lease), {
    process_host = host, process_pid = pid, process_started_ticks = ticks, last_active_at = NOW,
  })
  if agent.state == 'starting' then agents.move(agent, 'idle') end
  return agents.record(id)
end)

-- The next task for the agent: urgent of its inbox, urgent of the backlog, its inbox, the backlog.
local function choose(agent)
  for _, urgent in ipairs({true, false}) do
    local id = queues.first(queues.inbox(agent.id, urgent))
      or queues.earliest(queues.backlogs_for(agents.role(agent), urgent))
    if id then return id end
  end
end

local function extend(task, due)
  call('ZADD', keys.leases(), due, task.id)
  tasks.write(task, {lease_expires_at = due})
end

-- The agent works from here on; the task's event tells that too.
local function grant(task, agent, due)
  queues.deliver(task)
  local old = tasks.move(task, 'running', {
    assigned_to = agent.id, epoch = tonumber(task.epoch) + 1, attempts = tonumber(task.attempts) + 1, started_at = NOW,
    lease_expires_at = due, replayed_by = false,
  })
  call('ZADD', keys.leases(), due, task.id)
  tasks.tell('task_leased', task, 'taken by ' .. agent.name, {agent_id = agent.id, old_state = old})
  local messages, changes = mail.take(agent.id), {current_task = task.id, last_active_at = NOW}
  agents.enter(agent, 'working', nil, changes)
  if #messages > 0 then changes.has_taken_mail = '1' end
  agents.renew(agent, due, changes)
  return messages
end

publish('town_take', function(id, incarnation, lease)
  local agent = require_incarnation(id, incarnation)
  if not AGENT_ACTIVE[agent.state] or agent.state == 'starting' then return false end
  local due = NOW + tonumber(lease)
  local task = agents.held(agent)
  if task then
    agents.renew(agent, due)
    extend(task, due)
    return {tasks.record(task.id), agent.name, mail.taken(id)}
  end
  tasks.promote(PROMOTE_LIMIT)
  local chosen = agent.state == 'idle' and choose(agent)
  if not chosen then
    agents.renew(agent, due)
    return false
  end
  local messages = grant(tasks.load(chosen), agent, due)
  return {tasks.record(chosen), agent.name, messages}
end)

local DIRECTIVES = {paused = 'pause', draining = 'drain'}

publish('town_beat', function(id, incarnation, task_id, epoch, lease)
  local agent = require_incarnation(id, incarnation)
  if not AGENT_ACTIVE[agent.state] then return {'stop', NOW} end
  local due = NOW + tonumber(lease)
  if agent.state == 'starting' then call('ZREM', keys.unreported(), id) end
  agents.renew(agent, due)
  if given(task_id) then
    local task = agents.held(agent)
    if not task or task.id ~= task_id or task.epoch ~= epoch then return {'drop', due} end
    extend(task, due)
  end
  return {DIRECTIVES[agent.state] or 'run', due}
end)

publish('town_leave', function(id, incarnation, state, reason)
  local agent = require_incarnation(id, incarnation)
  if AGENT_ENDED[agent.state] then return agents.record(id) end
  local waiting = #agents.waiting_work(id)
  if state == 'stopped' and agent.state ~= 'draining' and waiting > 0 then
    refuse('conflict', 'work_waiting', 'agent ' .. agent.name .. ' cannot leave now',
      waiting .. ' tasks wait in its inbox', 'go on and take them')
  end
  agents.finish(agent, state, reason, false, function(task) tasks.give_back(task, 'left', nil, reason) end)
  return agents.record(id)
end)

-- A worker ended without a goodbye: its attempt failed, as if the lease had run out.
publish('town_lose', function(id, incarnation, reason, base, cap)
  local agent = require_incarnation(id, incarnation)
  if AGENT_ENDED[agent.state] then return agents.record(id) end
  agents.finish(agent, 'error', reason, true, function(task)
    tasks.fail_attempt(task, 'expired', task.epoch, reason, tasks.pause(tonumber(task.attempts), base, cap))
  end)
  return agents.record(id)
end)

publish('town_drain_if_idle', function(id, incarnation)
  local agent = require_incarnation(id, incarnation)
  if agent.state == 'draining' then return 1 end
  if agent.state ~= 'idle' or #agents.waiting_work(id) > 0 then return 0 end
  agents.move(agent, 'draining', 'idle timeout')
  return 1
end)

local function overdue(key, before, limit)
  return call('ZRANGEBYSCORE', key, '-inf', before, 'LIMIT', 0, limit)
end

publish('town_sweep', function(base, cap, limit, grace)
  local outcome = {delayed = {}, failed = {}}
  local function expire(task)
    local how = tasks.fail_attempt(task, 'expired', task.epoch, 'lease expired', tasks.pause(tonumber(task.attempts), base, cap))
    outcome[how][#outcome[how] + 1] = task.id
  end
  local lost = {}
  local function lose(id, reason)
    agents.finish(agents.load(id), 'error', reason, true, expire)
    lost[#lost + 1] = agents.record(id)
  end
  for _, id in ipairs(overdue(keys.agent_leases(), NOW, limit)) do lose(id, 'lease expired') end
  for _, id in ipairs(overdue(keys.unreported(), NOW - tonumber(grace), limit)) do lose(id, 'never reported') end
  for _, id in ipairs(overdue(keys.leases(), NOW, limit)) do expire(tasks.load(id)) end
  local promoted = tasks.promote(limit)
  return {outcome.delayed, outcome.failed, promoted, lost}
end)

publish('town_attempt_is_live', function(id, epoch)
  local values = call('HMGET', keys.task(id), 'state', 'epoch', 'lease_expires_at')
  return values[1] == 'running' and values[2] == epoch and tonumber(values[3]) > NOW and 1 or 0
end, {'no-writes'})
