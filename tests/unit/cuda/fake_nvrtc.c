/* A library with NVRTC's functions for tests of what burin makes of it: its machine code is the
 * text, after the architecture, and words in the text make it fail, crash, or leave: CRASH and so
 * on, FRAGILE where it is not compiled in the plainer way, and
 *
 *   FAKE_NVRTC_FAILS    a word that makes it crash    FAKE_NVRTC_FRAGILE  as FRAGILE
 *   FAKE_NVRTC_REAL     the NVRTC that compiles what does not crash */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct _nvrtcProgram {
  char *text, *image, *log;
  size_t bytes; /* of the image; 0: a text */
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

/* ---- the real one ---- */
static void *real(const char *name) {
  const char *const path = getenv("FAKE_NVRTC_REAL");
  void *const library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  return library ? dlsym(library, name) : NULL;
}

static char *fetch(void *handle, const char *size, const char *get, size_t *n) {
  int (*const size_of)(void *, size_t *) = real(size), (*const give)(void *, char *) = real(get);
  char *const p = size_of(handle, n) ? NULL : malloc(*n + 1);
  return p && give(handle, p) == 0 ? p : NULL;
}

static int compile_really(Program *p, int n, const char *const *options) {
  int (*const create)(void **, const char *, const char *, int, void *, void *) =
      real("nvrtcCreateProgram");
  int (*const compile)(void *, int, const char *const *) = real("nvrtcCompileProgram");
  const bool ptx = strstr(options[0], "=compute_") != NULL;
  void *handle;
  size_t log_bytes;
  create(&handle, p->text, "t.cu", 0, NULL, NULL);
  const int status = compile(handle, n, options);
  p->log = fetch(handle, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog", &log_bytes);
  if (status == 0)
    p->image = fetch(handle, ptx ? "nvrtcGetPTXSize" : "nvrtcGetCUBINSize",
                     ptx ? "nvrtcGetPTX" : "nvrtcGetCUBIN", &p->bytes);
  return status;
}

static bool has_word(const char *text, const char *variable) {
  const char *const word = getenv(variable);
  return word && strstr(text, word);
}

static bool is_plain(int n, const char *const *options) {
  for (int i = 0; i < n; i++)
    if (strstr(options[i], "BURIN_PLAIN")) return true;
  return false;
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
  if (strstr(p->text, "CRASH") || has_word(p->text, "FAKE_NVRTC_FAILS")) raise(SIGSEGV);
  const bool fragile = strstr(p->text, "FRAGILE") || has_word(p->text, "FAKE_NVRTC_FRAGILE");
  if (fragile && !is_plain(n, options)) raise(SIGSEGV);
  if (real("nvrtcVersion")) return compile_really(p, n, options);
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
static int image_size(const Program *p, size_t *n) {
  if (!p->bytes) return size_of(p->image, n);
  *n = p->bytes;
  return 0;
}
static int give_image(const Program *p, char *to) {
  if (!p->bytes) return give(p->image, to);
  memcpy(to, p->image, p->bytes);
  return 0;
}
int nvrtcGetProgramLogSize(Program *p, size_t *n) { return size_of(p->log, n); }
int nvrtcGetProgramLog(Program *p, char *to) { return give(p->log, to); }
int nvrtcGetCUBINSize(Program *p, size_t *n) { return image_size(p, n); }
int nvrtcGetCUBIN(Program *p, char *to) { return give_image(p, to); }
int nvrtcGetPTXSize(Program *p, size_t *n) { return image_size(p, n); }
int nvrtcGetPTX(Program *p, char *to) { return give_image(p, to); }
