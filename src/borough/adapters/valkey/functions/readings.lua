-- Readings: all counts at one moment; the cost grows with agents, roles and active missions, never with finished tasks.

-- Unread and in flight, summed over `names`.
local function sum(names)
  local waiting, in_flight = 0, 0
  for _, name in ipairs(names) do
    local some, held = queues.count(name)
    waiting, in_flight = waiting + some, in_flight + held
  end
  return waiting, in_flight
end

local OVER = {completed = true, failed = true}

local function missions()
  local open, ticks = 0, {}
  for _, id in ipairs(call('SMEMBERS', keys.active_missions())) do
    local kept = call('GET', keys.mission(id))
    local readable, mission = pcall(cjson.decode, kept or '')
    if readable and type(mission) == 'table' and not OVER[mission.state] then
      open = 1
      local tick = mission.dispatcher_last_tick_at
      if type(tick) == 'string' then ticks[#ticks + 1] = tick end
    end
  end
  return open, ticks
end

publish('town_snapshot', function()
  local backlog, in_flight = sum(queues.all_backlogs(true))
  local normal, held = sum(queues.all_backlogs(false))
  backlog, in_flight = backlog + normal, in_flight + held
  local assigned, urgent, readings_of = 0, 0, {}
  for index, id in ipairs(agents.ids()) do
    local plain, in_hand = sum({queues.inbox(id, false)})
    local pressing, pressing_in_hand = sum({queues.inbox(id, true)})
    assigned, in_flight = assigned + plain + pressing, in_flight + in_hand + pressing_in_hand
    urgent = urgent + pressing + call('ZCARD', keys.urgent_mail(id))
    readings_of[index] = call('HMGET', keys.agent(id), 'state', 'last_active_at', 'last_heartbeat', 'lease_expires_at')
  end
  local open, ticks = missions()
  return {
    NOW, backlog, assigned, urgent, in_flight, call('ZCARD', keys.retry()), call('ZCARD', keys.tasks_in('failed')),
    tonumber(call('HGET', keys.counters(), 'completed') or 0), readings_of, call('SCARD', keys.active_missions()), open, ticks,
  }
end, {'no-writes'})

-- The shared backlog by role; what is for anybody stands under the empty name, which no role has.
publish('town_waiting', function()
  local counts = {'', queues.waiting(queues.backlog(nil, true)) + queues.waiting(queues.backlog(nil, false))}
  for _, role in ipairs(call('SMEMBERS', keys.roles())) do
    counts[#counts + 1] = role
    counts[#counts + 1] = queues.waiting(queues.backlog(role, true)) + queues.waiting(queues.backlog(role, false))
  end
  return counts
end, {'no-writes'})

publish('town_counts', function()
  local counts = {}
  for _, state in ipairs(TASK_STATES) do
    counts[#counts + 1] = state
    counts[#counts + 1] = call('ZCARD', keys.tasks_in(state))
  end
  return counts
end, {'no-writes'})

publish('town_ping', function() return 'PONG' end, {'no-writes'})
