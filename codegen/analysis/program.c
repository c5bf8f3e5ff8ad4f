/* Facts about the whole program: public symbols, calls in order, what the calls of each kernel have
 * in common. */
#include "codegen/analysis/program.h"

#include <ctype.h>
#include <string.h>

#include "ir/expr/expr_query.h"

static bool is_no_matrix_loop(void *user, Stmt *s) {
  (void)user;
  return s->kind != ST_FOR || s->loop.kind != FOR_MATRIX;
}

bool kernel_has_matrix(const Kernel *k) { return !stmt_each(k->body, is_no_matrix_loop, NULL); }

bool program_uses_matrices(const Program *p) {
  for (int i = 0; i < p->m->kernels.n; i++) {
    const Kernel *const k = p->m->kernels.data[i];
    if (!kernel_is_grid(k) && kernel_has_matrix(k)) return true;
  }
  return false;
}

uint64_t program_cpu_features(const Program *p) {
  return target_cpu_features(p->t, program_uses_matrices(p),
                             expr_pool_has(p->m->model->pool, DT_BF16));
}

bool is_parallel(const Kernel *k) {
  return k->body && k->body->kind == ST_FOR && k->body->loop.kind == FOR_PARALLEL && !k->body->next;
}

/* By the kernel's operations, where they depend on symbols: an iteration may be a block of rows, of which
 * few are there. */
const Expr *kernel_min_chunk(const Module *m, const Kernel *k) {
  ExprPool *const p = m->model->pool;
  const Expr *const n = expr_var_extent(p, k->body->loop.var->id), *const one = ex_i64(p, 1);
  if (!(k->grain > 0)) return one;
  const double iterations = THREAD_CYCLES / k->grain, most = 1e12;
  if (!k->flops || k->flops->op == EX_CONST)
    return ex_i64(p, iterations < 1 ? 1 : (int64_t)(iterations < most ? iterations : most));
  const double flops = iterations / expr_extent_guess(p, n) * expr_extent_guess(p, k->flops);
  const Expr *const least = ex_i64(p, flops < 1 ? 1 : (int64_t)(flops < most ? flops : most));
  return ex_max(p, one, ex_floordiv(p, ex_mul(p, n, least), ex_max(p, one, k->flops)));
}

static const char *base_name(const char *path) {
  const char *const slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

const Expr *param_bytes64(const Module *m, const Param *p) {
  ExprPool *const pool = m->model->pool;
  const Expr *const bytes = ex_mul(pool, p->count, ex_i64(pool, dtype_bytes(p->dtype)));
  return ex_mul(pool, ex_ceildiv(pool, bytes, 64), ex_i64(pool, 64));
}

const Expr *kernel_scratch_bytes(const Module *m, const Kernel *k) {
  const Expr *sum = NULL;
  for (int i = 0; i < k->params.n; i++) {
    if (!k->params.data[i].scratch) continue;
    const Expr *const bytes = param_bytes64(m, &k->params.data[i]);
    sum = sum ? ex_add(m->model->pool, sum, bytes) : bytes;
  }
  return sum;
}

/* ---- symbols ---- */
static bool see_sym(void *user, const Expr *e) {
  if (e->op == EX_SYM) ((bool *)user)[e->id] = true;
  return false;
}

static void collect_syms(const Expr *e, bool *seen) {
  if (e) expr_any(e, EXF_SYM, see_sym, seen);
}

static void collect_value_syms(const Value *v, bool *seen) {
  for (int i = 0; i < v->rank; i++) collect_syms(v->dims[i], seen);
}

static void find_symbols(Program *p) {
  ExprPool *const pool = p->m->model->pool;
  const Graph *const g = p->m->model->main;
  const int n = expr_symbol_count(pool);
  bool *const seen = ARENA_ARRAY(p->arena, bool, n + 1);
  if (g) {
    for (int i = 0; i < g->inputs.n; i++) collect_value_syms(g->inputs.data[i], seen);
    for (int i = 0; i < g->outputs.n; i++) collect_value_syms(g->outputs.data[i], seen);
  }
  for (int i = 0; i < p->m->buffers.n; i++) collect_syms(p->m->buffers.data[i].count, seen);
  p->symbols = ARENA_ARRAY(p->arena, int, n + 1);
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < n; i++)
      if (seen[i] && expr_symbol(pool, i)->runtime == (pass == 1)) p->symbols[p->n_symbols++] = i;
    if (pass == 0) {
      p->n_caller = p->n_symbols;
      memset(seen, 0, (size_t)n);
      for (int i = 0; g && i < g->outputs.n; i++) collect_value_syms(g->outputs.data[i], seen);
    }
  }
}

