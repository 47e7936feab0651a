import { createHash, randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { closure, download } from '../../../kernels/apt.ts';
import { makeOnce } from '../../../kernels/make-once.ts';
import { projectDirectory } from '../../../kernels/paths.ts';

/** What a guest with the paper's two programs needs of Debian: these and their libraries. */
const PROGRAMS = ['lighttpd', 'tripwire'];
const LIBRARIES = /^lib(c6|crypt1|nettle\d|pcre2-8-0|xxhash0)$/;
/** The client, and its libraries beside those. */
const CLIENT = 'apache2-utils';
const CLIENT_LIBRARIES = /^lib(c6|crypt1|nettle\d|pcre2-8-0|xxhash0|apr1|aprutil1|ssl3|uuid1|expat1)$/;
/** Of the page that is served. */
export const PAGE_BYTES = 16_384;
const PHRASE = 'experiment';
/** Once kept, a root is of this recipe. */
const RECIPE = 1;

const FILES = {
  'etc/lighttpd.conf': 'server.document-root = "/srv/www"\nserver.port = 80\nserver.modules = ()\n',
  'etc/tripwire/twcfg.txt': [
    ...['ROOT =/usr/sbin', 'POLFILE =/etc/tripwire/tw.pol', 'DBFILE =/var/lib/tripwire/guest.twd'],
    ...['REPORTFILE =/var/lib/tripwire/report/last.twr', 'SITEKEYFILE =/etc/tripwire/site.key'],
    ...['LOCALKEYFILE =/etc/tripwire/local.key', 'EDITOR =/bin/false', 'LATEPROMPTING =false'],
    ...['LOOSEDIRECTORYCHECKING =true', 'MAILNOVIOLATIONS =false', 'EMAILREPORTLEVEL =3', 'REPORTLEVEL =3'],
    ...['MAILMETHOD =SMTP', 'SYSLOGREPORTING =false', 'TEMPDIRECTORY =/tmp', ''],
  ].join('\n'),
  // What is in the files and who may do what with them: inodes and times are the guest's own.
  'etc/tripwire/twpol.txt': '/usr -> +pMSH;\n/lib -> +pMSH;\n',
};

/** Sets tripwire up as its manual says, in the root itself, so that its database is of these very files. */
const SET_UP = [
  `twadmin --generate-keys -L /etc/tripwire/local.key -S /etc/tripwire/site.key -P ${PHRASE} -Q ${PHRASE}`,
  `twadmin --create-cfgfile -c /etc/tripwire/tw.cfg -S /etc/tripwire/site.key -Q ${PHRASE} /etc/tripwire/twcfg.txt`,
  `twadmin --create-polfile -c /etc/tripwire/tw.cfg -p /etc/tripwire/tw.pol -S /etc/tripwire/site.key -Q ${PHRASE} /etc/tripwire/twpol.txt`,
  `tripwire --init -c /etc/tripwire/tw.cfg -P ${PHRASE}`,
];

/**
 * All files of a guest with lighttpd and tripwire, made of Debian's packages once and kept.
 * @param client with `ab` too, for a guest that is its own client
 * @returns its folder
 */
export async function webRoot({ client = false } = {}): Promise<string> {
  const packages = client
    ? await closure([...PROGRAMS, CLIENT], CLIENT_LIBRARIES)
    : await closure(PROGRAMS, LIBRARIES);
  const hash = createHash('sha256');
  hash.update(JSON.stringify([RECIPE, packages.map(({ sha256 }) => sha256), FILES, SET_UP]));
  const place = path.join(
    projectDirectory,
    '.cache',
    'experiments',
    `web-${hash.digest('hex').slice(0, 16)}`,
  );
  return makeOnce(place, async (root) => {
    for (const folder of ['tmp', 'srv/www', 'etc/tripwire', 'var/lib/tripwire/report'])
      await mkdir(path.join(root, folder), { recursive: true });
    const downloads = `${root}.debs`;
    await mkdir(downloads);
    for (const wanted of packages) {
      const deb = await download(wanted, downloads);
      await execa('dpkg-deb', ['--extract', deb, root]);
    }
    for (const [file, text] of Object.entries(FILES)) await writeFile(path.join(root, file), text);
    await writeFile(path.join(root, 'srv/www/page'), randomBytes(PAGE_BYTES));
    for (const command of SET_UP)
      await execa('chroot', [root, ...command.replace(/^/, '/usr/sbin/').split(' ')]);
  });
}
