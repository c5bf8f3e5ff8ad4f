/* What programs need of the host's libc, as a library that is only linked against: it carries the
 * name libc.so.6, and the loader finds the real functions (there since glibc 2.34). */
#define SHOWN __attribute__((visibility("default")))
SHOWN void dlopen(void) {}
SHOWN void dlsym(void) {}
