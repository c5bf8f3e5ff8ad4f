/* The steps of a program as C: kernels, runtime functions, copies, conditions and loops. */
#include <inttypes.h>

#include "codegen/c/c.h"
#include "codegen/host/checks.h"
#include "ir/op/op.h"

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

/* ---- buffers ---- */
static const char *with_offset(CText *c, const char *p, const Expr *offset, DType t) {
  if (!offset || expr_is_i64(offset, 0)) return p;
  return TEXT("(%s + %s * %d)", p, c_wide(c, offset), dtype_bytes(t));
}

/* As a char *. */
static const char *buffer_address(CEntry *e, int id) {
  CText *const c = e->c;
  const Buffer *const b = &e->p->m->buffers.data[id];
  switch (b->kind) {
    case BUF_INPUT: return TEXT("(char *)in[%d]", b->index);
    case BUF_UNSET: return TEXT("(char *)in[%d]", e->p->m->inputs.n);
    case BUF_OUTPUT: return TEXT("(char *)out[%d]", b->index);
    case BUF_WEIGHT: return TEXT("(char *)%s", c_weight(c, id));
    case BUF_ARENA:
      return b->offset ? TEXT("((char *)arena + %s)", c_wide(c, b->offset)) : "(char *)arena";
    case BUF_HEAP: return TEXT("(char *)(uintptr_t)sym[%d]", b->address);
    case BUF_VIEW:
      return with_offset(c, buffer_address(e, b->base), b->offset,
                         e->p->m->buffers.data[b->base].dtype);
  }
  return "(char *)arena";
}

static const char *ref_address(CEntry *e, const BufRef *r) {
  return with_offset(e->c, buffer_address(e, r->buffer), r->offset,
                     e->p->m->buffers.data[r->buffer].dtype);
}

/* ---- kernels ---- */
static void call_kernel(CEntry *e, const Step *s) {
  CText *const c = e->c;
  const Kernel *const k = s->call.kernel;
  const char *const name = TEXT("%s_%s", e->p->name, k->name);
  for (int i = 0; i < s->call.n_args; i++)
    c_line(c, "bufs[%d] = %s;", i, ref_address(e, &s->call.args[i]));
  if (!is_parallel(k)) {
    c_line(c, "%s(bufs, sym, 0, 1, scratch);", name);
    return;
  }
  const char *const n = c_wide(c, expr_var_extent(c->pool, k->body->loop.var->id));
  if (e->p->m->max_threads <= 1)
    c_line(c, "%s(bufs, sym, 0, %s, scratch);", name, n);
  else
    c_line(c, "burin_rt_parallel(&own, %s, bufs, sym, %s, %s, scratch, stride);", name, n,
           c_wide(c, kernel_min_chunk(e->p->m, k)));
}

/* ---- runtime functions ---- */
static void fill_tensor(CEntry *e, const char *array, int k, const TensorRef *r) {
  CText *const c = e->c;
  if (r->buf.buffer < 0) {
    c_line(c, "%s[%d].data = NULL, %s[%d].dims = NULL, %s[%d].dtype = %d, %s[%d].rank = %d;", array,
           k, array, k, array, k, dtype_rows[r->dtype].onnx, array, k, r->rank);
    return;
  }
  for (int i = 0; i < r->rank; i++)
    c_line(c, "%s_dims[%d][%d] = %s;", array, k, i, c_wide(c, r->dims[i]));
  const char *const address = ref_address(e, &r->buf);
  c_line(c, "%s[%d].data = %s, %s[%d].dims = %s_dims[%d], %s[%d].dtype = %d, %s[%d].rank = %d;",
         array, k, address, array, k, array, k, array, k, dtype_rows[r->dtype].onnx, array, k,
         r->rank);
}

/* Before the first call that sets it, a run-time symbol stands at its bound (again, when in a
 * loop). */
static void reset_dims(CEntry *e, const TensorRef *r) {
  CText *const c = e->c;
  for (int i = 0; i < r->rank; i++) {
    const Expr *const d = r->dims[i];
    if (d->op != EX_SYM || !expr_symbol(c->pool, d->id)->runtime || e->assigned[d->id]) continue;
    const Symbol *const s = expr_symbol(c->pool, d->id);
    if (s->bound) c_line(c, "sym[%d] = %s;", d->id, c_wide(c, program_most(e->p, s)));
  }
}

