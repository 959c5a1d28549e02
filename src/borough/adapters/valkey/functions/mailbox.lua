-- Mail: what is told to an agent or to the supervisor and is no work.
--
-- Unread mail is in two sorted sets (normal, urgent), ordered by the town's count. What was handed out with a lease is
-- listed in `taken`, so that asking again for the same lease tells it again; when the attempt is lost, it is unread again.

local function load_message(id)
  return call('HMGET', keys.message(id), unpack(MESSAGE_FIELDS))
end

-- Work as an inbox shows it, in the order of MESSAGE_FIELDS.
local function as_message(task_id)
  return call('HMGET', keys.task(task_id), 'id', 'kind', 'description', 'sender', 'owner', 'urgent', 'created_at')
end

local function unread_key(agent_id, urgent)
  return urgent and keys.urgent_mail(agent_id) or keys.mail(agent_id)
end

local function is_urgent_message(id)
  return call('HGET', keys.message(id), 'urgent') == '1'
end

-- A full mailbox loses its oldest mail, and says so.
local function make_room(agent_id)
  while call('ZCARD', keys.mail(agent_id)) + call('ZCARD', keys.urgent_mail(agent_id)) >= MAILBOX_LENGTH do
    local from = call('ZCARD', keys.mail(agent_id)) > 0 and keys.mail(agent_id) or keys.urgent_mail(agent_id)
    local id = call('ZPOPMIN', from)[1]
    call('UNLINK', keys.message(id))
    tell('message_dropped', 'the mailbox is full: its oldest mail was dropped', {agent_id = agent_id, message_id = id})
  end
end

function mail.add(message)
  make_room(message.to)
  message.number, message.created_at = next_number(), NOW
  write(keys.message(message.id), {}, message)
  call('ZADD', unread_key(message.to, message.urgent == '1'), message.number, message.id)
  tell('message_sent', 'mail for ' .. agents.name(message.to) .. ': ' .. cut(message.text, EXCERPT_BYTES),
    {agent_id = message.to, message_id = message.id, by = message.sender})
end

-- Unread becomes read; the newest of what was read is kept for looking up.
local function mark_read(agent_id, id)
  call('ZREM', unread_key(agent_id, is_urgent_message(id)), id)
  call('ZADD', keys.read_mail(agent_id), call('HGET', keys.message(id), 'number'), id)
  if call('ZCARD', keys.read_mail(agent_id)) > MAILBOX_LENGTH then
    call('UNLINK', keys.message(call('ZPOPMIN', keys.read_mail(agent_id))[1]))
  end
end

