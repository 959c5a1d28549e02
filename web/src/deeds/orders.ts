// What the requests of deeds are made of.
import type { Json, Order } from '../api';

export function post(at: string, body: Json | undefined, cli?: string): Order {
  return { method: 'POST', path: at, body, cli };
}

/** The members that say something. */
export function told(members: Record<string, Json | undefined>): Record<string, Json> {
  return Object.fromEntries(
    Object.entries(members).filter((entry): entry is [string, Json] => entry[1] !== undefined && entry[1] !== ''),
  );
}

export const idOf = (answer: Json, member: string): string => {
  const found = answer !== null && typeof answer === 'object' && !Array.isArray(answer) ? answer[member] : undefined;
  return typeof found === 'string' ? found : '';
};
