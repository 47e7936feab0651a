import { readFileSync } from 'node:fs';

/** A kernel's options by name, with `CONFIG_`; values as in the file, strings without quotes. */
export type KernelConfig = Readonly<Record<string, string>>;

/**
 * Parses a kernel's `.config`, as in `/boot/config-*`. An option that is "not set" has the value `n`; one that the file
 * does not mention is absent. Later lines win, as in the kernel's own build.
 */
export function parseConfig(text: string): KernelConfig {
  const config: Record<string, string> = Object.create(null);
  for (const line of text.split('\n')) {
    const set = /^(CONFIG_\w+)=(.*)$/.exec(line);
    const unset = /^# (CONFIG_\w+) is not set$/.exec(line);
    if (set) config[set[1]!] = set[2]!.replace(/^"(.*)"$/, '$1');
    else if (unset) config[unset[1]!] = 'n';
  }
  return config;
}

/** Reads and parses a `.config`. @throws the file system's error */
export function readConfig(file: string): KernelConfig {
  return parseConfig(readFileSync(file, 'utf8'));
}

/**
 * Whether `#ifdef OPTION` is true in the kernel's source: for `y` and for values, but not for `m`, where the kernel
 * defines `OPTION_MODULE` instead.
 */
export function isSet(config: KernelConfig, option: string): boolean {
  const value = config[option];
  return value !== undefined && value !== 'n' && value !== 'm';
}

/** A condition on options, spelled as in the kernel's sources: `CONFIG_A && !CONFIG_B || CONFIG_C`. */
export type ConfigCondition = string;

/** Evaluates a condition; `&&` binds tighter than `||`, and there are no brackets. */
export function holds(config: KernelConfig, condition: ConfigCondition): boolean {
  return condition.split('||').some((all) =>
    all.split('&&').every((term) => {
      const option = term.trim();
      return option.startsWith('!') ? !isSet(config, option.slice(1)) : isSet(config, option);
    }),
  );
}

/** The lines of the config that a condition depends on, for messages. */
export function quote(config: KernelConfig, condition: ConfigCondition): string {
  const options = [...new Set(condition.match(/CONFIG_\w+/g))];
  return options
    .map((option) => {
      const value = config[option];
      if (value === undefined) return `${option} is not mentioned`;
      return value === 'n' ? `# ${option} is not set` : `${option}=${value}`;
    })
    .join(', ');
}
