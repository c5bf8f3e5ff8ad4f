/* Interpreter of whole programs: runs the steps of a module in order. When the memory planner has
 * run, arena buffers lie at their planned offsets, so that a wrong plan shows as wrong results;
 * before that each has memory of its own. Fresh memory is all ones: NaN, -1. Of every byte it is
 * known which buffer wrote it last: reading what nobody wrote, or another buffer, is an error. */
#include "ir/eval/interp.h"
#include <inttypes.h>
#include <string.h>
#include "ir/eval/graph_eval.h"
#include "ir/op/op.h"
#include "runtime/abi.h"

typedef struct Mem {
  char *data;
  int64_t bytes;
  Written written;
} Mem;

typedef struct Run {
  const Module *m;
  Arena *a;
  int64_t *syms;
  Mem *mem;              /* by buffer id; views are resolved at use */
  KernelProgram **progs; /* by position in m->kernels */
  Mem *scratch;          /* by position among scratch parameters of the running kernel */
  int n_scratch;
  bool unset; /* no input that has a default is given */
  ThreadOrder order;
  BurinHeap heap; /* of strings and lists */
} Run;

static bool run_steps(Run *r, const Step *s);

static int64_t value_of(const Run *r, const Expr *e) {
  return interp_sym_expr(r->m->model->pool, e, r->syms);
}

static bool upper_of(const Run *r, const Expr *e, const char *name, int64_t *out) {
  int missing = -1;
  const Expr *u = expr_upper(r->m->model->pool, e, &missing);
  if (!u)
    return diag_error(r->m->model->diag, &(Loc){.node = -1, .node_name = name}, ERR_DYNAMIC,
                      "size depends on %s, which has no bound",
                      expr_symbol(r->m->model->pool, missing)->name);
  *out = value_of(r, u);
  return true;
}

static Mem fresh(Run *r, int64_t bytes) {
  const Mem mem = {
      arena_alloc(r->a, (size_t)bytes + 64), bytes, {arena_alloc(r->a, 2 * (size_t)bytes + 64), 0}};
  memset(mem.data, 0xFF, (size_t)bytes);
  memset(mem.written.tags, 0, 2 * (size_t)bytes);
  return mem;
}

/* Tags may repeat in very large programs: then a fault may be missed, never invented. */
static uint16_t tag_of(int buffer) { return (uint16_t)(1 + buffer % 65535); }

/* Slices of a file may be unaligned; runtime functions want whole elements aligned. */
static Mem weight(Run *r, const Buffer *b) {
  const int64_t bytes = b->data->count * dtype_bytes(b->dtype);
  char *data = (char *)(uintptr_t)b->data->data;
  if (bytes && (uintptr_t)data % (uintptr_t)dtype_bytes(b->dtype))
    data = arena_dup(r->a, data, (size_t)bytes);
  return (Mem){data, bytes, {0}};
}

static bool place_buffer(Run *r, const Buffer *b, Mem arena, const void *const *ins,
                         void *const *outs) {
  int64_t count = 0;
  if (b->kind != BUF_HEAP && !upper_of(r, b->count, b->name, &count)) return false;
  const int64_t bytes = count * dtype_bytes(b->dtype);
  Mem *mem = &r->mem[b->id];
  switch (b->kind) {
    case BUF_INPUT:
      *mem = !ins[b->index] && b->data ? weight(r, b) : (Mem){(char *)ins[b->index], bytes, {0}};
      break;
    case BUF_UNSET: *mem = (Mem){(char *)&r->unset, bytes, {0}}; break;
    case BUF_OUTPUT: {
      if (model_output_in_place(r->m->model, b->index)) { /* the caller's caches are there */
        *mem = (Mem){outs[b->index], bytes, {0}};
        break;
      }
      *mem = fresh(r, bytes);
      mem->data = outs[b->index];
      break;
    }
    case BUF_WEIGHT: *mem = weight(r, b); break;
    case BUF_VIEW: break;
    case BUF_HEAP: *mem = fresh(r, 0); break;
    case BUF_ARENA:
      if (!arena.data || !b->offset) {
        *mem = fresh(r, bytes);
        break;
      }
      *mem = (Mem){arena.data + value_of(r, b->offset),
                   bytes,
                   {arena.written.tags + value_of(r, b->offset), 0}};
      if (value_of(r, b->offset) < 0 || value_of(r, b->offset) + bytes > arena.bytes)
        *mem = fresh(r, 0); /* nobody uses it, or the access is reported */
      break;
  }
  if (!mem->data) *mem = fresh(r, 0); /* an empty tensor may come without memory */
  mem->written.own = tag_of(b->id);
  return true;
}

