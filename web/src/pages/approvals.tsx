// Calls that wait for somebody's agreement.
import { path } from '../api';
import { useResource } from '../resource';
import type { Approval } from '../types';
import { Action, type Deed } from '../ui/actions';
import { Ago, Badge, Code, Empty, Heading, Loading, Panel, Trouble } from '../ui/parts';
import { ApprovalCard, GOVERNANCE, useNames } from './shared';

interface Escalation {
  escalation_id: string;
  from_agent_id: string;
  to_agent_id: string | null;
  kind: string;
  detail: string;
  created_at: string;
  state: string;
}

interface Proposal {
  proposal_id: string;
  agent_id: string;
  tool: { name: string; description: string };
  runtime: string | null;
  code: string | null;
  created_at: string;
}

function proposalDeeds(proposal: Proposal): Deed[] {
  const at = path`/tool-proposals/${proposal.proposal_id}`;
  const { name } = proposal.tool;
  return [
    {
      label: 'Deny',
      tone: 'danger',
      done: `${name} is refused`,
      method: 'POST',
      path: `${at}/deny`,
      cli: `ash tools deny ${proposal.proposal_id}`,
    },
    {
      label: 'Approve',
      tone: 'main',
      done: `${name} can be called`,
      method: 'POST',
      path: `${at}/approve`,
      body: {},
      cli: `ash tools approve ${proposal.proposal_id}`,
    },
  ];
}

function escalationDeeds(one: Escalation): Deed[] {
  const order = (label: string, decision: string, done: string, tone?: 'main' | 'danger'): Deed => ({
    label,
    done,
    ...(tone ? { tone } : {}),
    method: 'POST',
    path: path`/escalations/${one.escalation_id}/resolve`,
    body: { decision },
  });
  return [order('Deny', 'deny', 'It is denied', 'danger'), order('Approve', 'approve', 'It is approved', 'main')];
}

export function Approvals() {
  const waiting = useResource<Approval[]>('/approvals', { ...GOVERNANCE, every: 3000 });
  const proposals = useResource<Proposal[]>('/tool-proposals?state=proposed', GOVERNANCE);
  const escalations = useResource<Escalation[]>('/escalations', GOVERNANCE);
  const name = useNames();
  return (
    <>
      <Heading title="Approvals" />
      {waiting.error && !waiting.data && <Trouble error={waiting.error} what="Approvals" />}
      {!waiting.data && !waiting.error && <Loading />}
      {waiting.data?.length === 0 && (
        <Empty title="No call waits for you">
          <p>
            A manifest may say that a tool needs agreement. Its call then waits here, with what it wants to do, until
            somebody decides or its time is over: then it is refused.
          </p>
        </Empty>
      )}
      <div class="stack" aria-live="polite">
        {waiting.data?.map((approval) => (
          <ApprovalCard key={approval.request_id} approval={approval} name={name(approval.agent_id)} />
        ))}
      </div>
      {Boolean(proposals.data?.length) && (
        <Panel title="Proposed tools">
          <div class="stack">
            {proposals.data?.map((proposal) => (
              <article class="card" key={proposal.proposal_id}>
                <div class="row wrap">
                  <strong>{proposal.tool.name}</strong>
                  <span class="dim small">
                    by {name(proposal.agent_id)}, <Ago at={proposal.created_at} />
                  </span>
                  <span class="grow" />
                  {proposalDeeds(proposal).map((deed) => (
                    <Action key={deed.label} deed={deed} />
                  ))}
                </div>
                <p class="small">{proposal.tool.description}</p>
                {proposal.code && <Code label="the code">{proposal.code}</Code>}
              </article>
            ))}
          </div>
        </Panel>
      )}
      {Boolean(escalations.data?.length) && (
        <Panel title="Escalations">
          <ul class="plain">
            {escalations.data?.map((one) => (
              <li class="line wrap" key={one.escalation_id}>
                <Badge state="waiting" label={one.kind} />
                <span>{name(one.from_agent_id)}</span>
                <span class="dim">{one.detail}</span>
                <span class="grow" />
                <Ago at={one.created_at} />
                {escalationDeeds(one).map((deed) => (
                  <Action key={deed.label} deed={deed} small />
                ))}
              </li>
            ))}
          </ul>
        </Panel>
      )}
    </>
  );
}
