-- Events: reading the stream, and writing what belongs to no other change.

publish('town_append_event', function(nonce, kind, message, subjects)
  local once = keys.event_once(nonce)
  local known = call('GET', once)
  if known then return known end
  local id = tell(kind, message, cjson.decode(subjects))
  call('SET', once, id, 'PX', ONCE_MS)
  return id
end)

publish('town_events_after', function(id, limit)
  return call('XRANGE', keys.events(), given(id) and '(' .. id or '-', '+', 'COUNT', limit)
end, {'no-writes'})

publish('town_newest_events', function(reference, limit)
  local key = keys.events()
  if given(reference) then key = keys.agent_events(agents.resolve(reference)) end
  return call('XREVRANGE', key, '+', '-', 'COUNT', limit)
end, {'no-writes'})

-- Whether events wait for their reader: the oldest go by town_forget_read_events only, then.
publish('town_keep_events', function(keep)
  if keep == '1' then
    call('HSET', keys.counters(), 'events_kept', 1)
  else
    call('HDEL', keys.counters(), 'events_kept')
  end
end)

-- Fewer than UNREAD_EVENTS unread, and far more kept: then whatever goes was read.
publish('town_forget_read_events', function(up_to)
  if call('XLEN', keys.events()) <= EVENTS_LENGTH then return 0 end
  local unread = call('XRANGE', keys.events(), '(' .. up_to, '+', 'COUNT', UNREAD_EVENTS)
  if #unread == UNREAD_EVENTS then return 0 end
  return call('XTRIM', keys.events(), 'MAXLEN', '~', EVENTS_LENGTH)
end)

publish('town_event_bounds', function()
  local first = call('XRANGE', keys.events(), '-', '+', 'COUNT', 1)[1]
  if not first then return false end
  return {first[1], call('XREVRANGE', keys.events(), '+', '-', 'COUNT', 1)[1][1]}
end, {'no-writes'})
