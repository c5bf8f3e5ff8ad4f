/* Objects → program, shared library, one object, or archive: ld.lld with the runtime that burin
 * carries. The linker is started directly; it reads files without names, its arguments among them,
 * and prints the result into another: whatever is killed, nothing stays behind. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/files/spawn.h"
#include "codegen/link/link.h"
#include "runtime/embed/embed.h"

bool link_error(const LinkJob *j, ErrCode code, const char *what, const char *detail) {
  const char *const output = j->p->o->output;
  const bool memory = strncmp(output, "/proc/", 6) == 0; /* of `burin run` */
  const Loc loc = {.node = -1, .file = memory ? j->p->m->model->file : output};
  return diag_error(j->p->m->model->diag, &loc, code, "%s%s%s", what, *detail ? ": " : "", detail);
}

/* ---- scratch files ---- */
const char *link_scratch(LinkJob *j, int *fd) {
  *fd = scratch_open(j->beside);
  if (*fd < 0) return link_error(j, ERR_OUTPUT, "no scratch file", strerror(errno)), NULL;
  vec_push(j->p->arena, &j->scratch, *fd);
  return arena_printf(j->p->arena, "/proc/self/fd/%d", *fd);
}

void link_close(LinkJob *j) {
  for (int i = 0; i < j->scratch.n; i++) close(j->scratch.data[i]);
  j->scratch.n = 0;
}

/* A scratch file that holds these bytes; NULL: error reported. */
static const char *scratch_with(LinkJob *j, const void *data, size_t size) {
  int fd;
  const char *const path = link_scratch(j, &fd);
  if (!path || fd_write(fd, data, size)) return path;
  return link_error(j, ERR_OUTPUT, "cannot write a scratch file", strerror(errno)), NULL;
}

/* ---- running the linker ---- */
/* The first lines of what it said. */
static const char *read_log(const LinkJob *j, int fd) {
  char text[1024];
  const ssize_t n = pread(fd, text, sizeof text - 1, 0);
  text[n > 0 ? n : 0] = 0;
  return arena_strdup(j->p->arena, text);
}

/* As spawn_tool. */
static int spawn_linker(const char *arguments, int out, int log) {
  static const char *const names[] = {BURIN_LLD,   "ld.lld-19", "ld.lld",
                                      "ld.lld-20", "ld.lld-21", "ld.lld-22"};
  char *argv[3] = {NULL, (char *)arguments, NULL};
  return spawn_tool(names, sizeof names / sizeof *names, argv, -1, out, log);
}

/* Response files: quoted words, one a line. */
static void add_word(StrBuf *b, const char *word) {
  sb_putc(b, '"');
  for (; *word; word++) {
    if (*word == '"' || *word == '\\') sb_putc(b, '\\');
    sb_putc(b, *word);
  }
  sb_printf(b, "\"\n");
}

/* The linker does not notice when what it prints is cut short: its section headers come last. */
static bool is_whole(int fd) {
  Elf64_Ehdr h = {0};
  struct stat st;
  if (fstat(fd, &st) != 0 || pread(fd, &h, sizeof h, 0) < (ssize_t)sizeof(Elf32_Ehdr)) return false;
  const Elf32_Ehdr *const n = (const Elf32_Ehdr *)&h;
  const uint64_t end = h.e_ident[EI_CLASS] == ELFCLASS64
                           ? h.e_shoff + (uint64_t)h.e_shnum * h.e_shentsize
                           : n->e_shoff + (uint64_t)n->e_shnum * n->e_shentsize;
  if ((uint64_t)st.st_size == end) return true;
  errno = posix_fallocate(fd, 0, (off_t)end); /* says why */
  if (!errno) errno = EIO;
  return false;
}

