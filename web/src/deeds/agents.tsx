// Workers and governed agents: begun, held, ended; calls that wait: agreed to or refused.
import { path, quoted } from '../api';
import { resource } from '../resource';
import { go, href } from '../route';
import type { Approval, Governed, Worker } from '../types';
import type { Deed } from '../ui/actions';
import { show, showRead } from '../ui/dialog';
import { FormDialog } from '../ui/forms';
import { idOf, post, told } from './orders';

export function spawnWorker(): void {
  show(() => (
    <FormDialog
      title="Spawn a worker"
      fields={[
        { name: 'name', label: 'Name', required: true, half: true },
        {
          name: 'cli',
          label: 'Agent CLI',
          half: true,
          hint: 'A built-in one, one of your settings, or a command line. Empty: the town’s default.',
        },
        { name: 'role', label: 'Role', half: true, rare: true },
        { name: 'nickname', label: 'Nickname', half: true, rare: true },
      ]}
      submit="Spawn"
      done="Worker started"
      make={(values) =>
        post(
          '/v1/agents',
          { name: values.name ?? '', ...told({ cli: values.cli, role_id: values.role, nickname: values.nickname }) },
          `tt spawn ${quoted(values.name ?? '')}${values.cli ? ` --cli ${quoted(values.cli)}` : ''}${values.role ? ` --role ${quoted(values.role)}` : ''}`,
        )
      }
      onDone={(answer) => go(href('agents', 'workers', idOf(answer, 'agent_id')))}
    />
  ));
}

export function workerDeeds(worker: Worker): Deed[] {
  const at = path`/v1/agents/${worker.id}`;
  const name = quoted(worker.name);
  const over = ['Stopped', 'Dead', 'Killed', 'Failed', 'Error'].includes(worker.state);
  const deeds: Deed[] = [];
  if (over)
    deeds.push({
      label: 'Restart',
      done: `${worker.name} starts again`,
      tone: 'main',
      ...post(`${at}/restart`, undefined, `tt restart ${name}`),
    });
  else {
    if (worker.state === 'Paused')
      deeds.push({
        label: 'Resume',
        done: `${worker.name} goes on`,
        tone: 'main',
        ...post(`${at}/resume`, undefined, `tt resume ${name}`),
      });
    else
      deeds.push({
        label: 'Pause',
        done: `${worker.name} is frozen`,
        ...post(`${at}/interrupt`, undefined, `tt interrupt ${name}`),
      });
    deeds.push({
      label: 'Close',
      done: `${worker.name} finishes what it has and leaves`,
      ...post(`${at}/close`, undefined, `tt close ${name}`),
    });
    deeds.push({
      label: 'Kill',
      done: `${worker.name} is ended`,
      tone: 'danger',
      confirm: `${worker.name} is ended now; its task returns to its queue.`,
      ...post(`${at}/kill`, undefined, `tt kill ${name}`),
    });
  }
  return deeds;
}

const SPAWN = 'Spawn a governed agent';
const MANIFEST = `apiVersion: scarab/v1
kind: AgentManifest
metadata:
  name: reader
  version: 1.0.0
spec:
  trust_level: sandboxed
  capabilities:
    - obs.append
`;

export function spawnGoverned(): void {
  const installed = resource<{ name: string }[]>('/store/agents');
  showRead(SPAWN, installed.read(), () => {
    const names = (installed.data.peek() ?? []).map((one) => one.name);
    return (
      <FormDialog
        title={SPAWN}
        fields={[
          {
            name: 'name',
            label: 'Installed agent',
            kind: 'choice',
            required: true,
            choices: [['', 'By a manifest'], ...names.map((name): [string, string] => [name, name])],
          },
          {
            name: 'manifest',
            label: 'Manifest',
            kind: 'area',
            required: true,
            value: MANIFEST,
            hint: 'What it may touch, in YAML.',
            when: (values) => !values.name,
          },
          { name: 'task', label: 'Task', kind: 'area', hint: 'Instead of the one in the manifest.' },
        ]}
        submit="Spawn"
        done="Agent started"
        make={(values) =>
          post(
            '/agents',
            {
              ...(values.name ? { name: values.name } : { manifest_yaml: values.manifest ?? '' }),
              ...told({ task_override: values.task }),
            },
            (values.name ? `ash agent run ${quoted(values.name)}` : 'ash spawn MANIFEST.yaml') +
              (values.task ? ` --task ${quoted(values.task)}` : ''),
          )
        }
        onDone={(answer) => go(href('agents', 'governed', idOf(answer, 'id')))}
      />
    );
  });
}

export function governedDeeds(agent: Governed): Deed[] {
  const at = path`/agents/${agent.id}`;
  if (!['running', 'paused'].includes(agent.status)) return [];
  const pause: Deed =
    agent.status === 'paused'
      ? {
          label: 'Resume',
          done: `${agent.name} goes on`,
          tone: 'main',
          ...post(`${at}/resume`, undefined, `ash resume ${agent.id}`),
        }
      : {
          label: 'Pause',
          done: `${agent.name} is stopped where it is`,
          ...post(`${at}/pause`, undefined, `ash pause ${agent.id}`),
        };
  return [
    pause,
    {
      label: 'End',
      done: `${agent.name} is ended`,
      tone: 'danger',
      method: 'DELETE',
      path: at,
      cli: `ash kill ${agent.id}`,
      confirm: `${agent.name} and all agents that it started are ended.`,
    },
  ];
}

export function killDeed(target: string, name: string, quarantine: boolean): Deed {
  return {
    label: quarantine ? 'Quarantine' : 'Kill',
    tone: 'danger',
    done: `${name} can do nothing more`,
    confirm: quarantine
      ? `${name} can do nothing more from this moment on: its token is revoked, its machine frozen and kept, its task held.`
      : `${name} can do nothing more from this moment on: its token is revoked, its machine goes, its lease is fenced.`,
    ...post(
      '/v1/kill',
      { target, quarantine, reason: 'from the dashboard' },
      `borough kill ${quoted(target)}${quarantine ? ' --quarantine' : ''}`,
    ),
  };
}

export function approvalDeeds(approval: Approval): [Deed, Deed] {
  const at = path`/approvals/${approval.request_id}`;
  return [
    {
      label: 'Approve',
      tone: 'main',
      done: `${approval.tool_name} goes ahead`,
      ...post(`${at}/approve`, {}, `ash approve ${approval.request_id}`),
    },
    {
      label: 'Deny',
      tone: 'danger',
      done: `${approval.tool_name} is refused`,
      ...post(`${at}/deny`, {}, `ash deny ${approval.request_id}`),
    },
  ];
}