/* Bytes from `offset` elements on, or data NULL with an error. */
static Mem mem_at(Run *r, int id, const Expr *offset, int depth) {
  Diag *d = r->m->model->diag;
  if (id < 0 || id >= r->m->buffers.n || depth > 64) {
    diag_internal(d, NULL, "step uses buffer %d, which does not exist", id);
    return (Mem){0};
  }
  const Buffer *b = &r->m->buffers.data[id];
  Mem mem = b->kind == BUF_VIEW ? mem_at(r, b->base, b->offset, depth + 1) : r->mem[id];
  if (!mem.data) return mem;
  const int64_t skip = offset ? value_of(r, offset) * dtype_bytes(b->dtype) : 0;
  if (skip < 0 || skip > mem.bytes) {
    diag_internal(d, NULL, "buffer b%d: offset %" PRId64 " of %" PRId64 " bytes", id, skip,
                  mem.bytes);
    return (Mem){0};
  }
  uint16_t *const tags = mem.written.tags ? mem.written.tags + skip : NULL;
  return (Mem){mem.data + skip, mem.bytes - skip, {tags, mem.written.own}};
}

/* A step reads the first `bytes` of a buffer. */
static bool reads(const Run *r, const Mem *mem, int64_t bytes, int buffer, const Loc *loc) {
  if (written_all(&mem->written, 0, bytes)) return true;
  const char *name = r->m->buffers.data[buffer].name;
  return diag_internal(r->m->model->diag, loc, "read of what nobody wrote: buffer b%d (%s)", buffer,
                       name ? name : "");
}

static Mem mem_ref(Run *r, const BufRef *ref) { return mem_at(r, ref->buffer, ref->offset, 0); }

/* ---- kernels ---- */
static KernelProgram *program_of(Run *r, const Kernel *k) {
  for (int i = 0; i < r->m->kernels.n; i++) {
    if (r->m->kernels.data[i] != k) continue;
    if (!r->progs[i]) r->progs[i] = interp_compile(r->m, k, r->a);
    return r->progs[i];
  }
  return interp_compile(r->m, k, r->a);
}

static Mem scratch_mem(Run *r, int slot, int64_t bytes) {
  if (slot >= r->n_scratch) return fresh(r, bytes);
  if (!r->scratch[slot].data || r->scratch[slot].bytes < bytes) r->scratch[slot] = fresh(r, bytes);
  r->scratch[slot].written.own = 1;
  memset(r->scratch[slot].data, 0xFF, (size_t)bytes);
  memset(r->scratch[slot].written.tags, 0, 2 * (size_t)bytes);
  return r->scratch[slot];
}

static bool run_kernel(Run *r, const Step *s) {
  const Kernel *k = s->call.kernel;
  KernelProgram *p = program_of(r, k);
  if (!p) return false;
  void **data = ARENA_ARRAY(r->a, void *, k->params.n + 1);
  int64_t *bytes = ARENA_ARRAY(r->a, int64_t, k->params.n + 1);
  Written *written = ARENA_ARRAY(r->a, Written, k->params.n + 1);
  for (int i = 0, arg = 0, slot = 0; i < k->params.n; i++) {
    const Param *q = &k->params.data[i];
    if (!q->scratch && arg >= s->call.n_args)
      return diag_internal(r->m->model->diag, s->loc, "call of %s lacks arguments", k->name);
    const Mem mem = q->scratch
                        ? scratch_mem(r, slot++, value_of(r, q->count) * dtype_bytes(q->dtype))
                        : mem_ref(r, &s->call.args[arg++]);
    if (!mem.data) return false;
    data[i] = mem.data;
    bytes[i] = mem.bytes;
    written[i] = mem.written;
  }
  const InterpEnv env = {.params = data, .syms = r->syms, .order = r->order};
  return interp_run(p, &env, bytes, written);
}

