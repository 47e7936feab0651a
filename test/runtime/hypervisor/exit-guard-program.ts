import { writeSync } from 'node:fs';
import process from 'node:process';
import { onExit } from '../../../runtime/hypervisor/exit-guard.ts';

// A program that has something to do at its end, and is ended by the test in the way that it is told.
const [, , how] = process.argv;
const STDOUT = 1;
if (how === 'own-handler') {
  process.once('SIGTERM', () => {
    writeSync(STDOUT, 'own way out\n');
    process.exit(7);
  });
}
const takeBack = onExit(() => writeSync(STDOUT, 'action\n'));
if (how === 'taken-back') takeBack();
if (how === 'until-told') {
  process.stdin.once('data', () => {
    writeSync(STDOUT, 'no more\n');
    takeBack();
  });
}
writeSync(STDOUT, 'ready\n');
setTimeout(() => undefined, 60_000);