int program_kernel_position(const Program *p, const Kernel *k) {
  int i = 0;
  while (p->m->kernels.data[i] != k) i++;
  return i;
}

int program_symbol(const Program *p, int id) {
  for (int i = 0; i < p->n_symbols; i++)
    if (p->symbols[i] == id) return i;
  return -1;
}

/* ---- names ---- */
const char *program_c_name(Arena *a, const char *name, const char *fallback, int k) {
  static const char *const taken[] = {
      "auto",     "break",   "case",   "char",      "const",    "continue", "default",   "do",
      "double",   "else",    "enum",   "extern",    "float",    "for",      "goto",      "if",
      "inline",   "int",     "long",   "register",  "restrict", "return",   "short",     "signed",
      "sizeof",   "static",  "struct", "switch",    "typedef",  "union",    "unsigned",  "void",
      "volatile", "while",   "bool",   "true",      "false",    "class",    "new",       "delete",
      "this",     "private", "public", "protected", "template", "typename", "namespace", "operator",
      "using",    "virtual", "friend", "try",       "catch",    "throw",    "and",       "or",
      "not",      "xor",     "asm",    "export",    "mutable",  "explicit", "nullptr",   "int8_t",
      "int16_t",  "int32_t", "int64_t"};
  if (!name || !*name) return arena_printf(a, "%s%d", fallback, k);
  char *const s = arena_strdup(a, name);
  bool letter = false;
  for (char *c = s; *c; c++) {
    if (!isalnum((unsigned char)*c) || (unsigned char)*c > 127) *c = '_';
    letter |= *c != '_';
  }
  if (!letter) return arena_printf(a, "%s%d", fallback, k);
  for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
    if (strcmp(taken[i], s) == 0) return arena_printf(a, "%s_", s);
  return isdigit((unsigned char)s[0]) || s[0] == '_' ? arena_printf(a, "%s_%s", fallback, s) : s;
}

const char *program_input_name(const Program *p, int k) {
  const Graph *const g = p->m->model->main;
  const char *const name = g && k < g->inputs.n ? g->inputs.data[k]->name : NULL;
  return name ? name : arena_printf(p->arena, "input%d", k);
}

const char *program_output_name(const Program *p, int k) {
  const Graph *const g = p->m->model->main;
  if (g && k < g->output_names.n && g->output_names.data[k]) return g->output_names.data[k];
  const char *const name = g && k < g->outputs.n ? g->outputs.data[k]->name : NULL;
  return name ? name : arena_printf(p->arena, "output%d", k);
}

const char *program_shape_text(const Program *p, const Value *v) {
  StrBuf b = {.arena = p->arena};
  sb_printf(&b, "%s[", dtype_text(v->dtype));
  for (int i = 0; i < v->rank; i++) {
    const char *text = expr_text(p->m->model->pool, v->dims[i]);
    sb_printf(&b, "%s", i ? "," : "");
    for (; *text; text++)
      if (*text != '$') sb_putc(&b, *text);
  }
  sb_putc(&b, ']');
  return sb_str(&b);
}

const char *program_io_text(const Program *p, int k, bool output) {
  const Graph *const g = p->m->model->main;
  const ListType *const l = graph_list(g, k, output);
  return l ? list_text(p->arena, l)
           : program_shape_text(p, output ? g->outputs.data[k] : g->inputs.data[k]);
}

const char *program_node_list(Arena *a, const Loc *loc) {
  StrBuf b = {.arena = a};
  sb_printf(&b, "%s", "");
  for (int n = 0; loc && n < 64; loc = loc->also, n++) {
    if (!loc->node_name && !loc->op) continue;
    sb_printf(&b, "%s%s%s%s", b.n ? ", " : "", loc->node_name ? loc->node_name : "",
              loc->op ? ":" : "", loc->op ? loc->op : "");
  }
  return sb_str(&b);
}

