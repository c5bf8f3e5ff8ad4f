/* Units → the files of a command: objects, weights and images are linked, texts written. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/host/header.h"
#include "codegen/job.h"

typedef struct Output {
  EmitKind kind;
  const char *suffix;
} Output;
static const Output outputs[] = {{EMIT_EXE, ""},       {EMIT_OBJ, ".o"},      {EMIT_STATIC, ".a"},
                                 {EMIT_SHARED, ".so"}, {EMIT_HEADER, ".h"},   {EMIT_ASM, ".s"},
                                 {EMIT_LLVM, ".ll"},   {EMIT_C, ".c"},        {EMIT_CUDA, ".cu"},
                                 {EMIT_PTX, ".ptx"},   {EMIT_CUBIN, ".cubin"}};
_Static_assert(sizeof outputs / sizeof *outputs == N_OUTPUTS, "a suffix for every kind");

static int64_t text_bytes(const char *elf) {
  int64_t sum = 0;
  if (elf[EI_CLASS] == ELFCLASS64) {
    const Elf64_Ehdr *const h = (const Elf64_Ehdr *)elf;
    const Elf64_Shdr *const s = (const Elf64_Shdr *)(elf + h->e_shoff);
    for (int i = 0; i < h->e_shnum; i++)
      if (s[i].sh_flags & SHF_EXECINSTR) sum += (int64_t)s[i].sh_size;
  } else {
    const Elf32_Ehdr *const h = (const Elf32_Ehdr *)elf;
    const Elf32_Shdr *const s = (const Elf32_Shdr *)(elf + h->e_shoff);
    for (int i = 0; i < h->e_shnum; i++)
      if (s[i].sh_flags & SHF_EXECINSTR) sum += (int64_t)s[i].sh_size;
  }
  return sum;
}

/* ar: a member's header; members begin at even places. */
static void member_header(char out[61], int64_t size) {
  snprintf(out, 61, "%-16s%-12d%-6d%-6d%-8o%-10lld`\n", "k.o/", 0, 0, 0, 0644, (long long)size);
}

/* All objects in one archive, in order: models have more kernels than processes may open files. */
static bool write_objects(Job *j, LinkJob *l, CodegenStats *stats) {
  int fd;
  if (!(l->objects = link_scratch(l, &fd))) return false;
  bool ok = fd_write(fd, "!<arch>\n", 8);
  for (int i = 0; ok && i < j->pool->n; i++) {
    const Unit *const u = j->pool->tasks[i].unit;
    const size_t size = u->object_bytes;
    if (!u->object) continue;
    char header[61];
    member_header(header, (int64_t)size);
    ok = fd_write(fd, header, 60) && fd_write(fd, u->object, size) && fd_write(fd, "\n", size & 1);
    stats->code_bytes += text_bytes(u->object);
  }
  return ok || link_error(l, ERR_OUTPUT, "cannot write objects", strerror(errno));
}

static bool write_weights(Job *j, LinkJob *l) {
  int fd;
  if (!j->p->weights.bytes) return true;
  if (!(l->weights = link_scratch(l, &fd))) return false;
  FILE *f = fd_stream(fd);
  const char *const symbol = arena_printf(j->p->arena, "%s_weights", j->p->name);
  bool ok =
      f && weights_write_object(&j->p->weights, j->p->t, symbol, j->p->o->external_weights, f);
  if (f) ok = fclose(f) == 0 && ok;
  return ok || link_error(l, ERR_OUTPUT, "cannot write weights", strerror(errno));
}

static Unit *const *all_units(const Job *j) {
  Unit **const units = ARENA_ARRAY(j->p->arena, Unit *, j->pool->n);
  for (int i = 0; i < j->pool->n; i++) units[i] = j->pool->tasks[i].unit;
  return units;
}

