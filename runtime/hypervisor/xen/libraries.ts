import path from 'node:path';
import koffi from 'koffi';
import { DomschedError } from '../../error.ts';

/** Releases whose structures were compared, see structures.ts. Newest first. */
const VERSIONS = ['4.21', '4.20', '4.19', '4.18', '4.17', '4.16', '4.15', '4.14'] as const;

type Native = ReturnType<ReturnType<typeof koffi.load>['func']>;

/** The functions of Xen's libraries that we call. Only libxenctrl changes its interface between releases. */
export interface XenLibraries {
  /** Release of libxenctrl. */
  readonly version: string;
  readonly xc_interface_open: Native;
  readonly xc_interface_close: Native;
  readonly xc_version: Native;
  readonly xc_domain_getinfolist: Native;
  readonly xc_domain_pause: Native;
  readonly xc_domain_unpause: Native;
  readonly xc_domain_get_guest_width: Native;
  readonly xc_vcpu_getinfo: Native;
  readonly xc_vcpu_getcontext: Native;
  readonly xc_domain_hvm_getcontext_partial: Native;
  readonly xc_sched_id: Native;
  readonly xc_sched_credit_domain_get: Native;
  readonly xc_sched_credit_domain_set: Native;
  readonly xc_sched_credit2_domain_get: Native;
  readonly xc_sched_credit2_domain_set: Native;
  readonly xenforeignmemory_open: Native;
  readonly xenforeignmemory_close: Native;
  readonly xenforeignmemory_map2: Native;
  readonly xtl_createlogger_stdiostream: Native;
  /** Undefined without libxendevicemodel; then no interrupt can be sent. */
  readonly deviceModel: DeviceModelLibrary | undefined;
  /** Undefined without libxenstore; then domains have no names. */
  readonly store: StoreLibrary | undefined;
}

export interface DeviceModelLibrary {
  readonly xendevicemodel_open: Native;
  readonly xendevicemodel_close: Native;
  readonly xendevicemodel_inject_msi: Native;
}

export interface StoreLibrary {
  readonly xs_open: Native;
  readonly xs_close: Native;
  readonly xs_read: Native;
  readonly memcpy: Native;
  readonly free: Native;
}

/**
 * Loads Xen's libraries, with the libxenctrl of the hypervisor's own release if that is known.
 * @param version release of the hypervisor, such as `4.17`
 * @param directory directory of the libraries; the loader's own places when left out
 * @throws DomschedError `host-unreachable` when one is missing or lacks a function
 */
