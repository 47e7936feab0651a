import test from 'ava';
import fc from 'fast-check';
import { DomschedError } from '../../../runtime/error.ts';
import { JsonStream } from '../../../runtime/hypervisor/qemu/json-stream.ts';
import { QmpClient } from '../../../runtime/hypervisor/qemu/qmp-client.ts';
import { GREETING, obedient, ScriptedServer } from './qmp-server.ts';

/** For what must not come; what must come has all the time of a busy machine. */
const QUICK_MS = 300;
const PATIENT = { greetingTimeoutMs: 60_000, timeoutMs: 60_000 };

test('negotiates, delivers answers by their id and events in between', async (t) => {
  await using server = await ScriptedServer.start(
    (socket) => socket.write(GREETING),
    (socket, line) => {
      const { execute, id } = JSON.parse(line);
      if (execute === 'second') return;
      // Answers to both, in the wrong order, with an event between, cut into pieces.
      const text =
        execute === 'qmp_capabilities'
          ? `{"return": {}, "id": ${id}}\r\n`
          : `{"return": "b", "id": ${id + 1}}\r\n{"event": "STOP", "timestamp": {}}\r\n{"return": "ä", "id": ${id}}\r\n`;
      const bytes = Buffer.from(text);
      for (let i = 0; i < bytes.length; i += 7) socket.write(bytes.subarray(i, i + 7));
    },
  );
  const client = await QmpClient.connect(server.path, PATIENT);
  const events: string[] = [];
  client.onEvent(({ event }) => events.push(event));
  const answers = await Promise.all([client.execute('first'), client.execute('second')]);
  t.deepEqual(answers, ['ä', 'b']);
  t.deepEqual(events, ['STOP']);
  client.close();
});

test('a server that accepts but does not greet is no QMP socket; one that speaks otherwise is quoted', async (t) => {
  await using silent = await ScriptedServer.start(() => undefined);
  const unknown = await t.throwsAsync(QmpClient.connect(silent.path, { greetingTimeoutMs: QUICK_MS }), {
    instanceOf: DomschedError,
  });
  t.is(unknown.code, 'protocol');
  t.regex(unknown.message, /no QMP socket.*name the socket of -qmp/);
  await using monitor = await ScriptedServer.start((socket) =>
    socket.write('QEMU 7.2.22 monitor\r\n(qemu) '),
  );
  const spoken = await t.throwsAsync(QmpClient.connect(monitor.path, PATIENT), { instanceOf: DomschedError });
  t.is(spoken.code, 'protocol');
  t.regex(spoken.message, /"QEMU 7.2.22 monitor"; name the socket of -qmp/);
});

test('messages go over as many lines as they like, or share one', async (t) => {
  const pretty = (value: unknown) => JSON.stringify(value, null, 4).replaceAll('\n', '\r\n');
  const odd = { text: 'a "}" and a \\ and {{', list: [{ a: {} }, []] };
  await using server = await ScriptedServer.start(
    (socket) => socket.write(`${pretty(JSON.parse(GREETING))}\r\n`),
    (socket, line) => {
      const { id } = JSON.parse(line);
      const answer = pretty({ return: odd, id });
      socket.write(`{"event": "STOP"}${pretty({ event: 'RESUME', data: odd })}\r\n\r\n${answer}\r\n`);
    },
  );
  const client = await QmpClient.connect(server.path, PATIENT);
  const events: string[] = [];
  client.onEvent(({ event }) => events.push(event));
  t.deepEqual(await client.execute('anything'), odd);
  t.deepEqual(events, ['STOP', 'RESUME']);
  client.close();
});

test('objects that never end are handed on at the limit, and cost no more than their length', (t) => {
  const stream = new JsonStream(1000);
  const lines = Array.from({ length: 100_000 }, () => stream.add('{'));
  t.true(lines.flat().length > 100);
  t.true(lines.flat().every((text) => text.length < 1010));
  fc.assert(
    fc.property(fc.array(fc.jsonValue()), (values) => {
      const whole = new JsonStream(1e6);
      const texts = values.map((value) => JSON.stringify({ value }, null, 1).split('\n'));
      const found = texts.flat().flatMap((line) => whole.add(line));
      t.deepEqual(
        found.map((text) => JSON.stringify(JSON.parse(text))),
        values.map((value) => JSON.stringify({ value })),
      );
    }),
  );
});

