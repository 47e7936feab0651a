import test from 'ava';
import { holds, isSet, parseConfig, quote } from '../../kernels/config.ts';

const config = parseConfig(
  [
    '# Linux/x86 6.1.1 Kernel Configuration',
    'CONFIG_SMP=y',
    '# CONFIG_NUMA is not set',
    'CONFIG_NR_CPUS=8192',
    'CONFIG_VIRTIO=m',
    'CONFIG_LOCALVERSION="-x"',
    'CONFIG_HZ=100',
    'CONFIG_HZ=250',
  ].join('\n'),
);

test('values, unset options, modules, quotes, and the last of two lines', (t) => {
  t.deepEqual(
    { ...config },
    {
      CONFIG_SMP: 'y',
      CONFIG_NUMA: 'n',
      CONFIG_NR_CPUS: '8192',
      CONFIG_VIRTIO: 'm',
      CONFIG_LOCALVERSION: '-x',
      CONFIG_HZ: '250',
    },
  );
});

test('#ifdef holds for y and values, not for modules, unset and unknown options', (t) => {
  t.true(isSet(config, 'CONFIG_SMP'));
  t.true(isSet(config, 'CONFIG_NR_CPUS'));
  t.false(isSet(config, 'CONFIG_VIRTIO'));
  t.false(isSet(config, 'CONFIG_NUMA'));
  t.false(isSet(config, 'CONFIG_NEVER_HEARD_OF'));
  t.false(isSet(config, 'toString'));
});

test('conditions: and binds tighter than or', (t) => {
  t.true(holds(config, 'CONFIG_NUMA && CONFIG_NUMA || CONFIG_SMP'));
  t.false(holds(config, 'CONFIG_SMP && CONFIG_NUMA'));
  t.true(holds(config, 'CONFIG_SMP && !CONFIG_NUMA'));
});

test('a condition is quoted as the lines of the file', (t) => {
  t.is(
    quote(config, 'CONFIG_SMP && !CONFIG_NUMA || CONFIG_X'),
    'CONFIG_SMP=y, # CONFIG_NUMA is not set, CONFIG_X is not mentioned',
  );
});
