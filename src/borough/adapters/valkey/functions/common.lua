-- What every other file uses: the call's frame, keys, refusals, records, events.
--
-- While a library loads, only `redis.register_function` and plain syntax exist: nothing below runs then.
-- Every function is called as FCALL name 1 PREFIX argument...; an empty argument stands for "none".
-- It answers {'ok', value} or {'err', kind, code, message, reason, resolution}. Everything is checked before the
-- first write, because a server keeps what was written before an error.

local queues, tasks, agents, leases, mail, readings = {}, {}, {}, {}, {}, {}

-- The call's frame: set when a call begins, constant while it lasts.
local PREFIX, NOW = '', 0

local function call(...)
  return redis.call(...)
end

local function begin_call(prefix)
  local time = redis.call('TIME')
  PREFIX = prefix
  NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function refuse(kind, code, message, reason, resolution)
  error({refusal = {'err', kind, code, message, reason or '', resolution or ''}})
end

local function publish(name, body, flags)
  redis.register_function{
    function_name = name,
    flags = flags or {},
    callback = function(prefixes, arguments)
      begin_call(prefixes[1])
      local done, value = pcall(body, unpack(arguments))
      if done then
        if value == nil then value = false end
        return {'ok', value}
      end
      if type(value) == 'table' and value.refusal then return value.refusal end
      error(value)
    end,
  }
end

-- An argument that may be left out.
local function given(argument)
  if argument == '' then return nil end
  return argument
end

-- Keys ----------------------------------------------------------------------------------------------------------

local keys = {}

function keys.counters() return PREFIX .. 'counters' end
function keys.events() return PREFIX .. 'events' end
function keys.agent_events(id) return PREFIX .. 'events:agent:' .. id end
function keys.event_once(nonce) return PREFIX .. 'events:once:' .. nonce end

function keys.task(id) return PREFIX .. 'task:' .. id end
function keys.task_history(id) return PREFIX .. 'history:task:' .. id end
function keys.all_tasks() return PREFIX .. 'index:tasks' end
function keys.tasks_in(state) return PREFIX .. 'index:tasks:state:' .. state end
function keys.tasks_of(agent_id) return PREFIX .. 'index:tasks:agent:' .. agent_id end
function keys.tasks_for(role) return PREFIX .. 'index:tasks:role:' .. role end
function keys.tasks_tagged(tag) return PREFIX .. 'index:tasks:tag:' .. tag end
function keys.leases() return PREFIX .. 'leases' end
function keys.retry() return PREFIX .. 'retry' end
function keys.finished() return PREFIX .. 'finished' end

-- A queue is named without the prefix ('docket:tasks', 'inbox:<id>' ...), as a task remembers it.
function keys.stream(queue) return PREFIX .. queue end
function keys.waiting(queue) return PREFIX .. 'waiting:' .. queue end
function keys.roles() return PREFIX .. 'docket:roles' end

function keys.agent(id) return PREFIX .. 'agent:' .. id end
function keys.agent_history(id) return PREFIX .. 'history:agent:' .. id end
function keys.all_agents() return PREFIX .. 'index:agents' end
function keys.agent_names() return PREFIX .. 'index:agents:names' end
function keys.agent_leases() return PREFIX .. 'leases:agents' end
function keys.unreported() return PREFIX .. 'leases:unreported' end

function keys.message(id) return PREFIX .. 'message:' .. id end
function keys.mail(agent_id) return PREFIX .. 'mail:' .. agent_id end
function keys.urgent_mail(agent_id) return PREFIX .. 'mail:urgent:' .. agent_id end
function keys.read_mail(agent_id) return PREFIX .. 'mail:read:' .. agent_id end
function keys.taken_mail(agent_id) return PREFIX .. 'mail:taken:' .. agent_id end

function keys.active_missions() return PREFIX .. 'mission:active' end
function keys.mission(id) return PREFIX .. 'mission:' .. id end

-- Records -------------------------------------------------------------------------------------------------------

-- The town's own count: orders tasks, queue entries, agents and messages without a clock that may step back.
local function next_number()
  return call('HINCRBY', keys.counters(), 'sequence', 1)