/* What the units make together, beside their objects. */
static bool gather(Job *j, LinkJob *l, CodegenStats *stats) {
  const Backend *const b = j->pool->backend;
  const double start = clock_seconds();
  Gathered all = {0};
  Unit *at = NULL;
  const char *const error =
      b->gather ? b->gather(j->state, all_units(j), j->pool->n, &all, &at) : NULL;
  stats->gather_seconds = clock_seconds() - start;
  if (error) return job_report(j, at, "machine code", error);
  if (!all.symbol) return true;
  int fd;
  if (!(l->gathered = link_scratch(l, &fd))) return false;
  FILE *const f = fd_stream(fd);
  bool ok = f && gathered_write_object(&all, j->p->t, f);
  if (f) ok = fclose(f) == 0 && ok;
  stats->code_bytes += (int64_t)all.bytes;
  return ok || link_error(l, ERR_OUTPUT, "cannot write machine code", strerror(errno));
}

static bool write_text(Job *j, EmitKind kind, OutFile *out) {
  FILE *f = fd_stream(out->fd);
  if (!f) return outputs_error(j->outputs, out, -errno);
  Unit *at = NULL;
  const char *const error =
      j->pool->backend->write(j->state, all_units(j), j->pool->n, kind, f, &at);
  const bool written = !ferror(f), closed = fclose(f) == 0;
  if (error) return job_report(j, at, "code as text", error);
  return (written && closed) || outputs_error(j->outputs, out, -errno);
}

static bool write_header(Job *j, OutFile *out) {
  StrBuf b = {.arena = j->p->arena};
  header_print(j->p, units_stack(all_units(j), j->pool->n), &b);
  return outputs_write(j->outputs, out, sb_str(&b), (size_t)b.n);
}

static bool write_one(Job *j, LinkJob *l, EmitKind kind, OutFile *out) {
  switch (kind) {
    case EMIT_HEADER: return write_header(j, out);
    case EMIT_EXE:
    case EMIT_OBJ:
    case EMIT_STATIC:
    case EMIT_SHARED: return link_file(l, kind, out);
    default: return write_text(j, kind, out);
  }
}

static bool write_weights_file(Job *j, OutFile *out) {
  FILE *f = fd_stream(out->fd);
  const bool ok = f && weights_write_raw(&j->p->weights, f);
  return (f && fclose(f) == 0 && ok) || outputs_error(j->outputs, out, -errno);
}

static const char *final_path(const Job *j, const Output *o) {
  const unsigned emit = j->p->o->emit;
  const bool several = (emit & (emit - 1)) != 0;
  return several ? arena_printf(j->p->arena, "%s%s", j->p->o->output, o->suffix) : j->p->o->output;
}

static bool external_weights(const Job *j) {
  const unsigned linked = EMIT_EXE | EMIT_OBJ | EMIT_STATIC | EMIT_SHARED;
  return (j->p->o->emit & linked) && j->p->o->external_weights && j->p->weights.bytes > 0;
}

/* The files of a command, opened before the work: what cannot be written is said at once. */
bool job_open_files(Job *j) {
  const CodegenOptions *const o = j->p->o;
  for (int i = 0; i < N_OUTPUTS; i++) {
    const EmitKind kind = outputs[i].kind;
    if (!(o->emit & kind)) continue;
    j->out[i] = outputs_add(j->outputs, final_path(j, &outputs[i]),
                            kind == EMIT_EXE || kind == EMIT_SHARED);
    if (!j->out[i]) return false;
  }
  if (!external_weights(j)) return true;
  const char *const path = arena_printf(j->p->arena, "%s.weights", o->output);
  return (j->weights = outputs_add(j->outputs, path, false)) != NULL;
}

static int64_t file_bytes(const OutFile *f) {
  struct stat st;
  return fstat(f->fd, &st) == 0 ? (int64_t)st.st_size : 0;
}

bool job_write_files(Job *j, LinkJob *l, CodegenStats *stats) {
  const unsigned emit = j->p->o->emit;
  const bool objects = (emit & (EMIT_EXE | EMIT_OBJ | EMIT_STATIC | EMIT_SHARED)) != 0;
  if (objects && (!gather(j, l, stats) || !write_objects(j, l, stats) || !write_weights(j, l)))
    return false;
  if (j->weights && !write_weights_file(j, j->weights)) return false;
  for (int i = 0; i < N_OUTPUTS; i++) {
    if (!j->out[i]) continue;
    if (!write_one(j, l, outputs[i].kind, j->out[i])) return false;
    stats->file_bytes += file_bytes(j->out[i]);
  }
  if (j->weights) stats->file_bytes += file_bytes(j->weights);
  return true;
}