test('no socket, and a socket that nobody serves', async (t) => {
  const absent = await t.throwsAsync(QmpClient.connect('/nonexistent/qmp.sock'), {
    instanceOf: DomschedError,
  });
  t.is(absent.code, 'host-unreachable');
  t.is(absent.details.errno, 'ENOENT');
});

test('a command without an answer times out alone; its late answer is passed over', async (t) => {
  let late = '';
  await using server = await ScriptedServer.start(
    (socket) => socket.write(GREETING),
    (socket, line) => {
      if (line.includes('slow')) late = line;
      else {
        if (line.includes('quick')) obedient(socket, late);
        obedient(socket, line);
      }
    },
  );
  const client = await QmpClient.connect(server.path, PATIENT);
  await t.throwsAsync(client.execute('slow', {}, QUICK_MS), { code: 'timeout' });
  t.deepEqual(await client.execute('quick'), {});
  client.close();
});

test('a refusal carries the words of QEMU', async (t) => {
  await using server = await ScriptedServer.start(
    (socket) => socket.write(GREETING),
    (socket, line) => {
      const { execute, id } = JSON.parse(line);
      if (execute === 'qmp_capabilities') obedient(socket, line);
      else socket.write(`{"error": {"class": "GenericError", "desc": "no such thing"}, "id": ${id}}\r\n`);
    },
  );
  const client = await QmpClient.connect(server.path, PATIENT);
  const error = await t.throwsAsync(client.execute('nonsense'), { instanceOf: DomschedError });
  t.is(error.code, 'protocol');
  t.is(error.details.description, 'no such thing');
  client.close();
});

test('the server ends: every pending command is told, later ones too', async (t) => {
  await using server = await ScriptedServer.start(
    (socket) => socket.write(GREETING),
    (socket, line) => {
      if (line.includes('qmp_capabilities')) obedient(socket, line);
      else if (line.includes('last')) socket.destroy();
    },
  );
  const client = await QmpClient.connect(server.path, PATIENT);
  const ended: DomschedError[] = [];
  client.onEnd((error) => ended.push(error));
  const results = await Promise.allSettled([
    client.execute('a'),
    client.execute('b'),
    client.execute('last'),
  ]);
  for (const result of results) t.is(result.status === 'rejected' && result.reason.code, 'domain-gone');
  await t.throwsAsync(client.execute('later'), { code: 'domain-gone' });
  t.is(ended.length, 1);
});

test('a line without end is cut off with a typed error', async (t) => {
  await using server = await ScriptedServer.start((socket) => {
    const block = Buffer.alloc(1024 * 1024, 0x61);
    for (let i = 0; i < 20; i++) socket.write(block);
  });
  await t.throwsAsync(QmpClient.connect(server.path, PATIENT), { code: 'protocol' });
});

test('garbage at any moment is a typed error and never a hang', async (t) => {
  const messages = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    fc.json().map((text) => Buffer.from(`${text}\n`)),
    fc.constantFrom(
      '{"return": {}, "id": 1}\n',
      '{"return": {}, "id": 99999}\n',
      '{"return": {}}\n',
      '{"id": "x", "error": null}\n',
      '{"event": {}}\n',
      '{"event": "STOP", "data": [1]}\n',
      '{"error": 7, "id": 2}\n',
      'null\n',
      '[]\n',
      GREETING,
    ),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(messages, { maxLength: 8 }), fc.boolean(), async (garbage, greets) => {
      await using server = await ScriptedServer.start(
        (socket) => {
          if (greets) socket.write(GREETING);
          else for (const part of garbage) socket.write(part);
        },
        (socket, line) => {
          if (line.includes('qmp_capabilities')) obedient(socket, line);
          else for (const part of garbage) socket.write(part);
        },
      );
      try {
        const client = await QmpClient.connect(server.path, { greetingTimeoutMs: 40, timeoutMs: 40 });
        await client.execute('query-status').finally(() => client.close());
      } catch (error) {
        return error instanceof DomschedError && ['protocol', 'timeout', 'domain-gone'].includes(error.code);
      }
      return true;
    }),
    { numRuns: 200 },
  );
  t.pass();
});