/* ---- runtime functions ---- */
static bool make_tensor(Run *r, const TensorRef *t, RtTensor *out, bool input) {
  *out = (RtTensor){.dtype = dtype_rows[t->dtype].onnx, .rank = t->rank};
  if (t->buf.buffer < 0) return true;
  const Mem mem = mem_ref(r, &t->buf);
  out->data = mem.data;
  out->dims = ARENA_ARRAY(r->a, int64_t, t->rank + 1);
  int64_t bytes = dtype_bytes(t->dtype);
  for (int i = 0; i < t->rank; i++) bytes *= out->dims[i] = value_of(r, t->dims[i]);
  if (mem.data && bytes > mem.bytes)
    return diag_internal(r->m->model->diag, NULL,
                         "tensor of %" PRId64 " bytes in a buffer of %" PRId64, bytes, mem.bytes);
  return mem.data && (!input || reads(r, &mem, bytes, t->buf.buffer, NULL));
}

/* The function wrote all of a result, in the size that it reported. */
static void note_result(Run *r, const TensorRef *t, const RtTensor *got) {
  int64_t bytes = dtype_bytes(t->dtype);
  for (int i = 0; i < t->rank; i++) bytes *= got->dims[i];
  if (t->buf.buffer < 0 || !got->data) return;
  const Mem mem = mem_ref(r, &t->buf);
  written_set(&mem.written, 0, bytes < mem.bytes ? bytes : mem.bytes);
}

static bool take_dims(Run *r, const Step *s, const TensorRef *t, const RtTensor *got) {
  ExprPool *p = r->m->model->pool;
  for (int i = 0; i < t->rank && t->buf.buffer >= 0; i++) {
    const Symbol *sym = t->dims[i]->op == EX_SYM ? expr_symbol(p, t->dims[i]->id) : NULL;
    if (!sym || !sym->runtime) continue;
    const Expr *most = sym->bound ? expr_upper(p, sym->bound, NULL) : NULL;
    if (!most) most = sym->bound;
    if (got->dims[i] < 0 || (most && got->dims[i] > value_of(r, most)))
      return diag_error(r->m->model->diag, s->loc, ERR_VALUE,
                        "%s is %" PRId64 ", outside of its bounds", sym->name, got->dims[i]);
    r->syms[t->dims[i]->id] = got->dims[i];
  }
  return true;
}

/* A copy of the memory that the function made: others may have it, too. */
static void take_memory(Run *r, const TensorRef *t, const RtTensor *got) {
  int64_t bytes = dtype_bytes(t->dtype);
  for (int i = 0; i < t->rank; i++) bytes *= got->dims[i];
  Mem *const mem = &r->mem[t->buf.buffer];
  *mem = fresh(r, bytes);
  mem->written.own = tag_of(t->buf.buffer);
  memcpy(mem->data, got->data, (size_t)bytes);
}

/* Before a function finds them, sizes without a fixed bound stand at what they may be now. */
static void reset_dims(Run *r, const TensorRef *t) {
  ExprPool *p = r->m->model->pool;
  for (int i = 0; i < t->rank; i++) {
    const Symbol *s = t->dims[i]->op == EX_SYM ? expr_symbol(p, t->dims[i]->id) : NULL;
    if (s && s->runtime && s->bound && !expr_upper(p, s->bound, NULL))
      r->syms[t->dims[i]->id] = value_of(r, s->bound);
  }
}