static void take_dims(CEntry *e, const TensorRef *r, int k, const Loc *loc) {
  CText *const c = e->c;
  for (int i = 0; r->buf.buffer >= 0 && i < r->rank; i++) {
    const Expr *const d = r->dims[i];
    if (d->op != EX_SYM || !expr_symbol(c->pool, d->id)->runtime) continue;
    const Symbol *const s = expr_symbol(c->pool, d->id);
    const char *const v = TEXT("outs_dims[%d][%d]", k, i);
    const char *const most = s->bound ? c_wide(c, program_most(e->p, s)) : "INT64_MAX";
    const int check = check_add(e->p, BURIN_E_DATA, loc, "%s: size %s is {0}, outside [0, {1}]",
                                check_node_text(e->p, loc), s->name);
    c_require(e, TEXT("%s >= 0 && %s <= %s", v, v, most), check, v, most, NULL);
    c_line(c, "sym[%d] = %s;", d->id, v);
    e->assigned[d->id] = true;
  }
}

static int most_rank(const TensorRef *r, int n) {
  int most = 1;
  for (int i = 0; i < n; i++)
    if (r[i].rank > most) most = r[i].rank;
  return most;
}

static void declare_tensors(CText *c, const char *array, const TensorRef *r, int n) {
  c_line(c, "RtTensor %s[%d];", array, n > 0 ? n : 1);
  c_line(c, "int64_t %s_dims[%d][%d];", array, n > 0 ? n : 1, most_rank(r, n));
  c_line(c, "(void)%s_dims;", array);
}

static void call_extern(CEntry *e, const Step *s) {
  CText *const c = e->c;
  for (int i = 0; i < s->ext.n_outs; i++) reset_dims(e, &s->ext.outs[i]);
  declare_tensors(c, "ins", s->ext.ins, s->ext.n_ins);
  declare_tensors(c, "outs", s->ext.outs, s->ext.n_outs);
  for (int i = 0; i < s->ext.n_ins; i++) fill_tensor(e, "ins", i, &s->ext.ins[i]);
  for (int i = 0; i < s->ext.n_outs; i++) fill_tensor(e, "outs", i, &s->ext.outs[i]);
  if (s->ext.n_words) {
    StrBuf b = {.arena = c->arena};
    for (int i = 0; i < s->ext.n_words; i++)
      sb_printf(&b, "%s%s", i ? ", " : "", c_i64(c, s->ext.words[i]));
    c_line(c, "static const int64_t words[] = {%s};", sb_str(&b));
  }
  c_line(c, "const int32_t status = %s(ins, %d, outs, %d, %s, %s);", s->ext.row->symbol,
         s->ext.n_ins, s->ext.n_outs, s->ext.n_words ? "words" : "NULL",
         s->ext.row->heap      ? "own.heap"
         : s->ext.scratch >= 0 ? buffer_address(e, s->ext.scratch)
                               : "NULL");
  const int check = check_call(e->p, s);
  c_line(c, "if (status != BURIN_OK) return burin_rt_fail(&own, status, %d, 0, 0, 0);", check);
  for (int i = 0; i < s->ext.n_outs; i++) {
    take_dims(e, &s->ext.outs[i], i, s->loc);
    if (!extern_makes(e->p->m, s, i)) continue;
    const Buffer *const b = &e->p->m->buffers.data[s->ext.outs[i].buf.buffer];
    c_line(c, "sym[%d] = (int64_t)(uintptr_t)outs[%d].data, sym[%d] = 0;", b->address, i, b->room);
  }
}

/* ---- profile ---- */
static void profiled(CEntry *e, const Step *s, void (*call)(CEntry *, const Step *)) {
  CText *const c = e->c;
  c_line(c, "const uint64_t since = burin_c_clock(&own);");
  call(e, s);
  const Expr *const flops = s->kind == STEP_KERNEL ? s->call.kernel->flops : NULL;
  c_line(c, "burin_c_note(&own, %d, since, (uint64_t)%s);", e->call++,
         flops ? c_wide(c, flops) : "0");
}

/* ---- control ---- */
static void copy_step(CEntry *e, const Step *s) {
  CText *const c = e->c;
  const char *const to = ref_address(e, &s->copy.dst), *const from = ref_address(e, &s->copy.src);
  c_line(c, "burin_rt_copy(%s, %s, (uint64_t)%s * %d);", to, from, c_wide(c, s->copy.count),
         dtype_bytes(e->p->m->buffers.data[s->copy.src.buffer].dtype));
}

static const char *read_int(CEntry *e, const BufRef *r) {
  CText *const c = e->c;
  const DType t = e->p->m->buffers.data[r->buffer].dtype;
  const char *const at = TEXT("*(const %s *)(const void *)%s", c_mem_type(t), ref_address(e, r));
  return c_cast(c, DT_I64, t, c_loaded(c, t, at), false);
}

static void if_step(CEntry *e, const Step *s) {
  CText *const c = e->c;
  const int n = expr_symbol_count(c->pool);
  bool *const before = arena_dup(c->arena, e->assigned, (size_t)n + 1);
  c_line(c, "if (%s != 0) {", read_int(e, &s->branch.cond));
  c->indent++;
  c_steps(e, s->branch.then);
  c->indent--;
  bool *const after = e->assigned;
  e->assigned = before;
  c_line(c, "} else {");
  c->indent++;
  c_steps(e, s->branch.otherwise);
  c->indent--;
  c_line(c, "}");
  for (int i = 0; i < n; i++) e->assigned[i] |= after[i];
}

