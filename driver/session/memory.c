/* The memory that LLVM and the linker may use: what --max-memory leaves behind the arena, as a
 * limit of the process while code is made. LLVM cannot give up: it aborts, or its allocator calls a
 * handler. Both end the process here, with exit 6 and without its temporary files. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "driver/driver.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif

/* std::set_new_handler, of the C++ library that LLVM brings: what operator new does when there is
 * no memory. */
typedef void (*NewHandler)(void);
static void set_new_handler(NewHandler f) {
  NewHandler (*set)(NewHandler);
  *(void **)&set = dlsym(RTLD_DEFAULT, "_ZSt15set_new_handlerPFvvE");
  if (set) set(f);
}

static struct rlimit before;
static volatile int active;
static char message[160];

/* Bytes of private writable memory, which RLIMIT_DATA counts. Signal-safe. */
static size_t data_bytes(void) {
  char text[256];
  const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
  size_t pages = 0;
  int field = 0;
  if (fd >= 0) close(fd);
  for (ssize_t i = 0; i < n && field < 6; i++) {
    if (text[i] == ' ')
      field++;
    else if (field == 5)
      pages = pages * 10 + (size_t)(text[i] - '0');
  }
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void exhausted(void) { signals_leave(message, EXIT_LIMIT); }

void memory_text(char *out, size_t size, size_t limit) {
  snprintf(out, size,
           "burin: error[E%04d]: compiling needs more than %zu KiB of memory\n"
           "  hint: --max-memory=SIZE raises the limit\n",
           ERR_LIMIT, limit >> 10);
}

void memory_begin(Session *s) {
  struct rlimit r;
  const size_t used = arena_used(s->arena), now = data_bytes();
  const size_t room = s->memory_limit > used ? s->memory_limit - used : 0;
  if (__has_feature(address_sanitizer) || active || !now || getrlimit(RLIMIT_DATA, &before) != 0)
    return;
  r = before;
  if (r.rlim_cur != RLIM_INFINITY && r.rlim_cur <= now + room) return;
  r.rlim_cur = now + room;
  memory_text(message, sizeof message, s->memory_limit);
  active = setrlimit(RLIMIT_DATA, &r) == 0;
  if (active) set_new_handler(exhausted);
}

void memory_end(void) {
  if (!active) return;
  set_new_handler(NULL);
  setrlimit(RLIMIT_DATA, &before);
  active = 0;
}

/* For an arena that found no memory while LLVM's threads run. */
void memory_leave(void) {
  if (active) exhausted();
}

/* A crash for want of memory: a block that grows asks for no more than it has. */
void memory_crashed(void) {
  struct rlimit r;
  if (active && getrlimit(RLIMIT_DATA, &r) == 0 && data_bytes() > r.rlim_cur / 2) exhausted();
}