const Loc *program_kernel_loc(const Program *p, int k) {
  const Kernel *const kernel = p->m->kernels.data[k];
  if (kernel->loc) return kernel->loc;
  for (int i = 0; i < p->calls.n; i++) {
    const Step *const s = p->calls.data[i];
    if (s->kind == STEP_KERNEL && s->call.kernel == kernel && s->loc) return s->loc;
  }
  return NULL;
}

/* ---- calls ---- */
typedef struct Place { /* memory that an argument points to */
  int root;            /* buffer: input, output, weight or arena */
  int align;           /* bytes that the distance from its start is a multiple of, at most 64 */
} Place;

static int offset_align(const Expr *offset, DType t, int align) {
  int64_t k;
  if (!offset) return align;
  if (!expr_is_const(offset, &k)) return dtype_bytes(t);
  while (align > 1 && k * dtype_bytes(t) % align) align /= 2;
  return align;
}

static Place place_of(const Module *m, const BufRef *r) {
  Place pl = {r->buffer, offset_align(r->offset, m->buffers.data[r->buffer].dtype, 64)};
  while (m->buffers.data[pl.root].kind == BUF_VIEW) {
    const Buffer *const b = &m->buffers.data[pl.root];
    pl.align = offset_align(b->offset, m->buffers.data[b->base].dtype, pl.align);
    pl.root = b->base;
  }
  return pl;
}

static bool may_overlap(const Module *m, Place a, Place b) {
  if (a.root == b.root) return true;
  const Buffer *const x = &m->buffers.data[a.root], *const y = &m->buffers.data[b.root];
  if (x->kind != BUF_ARENA || y->kind != BUF_ARENA) return false;
  if (!x->offset || !y->offset) return true;
  int64_t xo, yo, xn, yn;
  if (expr_is_const(x->offset, &xo) && expr_is_const(y->offset, &yo) &&
      expr_is_const(x->count, &xn) && expr_is_const(y->count, &yn))
    return xo < yo + yn * dtype_bytes(y->dtype) && yo < xo + xn * dtype_bytes(x->dtype);
  /* Symbolic plans: buffers that live at the same time are apart unless one takes the other's
   * place. */
  return x->offset == y->offset || x->inplace_of >= 0 || y->inplace_of >= 0;
}

/* The caller's tensors are aligned to their elements; where a device takes them, as it wants it. */
static int place_align(const Program *p, const Buffer *arg, Place pl) {
  const Buffer *const b = &p->m->buffers.data[pl.root];
  const bool ours = b->kind == BUF_ARENA || b->kind == BUF_WEIGHT || b->kind == BUF_HEAP;
  const int given = target_has_grids(p->t) ? GPU_BORDER_ALIGN : dtype_bytes(arg->dtype);
  const int align = ours || pl.align < given ? pl.align : given;
  return align > dtype_bytes(arg->dtype) ? align : dtype_bytes(arg->dtype);
}

/* Constant bytes none of which is -128. */
static bool bytes_negate(const Buffer *b) {
  const ConstData *d = b->kind == BUF_WEIGHT ? b->data : NULL;
  return d && !memchr(d->data, 0x80, (size_t)d->count * (size_t)dtype_bytes(d->dtype));
}

static void note_call(Program *p, KernelFacts *f, const Step *s) {
  const Kernel *const k = s->call.kernel;
  int *const param = ARENA_ARRAY(p->arena, int, s->call.n_args + 1);
  for (int i = 0, a = 0; i < k->params.n; i++)
    if (!k->params.data[i].scratch && a < s->call.n_args) param[a++] = i;
  for (int i = 0; i < s->call.n_args; i++) {
    const Place pi = place_of(p->m, &s->call.args[i]);
    const int align = place_align(p, &p->m->buffers.data[s->call.args[i].buffer], pi);
    if (align < f->align[param[i]]) f->align[param[i]] = align;
    f->negates[param[i]] = f->negates[param[i]] && bytes_negate(&p->m->buffers.data[pi.root]);
    for (int j = 0; j < i; j++) {
      const bool writes =
          (k->params.data[param[i]].access | k->params.data[param[j]].access) & PA_WRITE;
      if (writes && may_overlap(p->m, pi, place_of(p->m, &s->call.args[j])))
        f->alias[param[i]] = f->alias[param[j]] = true;
    }
  }
}

