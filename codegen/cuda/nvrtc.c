/* NVRTC itself: where it is found, and one compilation. Runs in a process of its own (workers.c),
 * which may end in here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/nvrtc.h"

const char nvrtc_advice[] =
    "install the CUDA toolkit, or the Python package nvidia-cuda-nvrtc, or name the library: "
    "BURIN_NVRTC=…/libnvrtc.so.13";

typedef struct _nvrtcProgram *Handle;

struct Nvrtc {
  int (*version)(int *major, int *minor);
  int (*create)(Handle *p, const char *text, const char *name, int n, const char *const *headers,
                const char *const *names);
  int (*destroy)(Handle *p);
  int (*compile)(Handle p, int n, const char *const *options);
  int (*log_size)(Handle p, size_t *n);
  int (*log)(Handle p, char *to);
  int (*cubin_size)(Handle p, size_t *n);
  int (*cubin)(Handle p, char *to);
  int (*ptx_size)(Handle p, size_t *n);
  int (*ptx)(Handle p, char *to);
};

/* ---- finding it ---- */
/* The newest file of a pattern with wildcards. */
static void *open_glob(const char *pattern) {
  glob_t found;
  void *library = NULL;
  if (glob(pattern, 0, NULL, &found) != 0) return NULL;
  for (size_t i = found.gl_pathc; i > 0 && !library; i--)
    library = dlopen(found.gl_pathv[i - 1], RTLD_NOW | RTLD_LOCAL);
  globfree(&found);
  return library;
}

/* What NVRTC opens by name when it compiles lies beside it, where the loader need not look. */
static void open_builtins(const void *symbol) {
  Dl_info at;
  char pattern[4096];
  if (!dladdr(symbol, &at) || !at.dli_fname) return;
  const char *const slash = strrchr(at.dli_fname, '/');
  const int n = slash ? (int)(slash - at.dli_fname) : 0;
  if (n && snprintf(pattern, sizeof pattern, "%.*s/libnvrtc-builtins.so.*", n, at.dli_fname) <
               (int)sizeof pattern)
    open_glob(pattern);
}

/* Below a prefix that has a folder lib: where Python's package puts it. */
static void *open_prefix(const char *prefix) {
  static const char *const folders[] = {"nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"};
  static const char *const sites[] = {"site", "dist"};
  char pattern[4096];
  void *library = NULL;
  for (int i = 0; i < 4 && prefix && *prefix && !library; i++) {
    const int n = snprintf(pattern, sizeof pattern, "%s/lib/python3*/%s-packages/%s/libnvrtc.so.1?",
                           prefix, sites[i % 2], folders[i / 2]);
    if (n > 0 && n < (int)sizeof pattern) library = open_glob(pattern);
  }
  return library;
}

static void *open_library(void) {
  static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};
  const char *const path = getenv("BURIN_NVRTC"), *const home = getenv("HOME");
  char local[4096];
  void *library = NULL;
  if (path && *path) return dlopen(path, RTLD_NOW | RTLD_LOCAL);
  for (int i = 0; i < 2 && !library; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
  if (!library) library = open_prefix(getenv("VIRTUAL_ENV"));
  if (!library && home && snprintf(local, sizeof local, "%s/.local", home) < (int)sizeof local)
    library = open_prefix(local);
  if (!library) library = open_prefix("/usr/local");
  if (!library) library = open_prefix("/usr");
  return library ? library : open_glob("/usr/local/cuda*/lib64/libnvrtc.so.1?");
}

const Nvrtc *nvrtc_load(void) {
  void *const library = open_library();
  Nvrtc *const v = library ? calloc(1, sizeof *v) : NULL;
  if (!v) return NULL;
  const struct {
    const char *name;
    void *to;
  } table[] = {{"nvrtcVersion", &v->version},
               {"nvrtcCreateProgram", &v->create},
               {"nvrtcDestroyProgram", &v->destroy},
               {"nvrtcCompileProgram", &v->compile},
               {"nvrtcGetProgramLogSize", &v->log_size},
               {"nvrtcGetProgramLog", &v->log},
               {"nvrtcGetCUBINSize", &v->cubin_size},
               {"nvrtcGetCUBIN", &v->cubin},
               {"nvrtcGetPTXSize", &v->ptx_size},
               {"nvrtcGetPTX", &v->ptx}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    void *const symbol = dlsym(library, table[i].name);
    if (!symbol) return free(v), NULL;
    memcpy(table[i].to, &symbol, sizeof symbol);
    if (i == 0) open_builtins(symbol);
  }
  return v;
}

/* ---- one compilation ---- */
enum { OUT_OF_MEMORY = 1, INVALID_OPTION = 5 }; /* NVRTC_ERROR_… */

/* What a pair of size and content functions gives, with a zero behind it; NULL: nothing. */
static char *fetch(Handle p, int (*size)(Handle, size_t *), int (*get)(Handle, char *), size_t *n) {
  *n = 0;
  if (size(p, n) != 0 || *n == 0) return NULL;
  char *const text = calloc(*n + 1, 1);
  if (text && get(p, text) == 0) return text;
  free(text);
  *n = 0;
  return NULL;
}

static int compile(const Nvrtc *v, Handle p, const NvrtcJob *job) {
  const int sm = job->sm;
  char arch[64];
  snprintf(arch, sizeof arch, "--gpu-architecture=%s_%d", sm < 0 ? "compute" : "sm",
           sm < 0 ? -sm : sm);
  const char *const options[] = {arch,
                                 "--std=c++17",
                                 "--device-as-default-execution-space",
                                 "--ftz=true",
                                 "--fmad=false",
                                 "--prec-div=true",
                                 "--prec-sqrt=true",
                                 "--ptxas-options=-v",
                                 "--ptxas-options=-O1",
                                 "--define-macro=BURIN_PLAIN"};
  const int n = sizeof options / sizeof *options;
  return v->compile(p, job->plain ? n : n - 2, options);
}

/* The commonest reason of all has a sentence of its own: an NVRTC that is older than the GPU. */
static void explain(const Nvrtc *v, const NvrtcJob *job, NvrtcReply *out) {
  int major = 0, minor = 0;
  char *text;
  if (out->status != INVALID_OPTION || v->version(&major, &minor) != 0) return;
  const int n = asprintf(&text, "NVRTC %d.%d makes no code for sm_%d: %s", major, minor,
                         abs(job->sm), out->log ? out->log : "");
  if (n < 0) return;
  free(out->log);
  out->log = text;
  out->log_bytes = (size_t)n + 1;
}

void nvrtc_run(const Nvrtc *v, const NvrtcJob *job, NvrtcReply *out) {
  Handle p = NULL;
  *out = (NvrtcReply){.status = v->create(&p, job->text, job->name, 0, NULL, NULL)};
  if (out->status) return;
  out->status = compile(v, p, job);
  out->log = fetch(p, v->log_size, v->log, &out->log_bytes);
  if (out->status)
    explain(v, job, out);
  else
    out->image = job->sm < 0 ? fetch(p, v->ptx_size, v->ptx, &out->bytes)
                             : fetch(p, v->cubin_size, v->cubin, &out->bytes);
  if (!out->status && !out->image) out->status = OUT_OF_MEMORY;
  v->destroy(&p);
}
