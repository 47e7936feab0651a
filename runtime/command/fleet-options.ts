/** What can be done with the fleet's policy. */
export const POLICY_ACTIONS = ['get', 'set', 'check', 'history', 'rollback'] as const;

export type PolicyAction = (typeof POLICY_ACTIONS)[number];

export interface FleetOptions {
  config: string;
  comment: string;
  force?: true;
  json?: true;
}