static int kernel_position(const Module *m, const Kernel *k) {
  for (int i = 0; i < m->kernels.n; i++)
    if (m->kernels.data[i] == k) return i;
  return -1;
}

static bool note_step(void *user, Step *s) {
  Program *const p = user;
  if (s->kind == STEP_KERNEL || s->kind == STEP_EXTERN) vec_push(p->arena, &p->calls, s);
  p->uses_heap |= s->kind == STEP_ROOM || (s->kind == STEP_EXTERN && s->ext.row->heap);
  const int k = s->kind == STEP_KERNEL ? kernel_position(p->m, s->call.kernel) : -1;
  if (k >= 0) note_call(p, &p->facts[k], s);
  return true;
}

static void init_facts(Program *p) {
  p->facts = ARENA_ARRAY(p->arena, KernelFacts, p->m->kernels.n + 1);
  for (int i = 0; i < p->m->kernels.n; i++) {
    const Kernel *const k = p->m->kernels.data[i];
    p->facts[i].alias = ARENA_ARRAY(p->arena, bool, k->params.n + 1);
    p->facts[i].align = ARENA_ARRAY(p->arena, int, k->params.n + 1);
    p->facts[i].negates = ARENA_ARRAY(p->arena, bool, k->params.n + 1);
    for (int j = 0; j < k->params.n; j++) {
      p->facts[i].negates[j] = !k->params.data[j].scratch;
      p->facts[i].align[j] = k->params.data[j].scratch ? 64 : k->params.data[j].align;
    }
  }
}

const ConstData *program_default(const Program *p, int k) {
  return model_input_in_place(p->m->model, k) ? NULL
                                              : p->m->buffers.data[p->m->inputs.data[k]].data;
}

void program_init(Program *p, const Module *m, const Target *t, const CodegenOptions *o,
                  Arena *arena) {
  *p = (Program){.m = m, .t = t, .o = o, .arena = arena, .arena_align = 64};
  p->name = program_c_name(arena, o->name, "model", 0);
  find_symbols(p);
  init_facts(p);
  step_each(m->steps, note_step, p);
  p->weights = weights_layout(m, arena);
  for (int i = 0; i < m->inputs.n; i++)
    if (program_default(p, i)) p->defaults = true;
  for (int i = 0; i < m->outputs.n; i++)
    p->heap_outputs |= m->buffers.data[m->outputs.data[i]].kind == BUF_HEAP;
  if (o->external_weights && p->weights.bytes)
    weights_in_file(&p->weights,
                    arena_printf(arena, "%s.weights", base_name(o->output ? o->output : p->name)));
  p->checks = ARENA_NEW(arena, CheckList);
  p->figures = ARENA_NEW(arena, FigureList);
}

bool program_fixed_arena(const Module *m, int64_t *one_thread, int64_t *further) {
  int64_t arena = 0;
  *further = 0;
  const bool fixed = (!m->arena_bytes || expr_is_const(m->arena_bytes, &arena)) &&
                     (!m->scratch_bytes || expr_is_const(m->scratch_bytes, further));
  *one_thread = (arena + 63) / 64 * 64 + *further;
  return fixed;
}

bool program_caller_arena(const Program *p, int64_t *one_thread, int64_t *further) {
  if (!p->launches) return program_fixed_arena(p->m, one_thread, further);
  *one_thread = *further = 0;
  return true;
}

const char *const *program_exports(const Program *p) {
  static const char *const stems[] = {"run",
                                      "run_opts",
                                      "info",
                                      "arena_size",
                                      "output_dims",
                                      "cpu_ok",
                                      "failure_text",
                                      /* where a device runs the kernels: */ "cuda_create",
                                      "cuda_destroy",
                                      "cuda_run_async",
                                      /* and the fake driver of tests asks for them: */ "gpu"};
  const Gpu *const gpu = p->t->gpu;
  const int n = !gpu ? 7 : gpu->sm ? 10 : 11;
  const char **const names = ARENA_ARRAY(p->arena, const char *, n + 1);
  for (int i = 0; i < n; i++) names[i] = arena_printf(p->arena, "%s_%s", p->name, stems[i]);
  return names;
}
