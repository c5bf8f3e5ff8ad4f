/* Text of kernels, modules and whole programs. One statement a line; loop_parse.c reads it back, and
 * print(parse(text)) is the same text. Constants are printed as #id; their data stand behind the
 * module (program_print). docs/ir.md has examples. */
#include <inttypes.h>
#include "ir/loop/loop.h"
#include "ir/text/frame.h"

typedef struct Printer {
  const Module *m;
  const ExprPool *p;
  StrBuf *b;
  int indent;
} Printer;

static const char *const memory[] = {"regs", "stack", "shared", "matrix"};
static const char *const reduce_text[] = {"sum", "prod", "min", "max", "and", "or"};
static const char *const for_text[] = {"",        " parallel", " unroll", " vector",
                                       " matrix", " block",    " thread"};

static void line(Printer *t) {
  for (int i = 0; i < t->indent; i++) sb_printf(t->b, "  ");
}

static void expr(Printer *t, const Expr *e) { expr_print(t->p, e, t->b); }

/* ---- kernels ---- */
static void print_access(Printer *t, char kind, int id, const Expr *index) {
  sb_printf(t->b, "%c%d[", kind, id);
  expr(t, index);
  sb_putc(t->b, ']');
}

static void print_block(Printer *t, const Stmt *s);

static void print_for(Printer *t, const Stmt *s) {
  const Expr *lo = expr_var_lo(t->p, s->loop.var->id);
  sb_printf(t->b, "for %s in ", expr_var_name(t->p, s->loop.var->id));
  if (lo && !expr_is_i64(lo, 0)) {
    expr(t, lo);
    sb_printf(t->b, "..+");
  } else {
    sb_printf(t->b, "0..");
  }
  expr(t, expr_var_extent(t->p, s->loop.var->id));
  sb_printf(t->b, "%s {\n", for_text[s->loop.kind]);
  print_block(t, s->loop.body);
  line(t);
  sb_printf(t->b, "}\n");
}

static void print_if(Printer *t, const Stmt *s) {
  sb_printf(t->b, "if ");
  expr(t, s->branch.cond);
  sb_printf(t->b, " {\n");
  print_block(t, s->branch.then);
  line(t);
  if (s->branch.otherwise) {
    sb_printf(t->b, "} else {\n");
    print_block(t, s->branch.otherwise);
    line(t);
  }
  sb_printf(t->b, "}\n");
}

static void print_stmt(Printer *t, const Stmt *s) {
  line(t);
  switch (s->kind) {
    case ST_FOR: print_for(t, s); return;
    case ST_IF: print_if(t, s); return;
    case ST_LOCAL: sb_printf(t->b, "local t%d\n", s->access.id); return;
    case ST_PREFETCH:
      sb_printf(t->b, "prefetch ");
      print_access(t, 'b', s->access.id, s->access.index);
      sb_putc(t->b, '\n');
      return;
    case ST_STORE:
    case ST_SET:
    case ST_ACC: break;
  }
  print_access(t, s->kind == ST_STORE ? 'b' : 't', s->access.id, s->access.index);
  sb_printf(t->b, " %s= ", s->kind == ST_ACC ? reduce_text[s->access.reduce] : "");
  expr(t, s->access.value);
  sb_putc(t->b, '\n');
}

static void print_block(Printer *t, const Stmt *s) {
  t->indent++;
  for (; s; s = s->next) print_stmt(t, s);
  t->indent--;
}

static void print_name(Printer *t, const char *name) {
  if (!name) return;
  sb_putc(t->b, ' ');
  sb_quoted(t->b, name);
}

static void print_param(Printer *t, const Param *q, int id) {
  static const char *const access[] = {"none", "read", "write", "readwrite"};
  line(t);
  sb_printf(t->b, "param b%d : %s[", id, dtype_text(q->dtype));
  expr(t, q->count);
  sb_printf(t->b, "] %s%s%s align %d", access[q->access & 3], q->constant ? " const" : "",
            q->scratch ? " scratch" : "", q->align);
  print_name(t, q->name);
  sb_putc(t->b, '\n');
}

