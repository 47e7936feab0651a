import path from 'node:path';
import type { EditRecords } from '../edit/log.ts';
import { DomschedError } from '../error.ts';
import type { Domain } from '../hypervisor/types.ts';
import { JournalHealth } from '../journal-health.ts';
import { runtimeDirectory } from '../runtime-directory.ts';
import type { ChangeRecord, HeldRecord } from '../surgeon/journal.ts';
import { CHANGE_RECORD, HELD_RECORD } from '../surgeon/journal-schema.ts';
import type { Journals } from '../surgeon/journaled-surgeon.ts';
import type { RecordStore } from '../surgeon/records.ts';
import type { BrokerClient } from './client.ts';
import { BrokeredDomain } from './domain.ts';

/**
 * Journals that the broker keeps for us.
 * @param own a folder for what the next reader alone has to find
 */
export function brokeredJournals(client: BrokerClient, own: string): Journals {
  const health = new BrokeredHealth(client);
  return {
    held: store(client, 'held', health, (json) => HELD_RECORD.parse(json)),
    changes: store(client, 'changed', health, (json) => CHANGE_RECORD.parse(json)),
    edits: new BrokeredEdits(client),
    directory: own,
    health,
  };
}

function store<T extends HeldRecord | ChangeRecord>(
  client: BrokerClient,
  journal: 'held' | 'changed',
  health: JournalHealth,
  parse: (json: unknown) => T,
): RecordStore<T> {
  return {
    async add(record) {
      try {
        await client.ask({ op: 'record', journal, record });
        health.works(path.join(runtimeDirectory(), journal));
      } catch (error) {
        if (error instanceof DomschedError && error.code === 'journal-failed') health.tell(error);
        throw error;
      }
    },
    async remove(record) {
      await client.ask({ op: 'forget', journal, record });
    },
    async list() {
      return (await client.ask({ op: 'records', journal })).map(parse);
    },
  };
}

/** The broker records each edit itself, before it writes. */
class BrokeredEdits implements EditRecords {
  readonly #client: BrokerClient;
  readonly #domains = new Map<string, BrokeredDomain>();

  constructor(client: BrokerClient) {
    this.#client = client;
  }

  begin({ domain, still }: Parameters<EditRecords['begin']>[0]): () => void {
    const known = this.#domains.get(domain);
    if (known !== undefined) known.still = still;
    return () => undefined;
  }

  async reserve(): Promise<void> {
    await this.#client.ask({ op: 'reserve' });
  }

  /** It was done when the machine was opened. */
  async recover(domain: Domain) {
    if (!(domain instanceof BrokeredDomain)) return 'nothing' as const;
    this.#domains.set(domain.identity.id, domain);
    return domain.recovery;
  }
}

class BrokeredHealth extends JournalHealth {
  readonly #client: BrokerClient;

  constructor(client: BrokerClient) {
    super();
    this.#client = client;
  }

  override probe(): void {
    const { failure } = this;
    if (failure === undefined) return;
    const works = () => this.works(String(failure.details.path));
    this.#client.ask({ op: 'probe' }).then(works, () => undefined);
  }
}
