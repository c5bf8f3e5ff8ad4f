/* Linux system calls, without libc. Each returns the kernel's value: -errno on failure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
enum {
  NR_read = 0,
  NR_write = 1,
  NR_close = 3,
  NR_mmap = 9,
  NR_munmap = 11,
  NR_rt_sigprocmask = 14,
  NR_clone = 56,
  NR_exit = 60,
  NR_sched_getaffinity = 204,
  NR_sched_setaffinity = 203,
  NR_getcpu = 309,
  NR_futex = 202,
  NR_clock_gettime = 228,
  NR_exit_group = 231,
  NR_openat = 257,
  NR_renameat = 264,
  NR_unlinkat = 263,
  NR_fsync = 74,
  NR_lseek = 8,
  NR_readlinkat = 267,
  NR_dup = 32,
  NR_fchmod = 91,
  NR_fchown = 93,
  NR_geteuid = 107,
  NR_linkat = 265,
  NR_faccessat = 269,
  NR_prlimit64 = 302,
  NR_renameat2 = 316,
  NR_getrandom = 318,
  NR_memfd_create = 319,
  NR_statx = 332,
  NR_rt_sigaction = 13,
  NR_mprotect = 10,
  NR_arch_prctl = 158,
  SYS_O_DIRECTORY = 0200000,
  SYS_O_NOFOLLOW = 0400000
};
static inline long sys_call(long n, long a, long b, long c, long d, long e, long f) {
  long ret;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(ret)
                   : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return ret;
}
static inline void sys_relax(void) { __asm__ volatile("pause"); }
#elif defined(__aarch64__)
enum {
  NR_read = 63,
  NR_write = 64,
  NR_close = 57,
  NR_mmap = 222,
  NR_munmap = 215,
  NR_rt_sigprocmask = 135,
  NR_clone = 220,
  NR_exit = 93,
  NR_sched_getaffinity = 123,
  NR_sched_setaffinity = 122,
  NR_getcpu = 168,
  NR_futex = 98,
  NR_clock_gettime = 113,
  NR_exit_group = 94,
  NR_openat = 56,
  NR_renameat = 38,
  NR_unlinkat = 35,
  NR_fsync = 82,
  NR_lseek = 62,
  NR_readlinkat = 78,
  NR_dup = 23,
  NR_fchmod = 52,
  NR_fchown = 55,
  NR_geteuid = 175,
  NR_linkat = 37,
  NR_faccessat = 48,
  NR_prlimit64 = 261,
  NR_renameat2 = 276,
  NR_getrandom = 278,
  NR_memfd_create = 279,
  NR_statx = 291,
  NR_rt_sigaction = 134,
  NR_mprotect = 226,
  SYS_O_DIRECTORY = 040000,
  SYS_O_NOFOLLOW = 0100000
};
static inline long sys_call(long n, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = n;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
}
static inline void sys_relax(void) { __asm__ volatile("yield"); }
#elif defined(__arm__)
enum {
  NR_read = 3,
  NR_write = 4,
  NR_close = 6,
  NR_mmap = 192,
  NR_munmap = 91,
  NR_rt_sigprocmask = 175,
  NR_clone = 120,
  NR_exit = 1,
  NR_sched_getaffinity = 242,
  NR_sched_setaffinity = 241,
  NR_getcpu = 345,
  NR_futex = 240,
  NR_clock_gettime = 263,
  NR_exit_group = 248,
  NR_openat = 322,
  NR_renameat = 329,
  NR_unlinkat = 328,
  NR_fsync = 118,
  NR_lseek = 19,
  NR_readlinkat = 332,
  NR_dup = 41,
  NR_fchmod = 94,
  NR_fchown = 207,
  NR_geteuid = 201,
  NR_linkat = 330,
  NR_faccessat = 334,
  NR_prlimit64 = 369,
  NR_renameat2 = 382,
  NR_getrandom = 384,
  NR_memfd_create = 385,
  NR_statx = 397,
  NR_rt_sigaction = 174,
  NR_mprotect = 125,
  SYS_O_DIRECTORY = 040000,
  SYS_O_NOFOLLOW = 0100000
};
static inline long sys_call(long n, long a, long b, long c, long d, long e, long f) {
  register long r7 __asm__("r7") = n;
  register long r0 __asm__("r0") = a;
  register long r1 __asm__("r1") = b;
  register long r2 __asm__("r2") = c;
  register long r3 __asm__("r3") = d;
  register long r4 __asm__("r4") = e;
  register long r5 __asm__("r5") = f;
  __asm__ volatile("svc 0"
                   : "+r"(r0)
                   : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5)
                   : "memory");
  return r0;
}
static inline void sys_relax(void) { __asm__ volatile("yield"); }
#endif

enum {
  SYS_O_RDONLY = 0,
  SYS_O_WRONLY = 1,
  SYS_O_RDWR = 2,
  SYS_O_CREAT = 0100,
  SYS_O_EXCL = 0200,
  SYS_O_TRUNC = 01000,
  SYS_O_NOCTTY = 0400,
  SYS_O_NONBLOCK = 04000,
  SYS_O_CLOEXEC = 02000000,
  SYS_O_TMPFILE = 020000000 | SYS_O_DIRECTORY,
  SYS_AT_FDCWD = -100
};
/* The kernel's error numbers, negative in results. */
enum {
  SYS_EPERM = 1,
  SYS_ENOENT = 2,
  SYS_EINTR = 4,
  SYS_EIO = 5,
  SYS_ENXIO = 6,
  SYS_EBADF = 9,
  SYS_EAGAIN = 11,
  SYS_EACCES = 13,
  SYS_EEXIST = 17,
  SYS_ENOTDIR = 20,
  SYS_EISDIR = 21,
  SYS_EINVAL = 22,
  SYS_EMFILE = 24,
  SYS_EFBIG = 27,
  SYS_ENOSPC = 28,
  SYS_EROFS = 30,
  SYS_EPIPE = 32,
  SYS_ENAMETOOLONG = 36,
  SYS_ELOOP = 40,
  SYS_EOPNOTSUPP = 95,
  SYS_EDQUOT = 122
};