export function loadLibraries(version?: string, directory?: string): XenLibraries {
  const load = (sonames: readonly string[], needed: string) => {
    const failures: string[] = [];
    for (const soname of sonames) {
      try {
        return {
          soname,
          library: koffi.load(directory === undefined ? soname : path.join(directory, soname)),
        };
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    throw new DomschedError('host-unreachable', `none of ${sonames.join(', ')} can be loaded: ${needed}`, {
      sonames,
      failures,
    });
  };
  const optional = (sonames: readonly string[]) => {
    try {
      return load(sonames, '').library;
    } catch {
      return undefined;
    }
  };
  const supported = version === undefined || (VERSIONS as readonly string[]).includes(version);
  if (!supported) {
    throw new DomschedError(
      'host-unreachable',
      `Xen ${version} is none of the releases that this program knows: ${VERSIONS.toReversed().join(', ')}`,
      { version },
    );
  }
  const wanted = version === undefined ? VERSIONS : [version];
  const control = load(
    wanted.map((release) => `libxenctrl.so.${release}`),
    `install Xen's libraries of the hypervisor's own release (Debian: libxenmisc${version ?? 'VERSION'})`,
  );
  const foreign = load(
    ['libxenforeignmemory.so.1'],
    "install Xen's libraries (Debian: libxenforeignmemory1)",
  );
  const log = load(['libxentoollog.so.1'], "install Xen's libraries (Debian: libxentoollog1)");
  const libc = koffi.load('libc.so.6');
  const bind = (
    { soname, library }: { soname: string; library: ReturnType<typeof koffi.load> },
    declaration: string,
  ): Native => {
    try {
      return library.func(declaration);
    } catch (cause) {
      throw new DomschedError(
        'host-unreachable',
        `${soname} has no function ${declaration}: it is too old or too new for this program`,
        { soname, declaration },
        { cause },
      );
    }
  };
  const c = (declaration: string) => bind(control, declaration);
  const f = (declaration: string) => bind(foreign, declaration);
  return {
    version: control.soname.slice('libxenctrl.so.'.length),
    xc_interface_open: c('void *xc_interface_open(void *logger, void *dombuild, unsigned int flags)'),
    xc_interface_close: c('int xc_interface_close(void *xch)'),
    xc_version: c('int xc_version(void *xch, int cmd, void *arg)'),
    xc_domain_getinfolist: c(
      'int xc_domain_getinfolist(void *xch, uint32_t first, unsigned int max, void *info)',
    ),
    xc_domain_pause: c('int xc_domain_pause(void *xch, uint32_t domid)'),
    xc_domain_unpause: c('int xc_domain_unpause(void *xch, uint32_t domid)'),
    xc_domain_get_guest_width: c('int xc_domain_get_guest_width(void *xch, uint32_t domid, void *width)'),
    xc_vcpu_getinfo: c('int xc_vcpu_getinfo(void *xch, uint32_t domid, uint32_t vcpu, void *info)'),
    xc_vcpu_getcontext: c('int xc_vcpu_getcontext(void *xch, uint32_t domid, uint32_t vcpu, void *context)'),
    xc_domain_hvm_getcontext_partial: c(
      'int xc_domain_hvm_getcontext_partial(void *xch, uint32_t domid, uint16_t type, uint16_t instance, void *buffer, uint32_t size)',
    ),
    xc_sched_id: c('int xc_sched_id(void *xch, void *id)'),
    xc_sched_credit_domain_get: c('int xc_sched_credit_domain_get(void *xch, uint32_t domid, void *params)'),
    xc_sched_credit_domain_set: c('int xc_sched_credit_domain_set(void *xch, uint32_t domid, void *params)'),
    xc_sched_credit2_domain_get: c(
      'int xc_sched_credit2_domain_get(void *xch, uint32_t domid, void *params)',
    ),
    xc_sched_credit2_domain_set: c(
      'int xc_sched_credit2_domain_set(void *xch, uint32_t domid, void *params)',
    ),
    xenforeignmemory_open: f('void *xenforeignmemory_open(void *logger, unsigned int flags)'),
    xenforeignmemory_close: f('int xenforeignmemory_close(void *handle)'),
    xenforeignmemory_map2: f(
      'void *xenforeignmemory_map2(void *handle, uint32_t domid, void *address, int protection, int flags, size_t pages, void *frames, void *errors)',
    ),
    xtl_createlogger_stdiostream: bind(
      log,
      'void *xtl_createlogger_stdiostream(void *file, int level, unsigned int flags)',
    ),
    deviceModel: deviceModel(optional(['libxendevicemodel.so.1'])),
    store: store(optional(['libxenstore.so.4', 'libxenstore.so.3.0']), libc),
  };
}

type Library = ReturnType<typeof koffi.load>;

function deviceModel(library: Library | undefined): DeviceModelLibrary | undefined {
  if (library === undefined) return undefined;
  return {
    xendevicemodel_open: library.func('void *xendevicemodel_open(void *logger, unsigned int flags)'),
    xendevicemodel_close: library.func('int xendevicemodel_close(void *handle)'),
    xendevicemodel_inject_msi: library.func(
      'int xendevicemodel_inject_msi(void *handle, uint16_t domid, uint64_t address, uint32_t data)',
    ),
  };
}

function store(library: Library | undefined, libc: Library): StoreLibrary | undefined {
  if (library === undefined) return undefined;
  return {
    xs_open: library.func('void *xs_open(unsigned long flags)'),
    xs_close: library.func('void xs_close(void *handle)'),
    xs_read: library.func(
      'void *xs_read(void *handle, uint32_t transaction, const char *path, void *length)',
    ),
    memcpy: libc.func('void *memcpy(void *to, void *from, size_t length)'),
    free: libc.func('void free(void *pointer)'),
  };
}