-- Ids of unread mail, urgent first, oldest first.
local function unread(agent_id, limit)
  local ids = call('ZRANGE', keys.urgent_mail(agent_id), 0, limit - 1)
  for _, id in ipairs(call('ZRANGE', keys.mail(agent_id), 0, limit - 1)) do ids[#ids + 1] = id end
  while #ids > limit do ids[#ids] = nil end
  return ids
end

-- Hand out unread mail with a lease: as much as one answer may hold, at least one; the rest comes with the next.
function mail.take(agent_id)
  local messages, bytes = {}, 0
  for _, id in ipairs(unread(agent_id, MAIL_PER_LEASE)) do
    bytes = bytes + call('HSTRLEN', keys.message(id), 'text')
    if #messages > 0 and bytes > MAIL_BYTES_PER_LEASE then break end
    messages[#messages + 1] = load_message(id)
    mark_read(agent_id, id)
    call('RPUSH', keys.taken_mail(agent_id), id)
  end
  return messages
end

function mail.taken(agent_id)
  local messages = {}
  for _, id in ipairs(call('LRANGE', keys.taken_mail(agent_id), 0, -1)) do
    local message = load_message(id)
    if message[1] then messages[#messages + 1] = message end
  end
  return messages
end

-- The attempt is over: what was told with it has been heard, or is unread again.
function mail.settle(agent, heard, changes)
  if not agent.has_taken_mail then return end
  changes.has_taken_mail = false
  local agent_id = agent.id
  if not heard then
    for _, id in ipairs(call('LRANGE', keys.taken_mail(agent_id), 0, -1)) do
      if call('ZREM', keys.read_mail(agent_id), id) == 1 then
        call('ZADD', unread_key(agent_id, is_urgent_message(id)), call('HGET', keys.message(id), 'number'), id)
      end
    end
  end
  call('DEL', keys.taken_mail(agent_id))
end

-- Drop a whole mailbox; return how many messages went.
function mail.forget(agent_id)
  local dropped = 0
  for _, key in ipairs({keys.mail(agent_id), keys.urgent_mail(agent_id), keys.read_mail(agent_id)}) do
    for _, id in ipairs(call('ZRANGE', key, 0, -1)) do
      dropped = dropped + call('UNLINK', keys.message(id))
    end
    call('UNLINK', key)
  end
  call('DEL', keys.taken_mail(agent_id))
  return dropped
end

-- Functions -----------------------------------------------------------------------------------------------------

local function sender_of(reference)
  local id = agents.seek(reference)
  if not id then
    refuse('not_found', 'sender_not_found', 'there is no agent ' .. cut(reference, 100) .. ' to send from', '',
      'leave the sender out to send as the supervisor')
  end
  return id
end

publish('town_send', function(to, from, id, kind, text, urgent, is_work, ...)
  if call('EXISTS', keys.message(id)) == 1 then return load_message(id) end
  local target = agents.resolve(to)
  if call('EXISTS', keys.task(id)) == 1 then
    local message = as_message(id)
    message[5] = message[5] or target
    return message
  end
  if target ~= SUPERVISOR_ID then target = agents.require_working(to).id end
  local sender = sender_of(from)
  if is_work == '1' and target ~= SUPERVISOR_ID then
    local new = tasks.arguments(...)
    new.sender = sender
    tasks.add(new, target)
    return as_message(id)
  end
  mail.add({id = id, type = kind, text = text, sender = sender, to = target, urgent = urgent})
  return load_message(id)
end)

-- Work and mail of one priority together, oldest first.
local function entries(agent_id, urgent, limit)
  local found = {}
  local function gather(key, read)
    local part = call('ZRANGE', key, 0, limit - 1, 'WITHSCORES')
    for index = 1, #part, 2 do found[#found + 1] = {tonumber(part[index + 1]), part[index], read} end
  end
  gather(keys.waiting(queues.inbox(agent_id, urgent)), as_message)
  gather(unread_key(agent_id, urgent), load_message)
  table.sort(found, function(left, right) return left[1] < right[1] end)
  return found
end

publish('town_inbox', function(reference, limit)
  local id = agents.resolve(reference)
  local messages, wanted, counts = {}, tonumber(limit), {}
  for _, urgent in ipairs({true, false}) do
    counts[#counts + 1] = queues.waiting(queues.inbox(id, urgent)) + call('ZCARD', unread_key(id, urgent))
    for _, entry in ipairs(entries(id, urgent, wanted)) do
      if #messages < wanted then messages[#messages + 1] = entry[3](entry[2]) end
    end
  end
  return {id, counts[2], counts[1], messages}
end, {'no-writes'})

publish('town_message', function(reference, message_id)
  local id = agents.resolve(reference)
  if call('HGET', keys.message(message_id), 'to') == id then return load_message(message_id) end
  if call('HGET', keys.task(message_id), 'owner') == id then return as_message(message_id) end
  refuse('not_found', 'message_not_found', 'there is no message ' .. message_id .. ' for ' .. agents.name(id), '',
    'list the inbox to find its id')
end, {'no-writes'})

publish('town_acknowledge', function(reference, every, ...)
  local id = agents.resolve(reference)
  local ids = every == '1' and unread(id, 2 * MAILBOX_LENGTH) or {...}
  for _, message_id in ipairs(ids) do
    local work = tasks.load(message_id)
    if work and work.owner == id and not TASK_TERMINAL[work.state] then
      refuse('conflict', 'message_is_work', message_id .. ' is work', 'work stays until it is over',
        'complete or cancel the task instead')
    end
  end
  local count = 0
  for _, message_id in ipairs(ids) do
    if call('ZSCORE', keys.mail(id), message_id) or call('ZSCORE', keys.urgent_mail(id), message_id) then
      mark_read(id, message_id)
      count = count + 1
    end
  end
  if count > 0 then tell('message_acknowledged', count .. ' messages were read by ' .. agents.name(id), {agent_id = id}) end
  return count
end)