static bool run_linker(LinkJob *j, StrBuf *words, int out) {
  int log;
  const char *const args = scratch_with(j, sb_str(words), (size_t)words->n);
  if (!args || !link_scratch(j, &log)) return false;
  const int rc = spawn_linker(arena_printf(j->p->arena, "@%s", args), out, log);
  if (rc == -ENOENT || rc == 127)
    return link_error(j, ERR_LINK, "ld.lld was not found", "install lld (version 19)");
  if (rc < 0) return link_error(j, ERR_LINK, "ld.lld cannot be started", strerror(-rc));
  if (rc > 128) /* SIGABRT is what becomes of a linker that gets no memory (--max-memory) */
    return link_error(j, rc - 128 == SIGABRT ? ERR_LIMIT : ERR_LINK,
                      arena_printf(j->p->arena, "the linker was ended by signal %d", rc - 128),
                      "too little memory or stack (--max-memory, ulimit -s)?");
  if (rc) return link_error(j, ERR_LINK, "the linker failed", read_log(j, log));
  return is_whole(out) || link_error(j, ERR_OUTPUT, "cannot be written", strerror(errno));
}

/* ---- what goes in ---- */
static const char *runtime_part(LinkJob *j, int kind) {
  size_t size;
  const unsigned char *const data = burin_runtime_object(j->p->t->arch, kind, &size);
  return scratch_with(j, data, size);
}

/* Kernels run on a GPU, whose driver programs find when they run, by their host's libc. */
static bool needs_driver(const LinkJob *j) { return j->p->t->gpu && j->p->t->gpu->sm; }

/* The device below a model for a GPU, or for what stands in for one. */
static bool device_words(LinkJob *j, StrBuf *b) {
  if (!j->p->t->gpu) return true;
  const char *const device = runtime_part(j, needs_driver(j) ? BURIN_RT_CUDA : BURIN_RT_STAND_IN);
  if (device) add_word(b, device);
  return device;
}

/* Of programs and libraries; an object leaves what it needs of libc to the host's link. */
static bool libc_words(LinkJob *j, StrBuf *b) {
  if (!needs_driver(j)) return true;
  const char *const libc = runtime_part(j, BURIN_RT_LIBC);
  if (libc) add_word(b, libc);
  return libc;
}

static bool common_words(LinkJob *j, StrBuf *b) {
  const char *const library = runtime_part(j, BURIN_RT_LIBRARY);
  if (!library) return false;
  add_word(b, "-m");
  add_word(b, j->p->t->lld_emulation);
  add_word(b, "-o");
  add_word(b, "-");
  add_word(b, "--build-id=none");
  add_word(b, "--threads=1"); /* whose stacks would count against --max-memory */
  add_word(b, "--whole-archive");
  add_word(b, j->objects);
  add_word(b, "--no-whole-archive");
  if (j->weights) add_word(b, j->weights);
  if (!device_words(j, b)) return false;
  if (j->gathered) add_word(b, j->gathered);
  add_word(b, library);
  return true;
}

static bool link_executable(LinkJob *j, int out) {
  StrBuf b = {.arena = j->p->arena};
  static const char *const flags[] = {"-e",    "_start", "--gc-sections", "-z", "noexecstack", "-z",
                                      "relro", "-z",     "now",           "-s"};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) add_word(&b, flags[i]);
  if (needs_driver(j)) {
    add_word(&b, "--dynamic-linker=/lib64/ld-linux-x86-64.so.2");
  } else {
    add_word(&b, "-static");
    add_word(&b, "--no-dynamic-linker");
  }
  add_word(&b, arena_printf(j->p->arena, "--defsym=burin_program_model=%s_model", j->p->name));
  const char *const program = runtime_part(j, BURIN_RT_PROGRAM);
  if (!program) return false;
  add_word(&b, program);
  return common_words(j, &b) && libc_words(j, &b) && run_linker(j, &b, out);
}

