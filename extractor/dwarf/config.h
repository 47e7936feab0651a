/* What libdwarf's own configure step would find out, for wasm32 with wasi-libc and no compression library. */
#define HAVE_FCNTL_H 1
#define HAVE_STDINT_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_UNISTD_H 1
#define PACKAGE_NAME "libdwarf"
#define PACKAGE_VERSION LIBDWARF_VERSION