static bool run_extern(Run *r, const Step *s) {
  Diag *d = r->m->model->diag;
  RtTensor *in = ARENA_ARRAY(r->a, RtTensor, s->ext.n_ins + 1),
           *out = ARENA_ARRAY(r->a, RtTensor, s->ext.n_outs + 1);
  for (int i = 0; i < s->ext.n_outs; i++) reset_dims(r, &s->ext.outs[i]);
  for (int i = 0; i < s->ext.n_ins; i++)
    if (!make_tensor(r, &s->ext.ins[i], &in[i], true)) return false;
  for (int i = 0; i < s->ext.n_outs; i++)
    if (!make_tensor(r, &s->ext.outs[i], &out[i], false)) return false;
  const Mem scratch = s->ext.scratch < 0 ? (Mem){0} : mem_at(r, s->ext.scratch, NULL, 0);
  if (!s->ext.row || !s->ext.row->fn)
    return diag_internal(d, s->loc, "runtime function is not linked in");
  const int32_t rc = ((RtOpFn)s->ext.row->fn)(in, s->ext.n_ins, out, s->ext.n_outs, s->ext.words,
                                              s->ext.row->heap ? (void *)&r->heap : scratch.data);
  if (rc != BURIN_OK)
    return diag_error(d, s->loc, ERR_VALUE, "%s failed with status %d", s->ext.row->symbol, rc);
  for (int i = 0; i < s->ext.n_outs; i++) {
    if (!take_dims(r, s, &s->ext.outs[i], &out[i])) return false;
    if (extern_makes(r->m, s, i)) take_memory(r, &s->ext.outs[i], &out[i]);
    note_result(r, &s->ext.outs[i], &out[i]);
  }
  return true;
}

/* ---- control ---- */
static bool run_copy(Run *r, const Step *s) {
  const Mem from = mem_ref(r, &s->copy.src), to = mem_ref(r, &s->copy.dst);
  if (!from.data || !to.data) return false;
  const int64_t bytes =
      value_of(r, s->copy.count) * dtype_bytes(r->m->buffers.data[s->copy.src.buffer].dtype);
  if (bytes < 0 || bytes > from.bytes || bytes > to.bytes)
    return diag_internal(r->m->model->diag, s->loc,
                         "copy of %" PRId64 " bytes from %" PRId64 " to %" PRId64, bytes,
                         from.bytes, to.bytes);
  if (!reads(r, &from, bytes, s->copy.src.buffer, s->loc)) return false;
  memmove(to.data, from.data, (size_t)bytes);
  written_set(&to.written, 0, bytes);
  return true;
}

/* Integer or bool element 0. */
static bool read_int(Run *r, const BufRef *ref, int64_t *v) {
  const Mem mem = mem_ref(r, ref);
  if (!mem.data) return false;
  const DType t = r->m->buffers.data[ref->buffer].dtype;
  if (mem.bytes < dtype_bytes(t))
    return diag_internal(r->m->model->diag, NULL, "read of an empty buffer b%d", ref->buffer);
  if (!reads(r, &mem, dtype_bytes(t), ref->buffer, NULL)) return false;
  *v = dtype_is_float(t) ? (int64_t)dtype_load_f(t, mem.data) : dtype_load_i(t, mem.data);
  return true;
}

static bool run_if(Run *r, const Step *s) {
  int64_t cond = 0;
  return read_int(r, &s->branch.cond, &cond) &&
         run_steps(r, cond ? s->branch.then : s->branch.otherwise);
}

static bool run_loop(Run *r, const Step *s) {
  int64_t i = 0, cond = 1;
  const int64_t trip = s->loop.trip ? value_of(r, s->loop.trip) : INT64_MAX;
  for (;; i++) {
    if (s->loop.cond.buffer >= 0 && !read_int(r, &s->loop.cond, &cond)) return false;
    if (i >= trip || !cond) break;
    if (s->loop.iter >= 0) r->syms[s->loop.iter] = i;
    if (!run_steps(r, s->loop.body)) return false;
  }
  if (s->loop.trips >= 0) r->syms[s->loop.trips] = i;
  return true;
}

static bool run_sym(Run *r, const Step *s) {
  int64_t v = 0;
  if (s->sym.src.buffer < 0)
    v = value_of(r, s->sym.value);
  else if (!read_int(r, &s->sym.src, &v))
    return false;
  const bool inside =
      (!s->sym.lo || v >= value_of(r, s->sym.lo)) && (!s->sym.hi || v <= value_of(r, s->sym.hi));
  if (!inside && s->sym.index == IX_LENGTH)
    return diag_error(r->m->model->diag, s->loc, ERR_VALUE,
                      "length %" PRId64 " is outside of [0, %" PRId64 "]", index_of_key(v),
                      value_of(r, s->sym.hi) / 2 - 1);
  if (!inside && s->sym.index)
    return diag_error(r->m->model->diag, s->loc, ERR_VALUE,
                      "index %" PRId64 " is outside of an axis of size %" PRId64, index_of_key(v),
                      value_of(r, s->sym.hi) / 2);
  if (!inside)
    return diag_error(r->m->model->diag, s->loc, ERR_VALUE,
                      "%s is %" PRId64 ", outside of its bounds",
                      expr_symbol(r->m->model->pool, s->sym.id)->name, v);
  r->syms[s->sym.id] = v;
  return true;
}