static void print_kernel(Printer *t, const Kernel *k) {
  line(t);
  sb_printf(t->b, "kernel %s", k->name);
  if (k->flops) {
    sb_printf(t->b, " flops ");
    expr(t, k->flops);
  }
  if (k->grain != 0) sb_printf(t->b, " grain %.17g", k->grain);
  frame_loc(k->loc, t->b);
  sb_printf(t->b, " {\n");
  t->indent++;
  for (int i = 0; i < k->params.n; i++) print_param(t, &k->params.data[i], i);
  for (int i = 0; i < k->locals.n; i++) {
    const Local *l = &k->locals.data[i];
    line(t);
    sb_printf(t->b, "local t%d : %s[%" PRId64 "] %s", i, dtype_text(l->dtype), l->count,
              memory[l->memory]);
    if (l->late) sb_printf(t->b, " late %d", l->late);
    print_name(t, l->name);
    sb_putc(t->b, '\n');
  }
  t->indent--;
  print_block(t, k->body);
  line(t);
  sb_printf(t->b, "}\n");
}

void kernel_print(const Module *m, const Kernel *k, StrBuf *b) {
  Printer t = {m, m->model->pool, b, 0};
  print_kernel(&t, k);
}

/* ---- buffers and symbols ---- */
static void print_symbol_name(Printer *t, int id) {
  ExprPool *p = (ExprPool *)t->p;
  expr(t, ex_sym(p, expr_symbol(p, id)->name));
}

static void print_symbol(Printer *t, int id) {
  const Symbol *s = expr_symbol((ExprPool *)t->p, id);
  line(t);
  sb_printf(t->b, "symbol ");
  print_symbol_name(t, id);
  sb_printf(t->b, " %" PRId64, s->lo);
  if (s->runtime) sb_printf(t->b, " runtime");
  if (s->bound) {
    sb_printf(t->b, " bound ");
    expr(t, s->bound);
  }
  sb_putc(t->b, '\n');
}

static void print_ref(Printer *t, const BufRef *r) {
  if (r->buffer < 0) {
    sb_putc(t->b, '-');
    return;
  }
  sb_printf(t->b, "b%d", r->buffer);
  if (!r->offset) return;
  sb_printf(t->b, " at (");
  expr(t, r->offset);
  sb_putc(t->b, ')');
}

static void print_buffer(Printer *t, const Buffer *b) {
  static const char *const kinds[] = {"input", "output", "weight", "arena",
                                      "view",  "unset",  "heap"};
  line(t);
  sb_printf(t->b, "b%d : %s[", b->id, dtype_text(b->dtype));
  expr(t, b->count);
  sb_printf(t->b, "] = %s", kinds[b->kind]);
  if (b->kind == BUF_INPUT || b->kind == BUF_OUTPUT) sb_printf(t->b, " %d", b->index);
  if (b->kind == BUF_WEIGHT) sb_printf(t->b, " #%d", b->data ? b->data->id : -1);
  if (b->kind == BUF_INPUT && b->data)
    sb_printf(t->b, " default #%d%s", b->data->id, b->pinned ? " pinned" : "");
  if (b->kind == BUF_VIEW) sb_printf(t->b, " b%d", b->base);
  if (b->kind == BUF_HEAP) {
    sb_putc(t->b, ' ');
    print_symbol_name(t, b->address);
    sb_putc(t->b, ' ');
    print_symbol_name(t, b->room);
    if (b->index >= 0) sb_printf(t->b, " output %d", b->index);
  }
  if (b->offset) {
    sb_printf(t->b, " at (");
    expr(t, b->offset);
    sb_putc(t->b, ')');
  }
  if (b->inplace_of >= 0) sb_printf(t->b, " inplace b%d", b->inplace_of);
  print_name(t, b->name);
  sb_putc(t->b, '\n');
}

/* ---- steps ---- */
static void print_steps(Printer *t, const Step *s);

