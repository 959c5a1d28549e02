-- Acts on the town as a whole. Events are kept: they are the record of what happened, this act included.

local function forget_agents()
  local records = 0
  for _, id in ipairs(agents.ids()) do records = records + 1 + agents.forget(agents.load(id), 'the town was reset') end
  return records
end

local function forget_tasks(limit)
  local ids = call('ZRANGE', keys.all_tasks(), 0, limit - 1)
  for _, id in ipairs(ids) do
    local task = tasks.load(id)
    if not TASK_TERMINAL[task.state] then tasks.withdraw(task) end
    tasks.delete(task)
  end
  if call('ZCARD', keys.all_tasks()) == 0 then
    call('UNLINK', keys.stream(queues.backlog(nil, false)), keys.stream(queues.backlog(nil, true)))
  end
  return #ids
end

-- How many records went, and whether there are more: a server does nothing else meanwhile, so a large town goes in parts.
publish('town_reset', function(agents_only, limit)
  local removed = forget_agents()
  if agents_only ~= '1' then removed = removed + forget_tasks(tonumber(limit)) + mail.forget(SUPERVISOR_ID) end
  tell('town_reset', removed .. ' records were removed', {})
  return {removed, agents_only ~= '1' and call('ZCARD', keys.all_tasks()) > 0 and 1 or 0}
end)