static inline long sys_read(int fd, void *p, size_t n) {
  return sys_call(NR_read, fd, (long)p, (long)n, 0, 0, 0);
}
static inline long sys_write(int fd, const void *p, size_t n) {
  return sys_call(NR_write, fd, (long)p, (long)n, 0, 0, 0);
}
static inline long sys_open(const char *path, int flags, int mode) {
  return sys_call(NR_openat, SYS_AT_FDCWD, (long)path, flags | SYS_O_CLOEXEC, mode, 0, 0);
}
static inline long sys_close(int fd) { return sys_call(NR_close, fd, 0, 0, 0, 0, 0); }
static inline long sys_size(int fd) { /* of a regular file; leaves the position at the start */
  const long end = sys_call(NR_lseek, fd, 0, 2, 0, 0, 0);
  const long back = sys_call(NR_lseek, fd, 0, 0, 0, 0, 0);
  return back < 0 ? back : end;
}
static inline long sys_rename(const char *from, const char *to) {
  return sys_call(NR_renameat, SYS_AT_FDCWD, (long)from, SYS_AT_FDCWD, (long)to, 0, 0);
}
static inline long sys_unlink(const char *path) {
  return sys_call(NR_unlinkat, SYS_AT_FDCWD, (long)path, 0, 0, 0, 0);
}
/* Zeroed private memory; NULL when there is none. */
static inline void *sys_alloc(size_t bytes) {
  const long p =
      sys_call(NR_mmap, 0, (long)bytes, 3 /* rw */, 0x22 /* private, anonymous */, -1, 0);
  return p < 0 && p > -4096 ? NULL : (void *)p;
}
/* Maps the start of a file, read-only, over memory that is already ours. */
static inline bool sys_map_over(void *place, size_t bytes, int fd) {
  return sys_call(NR_mmap, (long)place, (long)bytes, 1 /* read */, 0x12 /* private, fixed */, fd,
                  0) == (long)place;
}
/* Zeros, read-only, in place of what was mapped. */
static inline void sys_unmap_over(void *place, size_t bytes) {
  sys_call(NR_mmap, (long)place, (long)bytes, 1 /* read */, 0x32 /* private, fixed, anonymous */,
           -1, 0);
}
static inline void sys_free(void *p, size_t bytes) {
  sys_call(NR_munmap, (long)p, (long)bytes, 0, 0, 0, 0);
}
static inline uint64_t sys_clock_ns(void) { /* monotonic */
  long t[2] = {0, 0};
  sys_call(NR_clock_gettime, 1, (long)t, 0, 0, 0, 0);
  return (uint64_t)t[0] * 1000000000u + (uint64_t)t[1];
}
enum { SYS_FUTEX_WAIT = 128, SYS_FUTEX_WAKE = 129 }; /* private */
static inline void sys_futex_wait(uint32_t *word, uint32_t value) {
  sys_call(NR_futex, (long)word, SYS_FUTEX_WAIT, value, 0, 0, 0);
}
static inline void sys_futex_wake(uint32_t *word, int n) {
  sys_call(NR_futex, (long)word, SYS_FUTEX_WAKE, n, 0, 0, 0);
}
/* A lock: 0 free, 1 taken, 2 taken and awaited (Drepper, "Futexes are tricky", 2011). */
static inline void sys_lock(uint32_t *lock) {
  uint32_t none = 0;
  if (__atomic_compare_exchange_n(lock, &none, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return;
  while (__atomic_exchange_n(lock, 2, __ATOMIC_ACQUIRE)) sys_futex_wait(lock, 2);
}
static inline void sys_unlock(uint32_t *lock) {
  if (__atomic_exchange_n(lock, 0, __ATOMIC_RELEASE) == 2) sys_futex_wake(lock, 1);
}
static inline _Noreturn void sys_exit(int status) {
  for (;;) sys_call(NR_exit_group, status, 0, 0, 0, 0, 0);
}