static void print_tensor(Printer *t, const TensorRef *r) {
  if (r->buf.buffer < 0) {
    sb_putc(t->b, '-');
    return;
  }
  sb_printf(t->b, "%s[", dtype_text(r->dtype));
  for (int i = 0; i < r->rank; i++) {
    if (i) sb_printf(t->b, ", ");
    expr(t, r->dims[i]);
  }
  sb_printf(t->b, "] ");
  print_ref(t, &r->buf);
}

static void print_tensors(Printer *t, const TensorRef *r, int n) {
  for (int i = 0; i < n; i++) {
    if (i) sb_printf(t->b, "; ");
    print_tensor(t, &r[i]);
  }
}

/* A call has the location of its kernel unless it says otherwise. */
static void print_step_end(Printer *t, const Step *s) {
  if (s->kind != STEP_KERNEL || !loc_same(s->loc, s->call.kernel->loc)) frame_loc(s->loc, t->b);
  sb_putc(t->b, '\n');
}

static void print_call(Printer *t, const Step *s) {
  sb_printf(t->b, "call %s(", s->call.kernel ? s->call.kernel->name : "?");
  for (int i = 0; i < s->call.n_args; i++) {
    if (i) sb_printf(t->b, ", ");
    print_ref(t, &s->call.args[i]);
  }
  sb_putc(t->b, ')');
  print_step_end(t, s);
}

static void print_extern(Printer *t, const Step *s) {
  sb_printf(t->b, "extern %s(", s->ext.row ? s->ext.row->symbol : "?");
  print_tensors(t, s->ext.ins, s->ext.n_ins);
  sb_printf(t->b, ") -> (");
  print_tensors(t, s->ext.outs, s->ext.n_outs);
  sb_printf(t->b, ") words {");
  for (int i = 0; i < s->ext.n_words; i++)
    sb_printf(t->b, "%s%" PRId64, i ? ", " : "", s->ext.words[i]);
  sb_printf(t->b, "}");
  if (s->ext.scratch >= 0) sb_printf(t->b, " scratch b%d", s->ext.scratch);
  print_step_end(t, s);
}

static void print_copy(Printer *t, const Step *s) {
  sb_printf(t->b, "copy ");
  print_ref(t, &s->copy.src);
  sb_printf(t->b, " -> ");
  print_ref(t, &s->copy.dst);
  sb_printf(t->b, " count ");
  expr(t, s->copy.count);
  print_step_end(t, s);
}

static void print_body(Printer *t, const Step *s) {
  t->indent++;
  print_steps(t, s);
  t->indent--;
  line(t);
}

static void print_if_step(Printer *t, const Step *s) {
  sb_printf(t->b, "if ");
  print_ref(t, &s->branch.cond);
  frame_loc(s->loc, t->b);
  sb_printf(t->b, " {\n");
  print_body(t, s->branch.then);
  if (s->branch.otherwise) {
    sb_printf(t->b, "} else {\n");
    print_body(t, s->branch.otherwise);
  }
  sb_printf(t->b, "}\n");
}

static void print_loop_step(Printer *t, const Step *s) {
  sb_printf(t->b, "loop cond ");
  print_ref(t, &s->loop.cond);
  if (s->loop.iter >= 0) {
    sb_printf(t->b, " iter ");
    print_symbol_name(t, s->loop.iter);
  }
  if (s->loop.trips >= 0) {
    sb_printf(t->b, " trips ");
    print_symbol_name(t, s->loop.trips);
  }
  if (s->loop.trip) {
    sb_printf(t->b, " limit ");
    expr(t, s->loop.trip);
  }
  frame_loc(s->loc, t->b);
  sb_printf(t->b, " {\n");
  print_body(t, s->loop.body);
  sb_printf(t->b, "}\n");
}

