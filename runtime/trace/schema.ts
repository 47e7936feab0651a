import { z } from 'zod';
import type { TickLine, TraceHeader } from './line.ts';

// Accepted content of a trace. Unknown keys are kept: a later domsched may know more.

export const TRACE_HEADER: z.ZodType<TraceHeader> = z.object({
  format: z.literal('domsched-trace/1'),
  producer: z.object({ name: z.literal('domsched'), version: z.string() }),
  id: z.string(),
  part: z.int().min(1),
  source: z.enum(['daemon', 'sampler']),
  host: z.string().exactOptional(),
  started: z.iso.datetime(),
});

const HELD = z.object({ policy: z.string(), reason: z.string(), since: z.string() });

const PROCESS = z.object({
  key: z.string(),
  pid: z.number().optional(),
  ppid: z.number().optional(),
  comm: z.string().optional(),
  state: z.enum(['running', 'ready', 'sleeping', 'parked', 'held', 'stopped', 'ended']).optional(),
  nice: z.number().optional(),
  kernelThread: z.boolean().optional(),
  cpuNs: z.number().optional(),
  ranNs: z.number().optional(),
  cpu: z.number().optional(),
  held: HELD.nullish(),
  heldFor: z.string().nullish(),
});

const DOMAIN = z.object({
  id: z.string(),
  name: z.string().optional(),
  hypervisor: z.string().optional(),
  kernel: z.string().nullish(),
  vcpus: z.number().optional(),
  weight: z.number().nullish(),
  cap: z.number().nullish(),
  overstated: z.literal(true).nullish(),
  error: z.object({ code: z.string(), message: z.string() }).nullish(),
  processes: z.array(PROCESS).optional(),
  gone: z.array(z.string()).optional(),
});

const ACTION = z.object({
  domain: z.string(),
  action: z.enum(['hold', 'release', 'nice', 'weight', 'cap']),
  key: z.string().optional(),
  pid: z.number().optional(),
  comm: z.string().optional(),
  policy: z.string(),
  reason: z.string(),
  outcome: z.enum(['done', 'refused', 'failed']),
  code: z.string().optional(),
  techniques: z.array(z.string()),
  pausedUs: z.number(),
});

const WAIT = z.object({
  domain: z.string(),
  comm: z.string(),
  culprit: z.object({ kind: z.string(), domain: z.string().optional(), comm: z.string().optional() }),
  place: z.enum(['guest', 'host']),
  ns: z.number(),
});

const FLEET = z.object({
  name: z.string().optional(),
  connected: z.boolean().optional(),
  sinceMs: z.number().optional(),
  listens: z.boolean().optional(),
  few: z.boolean().optional(),
  hosts: z.number().optional(),
  silent: z.array(z.string()).optional(),
  heard: z
    .array(
      z.object({
        host: z.string(),
        state: z.enum(['active', 'at rest', 'silent']),
        heardMs: z.number(),
        revision: z.number().optional(),
        classes: z.array(
          z.object({ domain: z.string(), comm: z.string(), share: z.number(), waits: z.boolean() }),
        ),
      }),
    )
    .optional(),
  gone: z.array(z.string()).optional(),
  sent: z.number().optional(),
  received: z.number().optional(),
  refused: z.record(z.string(), z.number()).optional(),
  policy: z
    .object({
      revision: z.number().optional(),
      at: z.string().optional(),
      by: z.string().optional(),
      comment: z.string().optional(),
      isCurrent: z.boolean(),
      ageMs: z.number().optional(),
      refused: z.object({ revision: z.number(), why: z.string() }).optional(),
    })
    .optional(),
});

export const TICK_LINE = z.object({
  tick: z.number(),
  time: z.iso.datetime(),
  ms: z.number(),
  elapsedMs: z.number().min(0),
  tookMs: z.number(),
  missed: z.number().min(0),
  early: z.literal(true).optional(),
  sentinel: z.object({ looks: z.number(), ms: z.number() }).optional(),
  full: z.literal(true).optional(),
  dropped: z.number().optional(),
  domains: z.array(DOMAIN),
  gone: z.array(z.string()).optional(),
  actions: z.array(ACTION),
  waits: z.array(WAIT).optional(),
  journal: z.object({ code: z.string(), message: z.string(), since: z.iso.datetime().optional() }).optional(),
  fleet: FLEET.nullish(),
}) as unknown as z.ZodType<TickLine>;