static bool link_shared(LinkJob *j, int out) {
  StrBuf script = {.arena = j->p->arena}, b = {.arena = j->p->arena};
  sb_printf(&script, "{ global:");
  for (const char *const *e = program_exports(j->p); *e; e++) sb_printf(&script, " %s;", *e);
  sb_printf(&script, " local: *; };\n");
  const char *const path = scratch_with(j, sb_str(&script), (size_t)script.n);
  if (!path) return false;
  static const char *const flags[] = {"-shared",
                                      "--gc-sections",
                                      "-z",
                                      "noexecstack",
                                      "-z",
                                      "relro",
                                      "-z",
                                      "now",
                                      "-z",
                                      "text",
                                      "-z",
                                      "defs",
                                      "--hash-style=gnu",
                                      "-s"};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) add_word(&b, flags[i]);
  add_word(&b, arena_printf(j->p->arena, "--version-script=%s", path));
  return common_words(j, &b) && libc_words(j, &b) && run_linker(j, &b, out);
}

/* ---- one object ---- */
static bool localise(const LinkJob *j, int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0) return link_error(j, ERR_OUTPUT, "cannot be read", strerror(errno));
  char *const p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return link_error(j, ERR_OUTPUT, "cannot be mapped", strerror(errno));
  object_localise(p, program_exports(j->p), j->p->arena);
  munmap(p, (size_t)st.st_size);
  return true;
}

static bool link_object(LinkJob *j, int out) {
  StrBuf b = {.arena = j->p->arena};
  add_word(&b, "-r");
  return common_words(j, &b) && run_linker(j, &b, out) && localise(j, out);
}

/* ---- archive ---- */
static void ar_header(FILE *f, const char *name, long long size) {
  fprintf(f, "%-16s%-12d%-6d%-6d%-8o%-10lld`\n", name, 0, 0, 0, 0644, size);
}
static void put_be32(FILE *f, uint32_t v) {
  const unsigned char b[4] = {(unsigned char)(v >> 24), (unsigned char)(v >> 16),
                              (unsigned char)(v >> 8), (unsigned char)v};
  fwrite(b, 4, 1, f);
}

static bool copy_file(FILE *to, int from) {
  static const size_t size = 1 << 16;
  char block[1 << 16];
  off_t at = 0;
  for (ssize_t n; (n = pread(from, block, size, at)) != 0; at += n)
    if (n < 0 || fwrite(block, (size_t)n, 1, to) != 1) return false;
  return true;
}

/* An index of the exported names (all in the one member), then the member. */
static bool write_archive(const LinkJob *j, int object, FILE *f) {
  struct stat st;
  if (fstat(object, &st) != 0) return false;
  const char *const *const names = program_exports(j->p);
  uint32_t n = 0, bytes = 0;
  for (; names[n]; n++) bytes += (uint32_t)strlen(names[n]) + 1;
  const uint32_t index = (4 + 4 * n + bytes + 1) & ~1u, member = 8 + 60 + index;
  fwrite("!<arch>\n", 8, 1, f);
  ar_header(f, "/", index);
  put_be32(f, n);
  for (uint32_t i = 0; i < n; i++) put_be32(f, member);
  for (uint32_t i = 0; i < n; i++) fwrite(names[i], strlen(names[i]) + 1, 1, f);
  if ((4 + 4 * n + bytes) & 1) fputc(0, f);
  ar_header(f, "model.o/", (long long)st.st_size);
  const bool ok = copy_file(f, object);
  if (st.st_size & 1) fputc('\n', f);
  return !ferror(f) && ok;
}

static bool link_archive(LinkJob *j, OutFile *out) {
  int object;
  if (!link_scratch(j, &object) || !link_object(j, object)) return false;
  FILE *f = fd_stream(out->fd);
  bool ok = f && write_archive(j, object, f);
  if (f) ok = fclose(f) == 0 && ok;
  return ok || outputs_error(j->outputs, out, -errno);
}

bool link_file(LinkJob *j, EmitKind kind, OutFile *out) {
  switch (kind) {
    case EMIT_EXE: return link_executable(j, out->fd);
    case EMIT_SHARED: return link_shared(j, out->fd);
    case EMIT_OBJ: return link_object(j, out->fd);
    default: return link_archive(j, out);
  }
}
