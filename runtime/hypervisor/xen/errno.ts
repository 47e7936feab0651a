/** errno values of the hypervisor and its libraries (public/errno.h, the same as Linux's). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  ENXIO: 6,
  EACCES: 13,
  EEXIST: 17,
  EINVAL: 22,
  ENOSYS: 38,
  ENODATA: 61,
  EOVERFLOW: 75,
  ENOBUFS: 105,
} as const;