end

-- Write `changes` (false: remove the field) into the hash at `key` and into the loaded `record`. A field that the
-- record does not have needs no removal: all fields that are ever removed are among those that are loaded.
local function write(key, record, changes)
  local set, removed = {}, {}
  for field, value in pairs(changes) do
    if value == false then
      if record[field] ~= nil then removed[#removed + 1] = field end
      record[field] = nil
    else
      record[field] = value
      set[#set + 1] = field
      set[#set + 1] = value
    end
  end
  if #set > 0 then call('HSET', key, unpack(set)) end
  if #removed > 0 then call('HDEL', key, unpack(removed)) end
end

-- Load the named fields of a hash; nil when the record does not exist (every record has its first field).
local function load(key, fields)
  local values = call('HMGET', key, unpack(fields))
  if not values[1] then return nil end
  local record = {}
  for index, field in ipairs(fields) do
    if values[index] then record[field] = values[index] end
  end
  return record
end

-- The first `limit` bytes of `text` at most, never a part of a character (UTF-8 continues with 10xxxxxx).
local function cut(text, limit)
  if #text <= limit then return text end
  local last = limit
  while last > 0 and text:byte(last + 1) >= 128 and text:byte(last + 1) < 192 do last = last - 1 end
  return text:sub(1, last) .. '…'
end

-- Events --------------------------------------------------------------------------------------------------------

-- Milliseconds as RFC 3339; the calendar's arithmetic is "days_from_civil" turned round, eras of 400 years.
local function rfc3339(milliseconds)
  local seconds = math.floor(milliseconds / 1000)
  local days = math.floor(seconds / 86400) + 719468
  local era = math.floor(days / 146097)
  local of_era = days - era * 146097
  local year_of_era = math.floor(
    (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local shifted = math.floor((5 * of_year + 2) / 153)
  local day = of_year - math.floor((153 * shifted + 2) / 5) + 1
  local month = shifted < 10 and shifted + 3 or shifted - 9
  local year = year_of_era + era * 400 + (month <= 2 and 1 or 0)
  local second = seconds % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(second / 3600), math.floor(second / 60) % 60, second % 60, milliseconds % 1000)
end

local function remember(key, kind, subjects)
  local entry = {
    at = NOW, event = kind, old_state = subjects.old_state, new_state = subjects.new_state,
    agent_id = subjects.agent_id, attempt = subjects.attempt, reason = subjects.reason,
  }
  if call('RPUSH', key, cjson.encode(entry)) > HISTORY_LENGTH then call('LTRIM', key, -HISTORY_LENGTH, -1) end
end

-- Tell what happened. An `agent_...` event becomes part of the agent's history, a `task_...` event of the task's.
local function tell(kind, message, subjects)
  if subjects.reason then subjects.reason = cut(subjects.reason, REASON_BYTES) end
  if subjects.task_id and kind:sub(1, 5) == 'task_' then remember(keys.task_history(subjects.task_id), kind, subjects) end
  if subjects.agent_id and kind:sub(1, 6) == 'agent_' then remember(keys.agent_history(subjects.agent_id), kind, subjects) end
  local record = {event_type = kind, message = message, timestamp = rfc3339(NOW)}
  for name, value in pairs(subjects) do record[name] = value end
  local data = cjson.encode(record)
  local id
  if call('HEXISTS', keys.counters(), 'events_kept') == 1 then
    id = call('XADD', keys.events(), '*', 'event_type', kind, 'data', data)
  else
    id = call('XADD', keys.events(), 'MAXLEN', '~', EVENTS_LENGTH, '*', 'event_type', kind, 'data', data)
  end
  if subjects.agent_id then
    -- The stream begins with the agent: what is told of an agent that is gone must not bring it back.
    local own = keys.agent_events(subjects.agent_id)
    local known = call('XADD', own, 'NOMKSTREAM', 'MAXLEN', '~', AGENT_EVENTS_LENGTH, '*', 'event_type', kind, 'data', data)
    if not known and kind == 'agent_spawned' then call('XADD', own, '*', 'event_type', kind, 'data', data) end
  end
  return id
end
