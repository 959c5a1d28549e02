// What the server's documents hold, as far as it is shown here.
import type { Json } from './api';

export interface Task {
  task_id: string;
  description: string;
  kind: string;
  state: string;
  role: string | null;
  urgent: boolean;
  tags: string[];
  sender: string;
  parent_id: string | null;
  agent_id: string | null;
  attempts: number;
  max_attempts: number;
  epoch: number;
  timeout_secs: number | null;
  created_at: string;
  updated_at: string;
  started_at: string | null;
  completed_at: string | null;
  not_before: string | null;
  lease_expires_at: string | null;
  result: string | null;
  last_error: string | null;
}

export interface HistoryEntry {
  at: string;
  event: string;
  old_state: string | null;
  new_state: string | null;
  agent_id: string | null;
  attempt: number | null;
  reason: string | null;
}

export interface Explanation {
  subject: string;
  state: string;
  why: string;
  since: string;
  deadline: string | null;
  next: string[];
}

export interface Worker {
  id: string;
  name: string;
  nickname: string | null;
  role_id: string | null;
  cli: string;
  state: string;
  state_since: string;
  reason: string | null;
  current_task: string | null;
  rounds_completed: number;
  tasks_completed: number;
  inbox_len: number;
  urgent_len: number;
  created_at: string;
  last_heartbeat: string;
  lease_expires_at: string | null;
  live: boolean;
  host: string | null;
  pid: number | null;
  boxed?: boolean | null;
  not_boxed_because?: string | null;
  history?: HistoryEntry[];
}

export interface TownStatus {
  name: string;
  root: string;
  agent_count: number;
  agents: Worker[];
  tasks: Record<string, number> | null;
}

export interface Governed {
  id: string;
  name: string;
  state: string;
  trust_level: string;
  version: string;
  status: string;
  run_id: string;
  parent_id: string | null;
  spawned_at: string;
  uptime_secs: number;
}

export interface Amounts {
  calls: number | null;
  tokens: number | null;
  cost: number | null;
  wall_time_secs: number | null;
}

export interface GovernedDetail extends Governed {
  description: string | null;
  manifest_digest: string;
  capabilities: string[];
  depth: number;
  ended_at: string | null;
  task: string | null;
  tainted: boolean;
  budget: Amounts;
  spent: Amounts;
  restarts: number;
  exit_code: number | null;
  last_error: string | null;
  has_process: boolean;
  plan: { description: string; tool: string | null }[];
  pending_approvals: number;
  network: { policy: string; allowlist: string[] };
  enforcement: { backend: string; layers: Record<string, boolean>; reasons: Record<string, string> } | null;
}

export interface Approval {
  request_id: string;
  agent_id: string;
  tool_name: string;
  input: Json;
  submitted_at: string;
  expires_at: string;
  status: string;
  rule: string;
  needed: number;
  approved_by: string[];
}

export interface Entry {
  id: string;
  seq: number;
  agent_id: string;
  agent_name: string;
  action: string;
  detail: string;
  outcome: string;
  kind: 'intent' | 'outcome' | 'event';
  timestamp: string;
  via: string;
  hash: string;
  prev_hash: string;
  on_behalf_of?: string;
  intent_id?: string;
  run_id?: string;
  token_name?: string;
  decision_rule?: string;
  policy_id?: string;
  data?: Record<string, Json>;
}

export interface Verified {
  ok: boolean;
  first_seq: number;
  entries: number;
  next_seq: number | null;
  head: string;
  first_bad: number | null;
  reason: string | null;
  checkpoint: string;
}

export interface FleetStatus {
  hosts: number;
  hosts_online: number;
  total_vms: number;
  total_envs: number;
  cpu_total: number;
  cpu_used: number;
  mem_total: number;
  mem_used: number;
  disk_total: number;
  disk_used: number;
}

export interface Offer {
  engine: string;
  version: string;
  capabilities: string[];
  reasons: Record<string, string>;
  acceleration?: string;
}

export interface Host {
  id: string;
  addr: string;
  resource: {
    cpu_total: number;
    cpu_used: number;
    mem_total: number;
    mem_used: number;
    disk_total: number;
    disk_used: number;
    vm_count: number;
  };
  state: string;
  engines: string[];
  storage: string;
  registered_at: number;
  heard_at?: number;
  labels?: Record<string, string>;
  cordoned?: boolean;
  draining?: boolean;
  error?: string;
  offers?: Offer[];
  images?: string[];
  warnings?: string[];
}

export interface Environment {
  id: string;
  owner: string;
  vm_ids: string[];
  created_at: number;
  expires_at: number;
  state: string;
  on_expiry?: string;
  labels?: Record<string, string>;
}

export interface Machine {
  id: string;
  env_id: string;
  host_id: string;
  image: string;
  engine: string;
  cpu: number;
  mem: number;
  disk: number;
  ip: string;
  port_map: Record<string, number>;
  state: string;
  created_at: number;
  since?: number;
  error?: string;
}

export interface Image {
  name: string;
  host_id: string;
  digest?: string;
}

export interface Admission {
  ok: boolean;
  engine: string | null;
  host_id: string | null;
  image: string | null;
  isolation: string | null;
  trust_level: string | null;
  capabilities: string[];
  domains: string[];
  budget: Record<string, number | null> | null;
  start: string | null;
  expected_start_ms: number | null;
  reasons: { subject: string; reason: string }[];
}

export interface Run {
  id: string;
  task: string;
  task_id: string | null;
  state: string;
  reason: string | null;
  resolution: string | null;
  next: string | null;
  since: string;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  attempt: number;
  max_attempts: number;
  quarantined?: boolean;
  agent: { id: string; name: string; trust_level: string; manifest_digest: string } | null;
  admission: Admission | null;
  machine: { env_id: string; vm_id: string; host_id: string; engine: string; state: string } | null;
  budget: Record<string, number | null> | null;
  spent: Record<string, number | null> | null;
  result: {
    answer: string | null;
    exit_code: number | null;
    files_changed: { path: string; kind: string }[];
    patch_bytes: number;
  } | null;
  labels: Record<string, string>;
}

export interface Attention {
  id: string;
  kind: string;
  title: string;
  why: string;
  since: string;
  urgency: string;
  subject: { kind: string; id: string; name: string | null } | null;
  safe_default: string | null;
  deadline: string | null;
  actions: { label: string; method: string; path: string; body: Json; command: string | null }[];
}

export type Inbox = {
  total: number;
  urgent: number;
  messages: { id: string; from: string; type: string; summary: string; urgent: boolean }[];
};

export interface Pool {
  role: string;
  state: string;
  image: string;
  engine: string;
  manifest: string | null;
  command: string[];
  min: number;
  max: number;
  warm: number;
  quiet_s: number;
  cpu: number;
  memory_mib: number;
  disk_mib: number;
  desired: number | null;
  workers: number;
  held: string | null;
  trouble: { reason: string; count: number; next_try_at: string } | null;
  machines: { vm_id: string; env_id: string; state: string | null; use: string; agent: string | null; since: string; reason: string }[];
  last_step: PoolStep | null;
}

export interface PoolStep {
  at: string;
  from: number;
  to: number;
  reason: string;
}