static bool run_check(Run *r, const DimAssume *x) {
  ExprPool *p = r->m->model->pool;
  if (value_of(r, assume_condition(p, x))) return true;
  return diag_error(r->m->model->diag, x->loc, ERR_VALUE, "%s: %" PRId64 " %s %" PRId64,
                    x->what ? x->what : "sizes", value_of(r, x->a), assume_verb(x->kind),
                    value_of(r, x->b));
}

/* Always moves it: who still had the old address would read what is no more. */
static bool run_room(Run *r, const Step *s) {
  const Buffer *b = &r->m->buffers.data[s->room.buffer];
  Mem *const mem = &r->mem[b->id], old = *mem;
  const int64_t size = dtype_bytes(b->dtype), bytes = value_of(r, s->room.count) * size,
                keep = s->room.keep ? value_of(r, s->room.keep) * size : 0;
  if (bytes < 0 || keep < 0 || keep > bytes || keep > old.bytes)
    return diag_internal(r->m->model->diag, s->loc, "b%d: room for %" PRId64 " bytes", b->id,
                         bytes);
  *mem = fresh(r, bytes);
  mem->written.own = tag_of(b->id);
  memcpy(mem->data, old.data, (size_t)keep);
  memcpy(mem->written.tags, old.written.tags, 2 * (size_t)keep);
  memset(old.data, 0xFF, (size_t)old.bytes);
  return true;
}

static bool run_step(Run *r, const Step *s) {
  switch (s->kind) {
    case STEP_KERNEL: return run_kernel(r, s);
    case STEP_EXTERN: return run_extern(r, s);
    case STEP_COPY: return run_copy(r, s);
    case STEP_IF: return run_if(r, s);
    case STEP_LOOP: return run_loop(r, s);
    case STEP_SYM: return run_sym(r, s);
    case STEP_CHECK: return run_check(r, &s->check);
    case STEP_ROOM: return run_room(r, s);
  }
  return false;
}

static bool run_steps(Run *r, const Step *s) {
  for (; s; s = s->next)
    if (!run_step(r, s)) return false;
  return true;
}

/* Until they are assigned, runtime symbols stand at their upper bounds (0 where there is none). */
static void init_runtime_syms(Run *r) {
  ExprPool *p = r->m->model->pool;
  for (int i = 0; i < expr_symbol_count(p); i++) {
    const Symbol *s = expr_symbol(p, i);
    if (!s->runtime) continue;
    const Expr *u = s->bound ? expr_upper(p, s->bound, NULL) : NULL;
    r->syms[i] = u ? value_of(r, u) : 0;
  }
}

static int count_scratch(const Module *m) {
  int most = 0;
  for (int i = 0; i < m->kernels.n; i++) {
    int n = 0;
    for (int j = 0; j < m->kernels.data[i]->params.n; j++)
      n += m->kernels.data[i]->params.data[j].scratch;
    if (n > most) most = n;
  }
  return most;
}

static bool outputs_written(Run *r) {
  for (int i = 0; i < r->m->outputs.n; i++) {
    const Buffer *b = &r->m->buffers.data[r->m->outputs.data[i]];
    const int64_t bytes = value_of(r, b->count) * dtype_bytes(b->dtype);
    if (!reads(r, &r->mem[b->id], bytes, b->id, NULL)) return false;
  }
  return true;
}

/* Results in the heap stay with the model. */
static void give_outputs(const Run *r, void *const *outs) {
  for (int i = 0; i < r->m->outputs.n; i++) {
    const Buffer *b = &r->m->buffers.data[r->m->outputs.data[i]];
    const Mem *mem = &r->mem[b->id];
    if (b->kind == BUF_HEAP)
      *(void **)outs[i] = arena_dup(r->m->model->arena, mem->data, (size_t)mem->bytes + 1);
  }
}