static void print_sym_step(Printer *t, const Step *s) {
  sb_printf(t->b, "sym ");
  print_symbol_name(t, s->sym.id);
  if (s->sym.src.buffer >= 0) {
    sb_printf(t->b, " from ");
    print_ref(t, &s->sym.src);
  } else {
    sb_printf(t->b, " = ");
    expr(t, s->sym.value);
  }
  static const char *const rules[] = {"", " index", " index positive", " length"};
  sb_printf(t->b, "%s", rules[s->sym.index]);
  if (s->sym.lo) {
    sb_printf(t->b, " min ");
    expr(t, s->sym.lo);
  }
  if (s->sym.hi) {
    sb_printf(t->b, " max ");
    expr(t, s->sym.hi);
  }
  print_step_end(t, s);
}

static void print_check_step(Printer *t, const Step *s) {
  sb_printf(t->b, "check ");
  assume_print(t->m->model->pool, &s->check, t->b);
  print_step_end(t, s);
}

static void print_room_step(Printer *t, const Step *s) {
  sb_printf(t->b, "room b%d count ", s->room.buffer);
  expr(t, s->room.count);
  if (s->room.keep) {
    sb_printf(t->b, " keep ");
    expr(t, s->room.keep);
  }
  print_step_end(t, s);
}

static void print_steps(Printer *t, const Step *s) {
  for (; s; s = s->next) {
    line(t);
    switch (s->kind) {
      case STEP_KERNEL: print_call(t, s); break;
      case STEP_EXTERN: print_extern(t, s); break;
      case STEP_COPY: print_copy(t, s); break;
      case STEP_IF: print_if_step(t, s); break;
      case STEP_LOOP: print_loop_step(t, s); break;
      case STEP_SYM: print_sym_step(t, s); break;
      case STEP_CHECK: print_check_step(t, s); break;
      case STEP_ROOM: print_room_step(t, s); break;
    }
  }
}

/* ---- modules ---- */
/* Buffers of inputs or outputs, with type and name where the program has an interface. */
static void print_ids(Printer *t, bool outputs) {
  const Graph *g = t->m->model->main;
  const int n = outputs ? t->m->outputs.n : t->m->inputs.n;
  const int *ids = outputs ? t->m->outputs.data : t->m->inputs.data;
  const bool typed = g && (outputs ? g->outputs.n : g->inputs.n) == n;
  line(t);
  sb_printf(t->b, outputs ? "outputs" : "inputs");
  for (int i = 0; i < n; i++) {
    sb_printf(t->b, "%s b%d", i ? "," : "", ids[i]);
    if (!typed) continue;
    const Value *v = outputs ? g->outputs.data[i] : g->inputs.data[i];
    sb_printf(t->b, " : ");
    frame_type(t->m->model, v, t->b);
    const char *name = outputs && i < g->output_names.n ? g->output_names.data[i] : NULL;
    print_name(t, name ? name : v->name);
    if (outputs) frame_keys(graph_output_keys(g, i), t->b);
    frame_list(t->m->model, graph_list(g, i, outputs), t->b);
  }
  sb_putc(t->b, '\n');
}

static void print_plan(Printer *t) {
  line(t);
  sb_printf(t->b, "arena ");
  expr(t, t->m->arena_bytes);
  sb_printf(t->b, " scratch ");
  expr(t, t->m->scratch_bytes);
  sb_printf(t->b, " lower %" PRId64 "\n", t->m->arena_lower_bound);
}

void module_print(const Module *m, StrBuf *b) {
  Printer t = {m, m->model->pool, b, 1};
  sb_printf(b, "module threads %d {\n", m->max_threads);
  for (int i = 0; i < expr_symbol_count(t.p); i++) print_symbol(&t, i);
  for (int i = 0; i < m->buffers.n; i++) print_buffer(&t, &m->buffers.data[i]);
  print_ids(&t, false);
  print_ids(&t, true);
  if (m->arena_bytes && m->scratch_bytes) print_plan(&t);
  for (int i = 0; i < m->kernels.n; i++) print_kernel(&t, m->kernels.data[i]);
  line(&t);
  sb_printf(b, "steps {\n");
  t.indent++;
  print_steps(&t, m->steps);
  t.indent--;
  line(&t);
  sb_printf(b, "}\n}\n");
}
