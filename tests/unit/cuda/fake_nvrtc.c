/* A library with NVRTC's functions for tests of what burin makes of it: its machine code is the
 * text, after the architecture, and words in the text make it fail, crash, or leave. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct _nvrtcProgram {
  char *text, *image, *log;
} Program;

static char *copy(const char *s) {
  char *const p = malloc(strlen(s) + 1);
  return p ? strcpy(p, s) : NULL;
}

int nvrtcVersion(int *major, int *minor) {
  *major = 13;
  *minor = 99;
  return 0;
}

int nvrtcCreateProgram(Program **p, const char *text, const char *name, int n,
                       const char *const *headers, const char *const *names) {
  Program *const made = calloc(1, sizeof *made);
  if (!made) return 1;
  made->text = copy(text);
  *p = made;
  return 0;
}

int nvrtcDestroyProgram(Program **p) {
  Program *const old = *p;
  free(old->text);
  free(old->image);
  free(old->log);
  free(old);
  return 0;
}

int nvrtcCompileProgram(Program *p, int n, const char *const *options) {
  static const char log[] =
      "ptxas info    : 0 bytes gmem\n"
      "ptxas info    : Compiling entry function 'one' for 'sm_80'\n"
      "ptxas info    : Function properties for one\n"
      "ptxas         .     24 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n"
      "ptxas info    : Used 255 registers, used 1 barriers, 256 bytes smem, 376 bytes cmem[0]\n"
      "ptxas info    : Compiling entry function 'two' for 'sm_80'\n"
      "ptxas info    : Function properties for two\n"
      "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
      "ptxas info    : Used 12 registers, used 0 barriers\n";
  const char *const arch = strchr(options[0], '=') + 1;
  char image[256];
  if (strstr(p->text, "CRASH")) raise(SIGSEGV);
  if (strstr(p->text, "LEAVE")) _exit(3);
  if (strstr(p->text, "REFUSE")) return p->log = copy("t.cu(1): error: refused"), 6;
  if (strcmp(arch, "sm_999") == 0) return p->log = copy("invalid value"), 5;
  snprintf(image, sizeof image, "%s %ld %s", arch, (long)getpid(), p->text);
  p->image = copy(image);
  p->log = copy(log);
  return 0;
}

static int size_of(const char *s, size_t *n) {
  *n = s ? strlen(s) + 1 : 0;
  return 0;
}
static int give(const char *s, char *to) {
  strcpy(to, s);
  return 0;
}
int nvrtcGetProgramLogSize(Program *p, size_t *n) { return size_of(p->log, n); }
int nvrtcGetProgramLog(Program *p, char *to) { return give(p->log, to); }
int nvrtcGetCUBINSize(Program *p, size_t *n) { return size_of(p->image, n); }
int nvrtcGetCUBIN(Program *p, char *to) { return give(p->image, to); }
int nvrtcGetPTXSize(Program *p, size_t *n) { return size_of(p->image, n); }
int nvrtcGetPTX(Program *p, char *to) { return give(p->image, to); }