/* What the entry of a compiled model checks. */
static bool check_entry(Run *r) {
  const Model *m = r->m->model;
  for (int i = 0; i < expr_symbol_count(m->pool); i++) {
    const Symbol *s = expr_symbol(m->pool, i);
    const int64_t most =
        s->bound && !expr_uses_runtime(m->pool, s->bound) ? value_of(r, s->bound) : INT32_MAX;
    if (s->runtime || (r->syms[i] >= s->lo && r->syms[i] >= 0 && r->syms[i] <= most)) continue;
    return diag_error(m->diag, NULL, ERR_VALUE,
                      "%s is %" PRId64 ", must be in [%" PRId64 ", %" PRId64 "]", s->name,
                      r->syms[i], s->lo, most);
  }
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *x = &m->assumes.data[i];
    if (!assume_at_entry(m, x) || expr_uses_runtime(m->pool, x->a) ||
        expr_uses_runtime(m->pool, x->b))
      continue;
    if (!run_check(r, x)) return false;
  }
  return true;
}

/* Where one input is given, another's default must have the sizes of this run. */
static bool check_default(Run *r, const Buffer *b, bool given, const void *data) {
  const Graph *g = r->m->model->main;
  Diag *d = r->m->model->diag;
  const int64_t bytes = b->data->count * dtype_bytes(b->dtype);
  if (data && b->pinned && memcmp(data, b->data->data, (size_t)bytes) != 0)
    return diag_error(d, NULL, ERR_VALUE, "input %s: sizes were computed from its default",
                      b->name);
  for (int k = 0; g && !data && given && k < b->data->rank; k++) {
    const int64_t size = value_of(r, g->inputs.data[b->index]->dims[k]);
    if (size != b->data->dims[k])
      return diag_error(d, NULL, ERR_VALUE,
                        "input %s is not given, and its default has size %" PRId64 " where %" PRId64
                        " is needed",
                        b->name, b->data->dims[k], size);
  }
  return true;
}

static bool check_defaults(Run *r, const void *const *ins) {
  const Module *m = r->m;
  r->unset = true;
  for (int i = 0; i < m->inputs.n; i++)
    if (ins[i] && m->buffers.data[m->inputs.data[i]].data) r->unset = false;
  for (int i = 0; i < m->inputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->inputs.data[i]];
    if (b->data && !check_default(r, b, !r->unset, ins[i])) return false;
  }
  return true;
}

static bool run_module(Run *r, const void *const *ins, void *const *outs) {
  const Module *m = r->m;
  init_runtime_syms(r);
  if (!check_entry(r) || !check_defaults(r, ins)) return false;
  Mem arena = {0};
  if (m->arena_bytes) arena = fresh(r, value_of(r, m->arena_bytes));
  for (int i = 0; i < m->buffers.n; i++)
    if (!place_buffer(r, &m->buffers.data[i], arena, ins, outs)) return false;
  if (!run_steps(r, m->steps) || !outputs_written(r)) return false;
  give_outputs(r, outs);
  return true;
}

bool module_interpret(const Module *m, const void *const *ins, void *const *outs, int64_t *syms) {
  return module_interpret_in(m, ORDER_FORWARD, ins, outs, syms);
}

bool module_interpret_in(const Module *m, ThreadOrder order, const void *const *ins,
                         void *const *outs, int64_t *syms) {
  Arena *a = arena_child(m->model->arena);
  Run r = {.m = m, .a = a, .n_scratch = count_scratch(m), .order = order};
  r.heap = heap_in_arena(m->model->arena); /* results point into it */
  r.syms = syms ? syms : ARENA_ARRAY(a, int64_t, expr_symbol_count(m->model->pool) + 1);
  r.mem = ARENA_ARRAY(a, Mem, m->buffers.n + 1);
  r.progs = ARENA_ARRAY(a, KernelProgram *, m->kernels.n + 1);
  r.scratch = ARENA_ARRAY(a, Mem, r.n_scratch + 1);
  const bool ok = run_module(&r, ins, outs);
  arena_free(a);
  return ok;
}