static void loop_step(CEntry *e, const Step *s) {
  CText *const c = e->c;
  const int k = c->loops++;
  c_line(c, "const int64_t trip%d = %s;", k, s->loop.trip ? c_wide(c, s->loop.trip) : "INT64_MAX");
  c_line(c, "int64_t count%d = 0;", k);
  c_line(c, "for (; count%d < trip%d; count%d++) {", k, k, k);
  c->indent++;
  if (s->loop.cond.buffer >= 0) c_line(c, "if (%s == 0) break;", read_int(e, &s->loop.cond));
  if (s->loop.iter >= 0) c_line(c, "sym[%d] = count%d;", s->loop.iter, k);
  c_steps(e, s->loop.body);
  c->indent--;
  c_line(c, "}");
  if (s->loop.trips < 0) return;
  c_line(c, "sym[%d] = count%d;", s->loop.trips, k);
  e->assigned[s->loop.trips] = true;
}

/* The key of an index (passes/graph/check_indices.c): what is wrong with it. */
static void require_index(CEntry *e, const Step *s) {
  static const char *const texts[] = {"", "index {0} is outside of [-{1}, {1})",
                                      "index {0} is outside of [0, {1})",
                                      "length {0} is outside of [0, {1}]"};
  CText *const c = e->c;
  const char *const most = c_wide(c, s->sym.hi);
  const int check = check_add(e->p, BURIN_E_DATA, s->loc, "%s: %s", check_node_text(e->p, s->loc),
                              texts[s->sym.index]);
  c_require(e, TEXT("v <= %s", most), check, "burin_c_index(v)",
            TEXT("%s / 2%s", most, s->sym.index == IX_LENGTH ? " - 1" : ""), NULL);
}

static void sym_step(CEntry *e, const Step *s) {
  CText *const c = e->c;
  c_line(c, "const int64_t v = %s;",
         s->sym.src.buffer >= 0 ? read_int(e, &s->sym.src) : c_wide(c, s->sym.value));
  if (s->sym.index) {
    require_index(e, s);
  } else if (s->sym.lo || s->sym.hi) {
    const char *const lo = s->sym.lo ? c_wide(c, s->sym.lo) : "INT64_MIN";
    const char *const hi = s->sym.hi ? c_wide(c, s->sym.hi) : "INT64_MAX";
    const int check =
        check_add(e->p, BURIN_E_DATA, s->loc, "%s: size %s is {0}, outside [{1}, {2}]",
                  check_node_text(e->p, s->loc), expr_symbol(c->pool, s->sym.id)->name);
    c_require(e, TEXT("v >= %s && v <= %s", lo, hi), check, "v", lo, hi);
  }
  c_line(c, "sym[%d] = v;", s->sym.id);
  e->assigned[s->sym.id] = true;
}

static void room_step(CEntry *e, const Step *s) {
  CText *const c = e->c;
  const Buffer *const b = &e->p->m->buffers.data[s->room.buffer];
  const int size = dtype_bytes(b->dtype);
  const char *const count = c_wide(c, s->room.count);
  const Expr *const bytes = ex_mul(c->pool, s->room.count, ex_i64(c->pool, size));
  const int check = check_add(e->p, BURIN_E_MEMORY, s->loc, "%s: no memory for {0} elements",
                              check_node_text(e->p, s->loc));
  c_line(c, "const int64_t count = %s ? %s : -1;", c_fits(c, bytes), count);
  c_require(e,
            TEXT("burin_rt_room(own.heap, &sym[%d], &sym[%d], count, %s, %d) == BURIN_OK",
                 b->address, b->room, s->room.keep ? c_wide(c, s->room.keep) : "0", size),
            check, "count", NULL, NULL);
}

void c_steps(CEntry *e, const Step *s) {
  CText *const c = e->c;
  const Step *const outer = c->step;
  for (; s && !c->error; s = s->next) {
    c->step = s;
    c_line(c, "{");
    c->indent++;
    switch (s->kind) {
      case STEP_KERNEL: profiled(e, s, call_kernel); break;
      case STEP_EXTERN: profiled(e, s, call_extern); break;
      case STEP_COPY: copy_step(e, s); break;
      case STEP_IF: if_step(e, s); break;
      case STEP_LOOP: loop_step(e, s); break;
      case STEP_SYM: sym_step(e, s); break;
      case STEP_CHECK: c_require_assume(e, &s->check); break;
      case STEP_ROOM: room_step(e, s); break;
    }
    c->indent--;
    c_line(c, "}");
  }
  if (!c->error) c->step = outer;
}
