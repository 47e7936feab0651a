import test from 'ava';
import { checkConfig, find } from '../../kernels/check-config.ts';
import { configRules } from '../../kernels/config-rules.ts';
import { type MeasuredFacts, readFacts, structsOf } from '../../kernels/facts.ts';

const variants = ['base', 'preempt', 'schedstats', 'up'];

function check(layout: MeasuredFacts, config: MeasuredFacts['config']) {
  return checkConfig({ structs: structsOf(layout) }, config);
}

for (const variant of variants) {
  test(`measured layouts of 2.6.16 (${variant}) agree with the configuration they were compiled with`, (t) => {
    const facts = check(readFacts(variant), readFacts(variant).config);
    t.true(facts.length >= 20, `only ${facts.length} rules applied`);
    t.deepEqual(
      facts.filter(({ agrees }) => !agrees),
      [],
    );
  });

  for (const other of variants.filter((name) => name !== variant)) {
    test(`a layout of 2.6.16 (${variant}) does not pass for one of ${other}`, (t) => {
      const wrong = check(readFacts(variant), readFacts(other).config).filter(({ agrees }) => !agrees);
      t.true(wrong.length > 0);
    });
  }
}

test('each single option that the variants differ in is noticed when it alone is turned round', (t) => {
  const base = readFacts('base');
  for (const option of [
    'CONFIG_SMP',
    'CONFIG_PREEMPT',
    'CONFIG_SCHEDSTATS',
    'CONFIG_NUMA',
    'CONFIG_CPUSETS',
  ]) {
    const turned = { ...base.config, [option]: base.config[option] === 'y' ? 'n' : 'y' };
    const wrong = check(base, turned).filter(({ agrees }) => !agrees);
    t.true(
      wrong.some(({ options }) => options.includes(option)),
      `${option} was turned round without a rule noticing`,
    );
  }
  const fewer = check(base, { ...base.config, CONFIG_NR_CPUS: '65' }).filter(({ agrees }) => !agrees);
  t.true(
    fewer.some(({ subject, expected }) => subject === 'task_struct.cpus_allowed' && expected === '16 bytes'),
  );
});

test('members of named and of anonymous inner structures are found, others are not', (t) => {
  const inner = { name: 'next', offset: 4, size: 4, type: 'int', kind: 'int' as const };
  const layout = {
    structs: {
      x: {
        name: 'x',
        sourceName: 'x',
        kind: 'struct' as const,
        size: 16,
        members: [
          {
            name: 'named',
            offset: 0,
            size: 8,
            type: 'struct {...}',
            kind: 'struct' as const,
            members: [inner],
          },
          { name: null, offset: 0, size: 8, type: 'union {...}', kind: 'union' as const, members: [inner] },
        ],
      },
    },
  };
  t.like(find(layout, 'x.named.next'), { offset: 4, size: 4 });
  t.like(find(layout, 'x.next'), { offset: 4, size: 4 });
  t.like(find(layout, 'x'), { offset: 0, size: 16 });
  t.is(find(layout, 'x.other'), null);
  t.is(find(layout, 'x.next.deeper'), null);
  t.is(find(layout, 'toString.x'), null);
});

test('every rule says where the kernel says so', (t) => {
  for (const { source, where, members } of configRules) {
    t.regex(source.file, /^(kernel|include|arch)\/.+\.[ch]$/);
    t.regex(source.release, /^\d+\.\d+/);
    t.true(where.length > 0 && members.length > 0);
  }
});
