/* Computes what depends on constants only and is too long for fold_constants: such nodes, with all
 * that lies between them, become a program of their own, which is lowered like any other and run at
 * once: by the driver (PassCtx.run_constants: compiled for this target, where this machine can run
 * it) when it is long or adds floats, else by the interpreter. How long it takes does not matter;
 * what it would add to the weights does. */
#include <string.h>
#include "passes/build/kernel.h"
#include "passes/graph/rewrite.h"

enum { COMPUTED = 1, STAYS = 2 };               /* Node.mark: here; in the graph */
static const int64_t max_bytes = 256 << 20;     /* of one result, and of a value between them */
static const double interpreted_work = 2e7;     /* operations that are not worth a compilation */
static const double max_interpreted_work = 4e9; /* where there is nobody to run compiled code */
enum { LARGE = 4096 }; /* bytes: larger constants are inputs of the program */

typedef struct Constants {
  PassCtx *c;
  Graph *g;
  int64_t *leaf; /* by value id: bytes of the largest constants that it is computed from */
  const Uses *uses;
  Forward f;
  /* the program */
  Model *sub;
  Value **to; /* by value id: its stand-in there */
  Vec(const void *) in;
  Vec(Value *) out;
} Constants;

/* ---- which nodes ---- */

static bool is_plain(DType t) {
  const DClass c = dtype_rows[t].cls;
  return c == DC_BOOL || c == DC_UINT || c == DC_SINT || c == DC_FLOAT;
}

/* Bytes of v; -1: not known, or more than may be computed here. */
static int64_t bytes_of(const Value *v) {
  int64_t dims[MAX_RANK], n = dtype_bytes(v->dtype);
  if (v->kind != TY_TENSOR || !is_plain(v->dtype) || !value_is_static(v, dims)) return -1;
  for (int d = 0; d < v->rank; d++)
    if (dims[d] < 0 || !ck_mul(n, dims[d], &n)) return -1;
  return n <= max_bytes ? n : -1;
}

static bool is_computed(const Constants *t, const Value *v) {
  return v->def && !v->cdata && v->def->graph == t->g && (v->def->mark & COMPUTED);
}

/* n depends on constants only; leaf[] of its outputs is set. */
static bool can_compute(Constants *t, const Node *n) {
  const OpBody b = n->op->body;
  int64_t read = 0, most = 0;
  if ((b != OB_EW && b != OB_ELEM && b != OB_EXTERN) || (n->op->flags & OF_RANDOM) || n->n_syms)
    return false;
  if (b == OB_EXTERN && n->op->ext->heap) return false; /* numbers of strings of that run's heap */
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    if (!v) continue;
    if (v->cdata ? !is_plain(v->dtype) : !is_computed(t, v)) return false;
    if (v->cdata)
      read += v->cdata->count * dtype_bytes(v->dtype);
    else if (t->leaf[v->id] > most)
      most = t->leaf[v->id];
  }
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k]) continue;
    if (bytes_of(n->out[k]) < 0) return false;
    t->leaf[n->out[k]->id] = read > most ? read : most;
  }
  return true;
}

/* Somebody reads v when the model runs. */
static bool is_read(const Constants *t, const Value *v) {
  if (t->uses->outputs[v->id]) return true;
  for (int i = 0; i < t->uses->of[v->id].n; i++) {
    const Node *user = t->uses->of[v->id].data[i];
    if (user->graph != t->g || (user->mark & STAYS)) return true;
  }
  return false;
}

static bool is_needed(const Constants *t, const Value *v) {
  for (int i = 0; i < t->uses->of[v->id].n; i++) {
    const Node *user = t->uses->of[v->id].data[i];
    if (user->graph == t->g && (user->mark & COMPUTED)) return true;
  }
  return false;
}

/* It is read, and does not add much to the weights. */
static bool becomes_constant(const Constants *t, const Value *v) {
  return is_read(t, v) && bytes_of(v) <= 8 * t->leaf[v->id] + 65536;
}

/* Of a node that can be computed, when those of its users are known. */
static int final_mark(const Constants *t, const Node *n) {
  int mark = 0;
  for (int k = 0; k < n->n_out; k++) {
    const Value *v = n->out[k];
    if (!v) continue;
    const bool becomes = becomes_constant(t, v);
    if (becomes || is_needed(t, v)) mark |= COMPUTED;
    if (is_read(t, v) && !becomes) mark |= STAYS;
  }
  return mark ? mark : STAYS; /* nobody reads it: left to dce */
}

static bool mark_nodes(Constants *t) {
  bool any = false;
  for (int i = 0; i < t->g->nodes.n; i++) {
    Node *n = t->g->nodes.data[i];
    n->mark = can_compute(t, n) ? COMPUTED : STAYS;
  }
  for (int i = t->g->nodes.n - 1; i >= 0; i--) {
    Node *n = t->g->nodes.data[i];
    if (n->mark == COMPUTED) n->mark = final_mark(t, n);
    any = any || (n->mark & COMPUTED);
  }
  return any;
}

/* ---- their program ---- */

/* A stand-in for constant v: itself, or an input where that saves copying it. Weights that a
 * template packs, and what inference reads, stay constants. */
static Value *add_constant(Constants *t, const Node *n, int k, const Value *v) {
  Model *m = t->sub;
  if (v->cdata->count * dtype_bytes(v->dtype) < LARGE || (node_is_contraction(n) && k == 1))
    return value_const(m, (ConstData *)(uintptr_t)v->cdata);
  Value *x = value_new(m, arena_printf(m->arena, "c%d", t->in.n));
  value_set_tensor(m, x, v->dtype, v->rank, (const Expr *const *)v->dims);
  vec_push(m->arena, &m->main->inputs, x);
  const size_t size = (size_t)dtype_bytes(v->dtype);
  const void *data = v->cdata->data;
  if ((uintptr_t)data % size) data = arena_dup(m->arena, data, (size_t)v->cdata->count * size);
  vec_push(m->arena, &t->in, data);
  return x;
}

static Value *constant_or_input(Constants *t, const Node *n, int k) {
  const Value *v = n->in[k];
  if (!v) return NULL;
  if (!t->to[v->id]) t->to[v->id] = add_constant(t, n, k, v);
  return t->to[v->id];
}

static bool add_node(Constants *t, const Node *n) {
  Model *m = t->sub;
  Value **in = ARENA_ARRAY(t->c->scratch, Value *, n->n_in + 1);
  for (int k = 0; k < n->n_in; k++) in[k] = constant_or_input(t, n, k);
  Node *copy = graph_add_node(m->main, NULL, n->op, n->n_in, in, n->loc);
  for (int k = 0; k < n->n_attrs; k++) node_set_attr(copy, n->attrs[k]);
  for (int k = 0; k < n->n_out; k++) {
    Value *v = node_add_output(copy, NULL);
    if (n->out[k]) t->to[n->out[k]->id] = v;
  }
  if (!op_infer(m, copy)) return false;
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k] || !becomes_constant(t, n->out[k])) continue;
    vec_push(m->arena, &t->out, n->out[k]);
    vec_push(m->arena, &m->main->outputs, t->to[n->out[k]->id]);
    vec_push(m->arena, &m->main->output_names, arena_printf(m->arena, "r%d", t->out.n));
  }
  return true;
}

static bool build_program(Constants *t) {
  const Model *m = t->c->model;
  t->sub = ARENA_NEW(m->arena, Model);
  *t->sub = (Model){.arena = m->arena,
                    .pool = m->pool,
                    .diag = m->diag,
                    .file = m->file,
                    .ir_version = m->ir_version,
                    .opset = m->opset};
  t->sub->main = graph_new(t->sub, NULL, "constants");
  for (int i = 0; i < t->g->nodes.n; i++)
    if ((t->g->nodes.data[i]->mark & COMPUTED) && !add_node(t, t->g->nodes.data[i])) return false;
  return true;
}

/* ---- running it ---- */

static double stmt_work(ExprPool *p, const Stmt *s, double times) {
  double sum = 0;
  for (; s; s = s->next) {
    const double n =
        s->kind == ST_FOR ? expr_extent_guess(p, expr_var_extent(p, s->loop.var->id)) : 1;
    if (s->kind == ST_STORE || s->kind == ST_SET || s->kind == ST_ACC)
      sum += times * (expr_cost(s->access.value) + 1);
    sum += stmt_work(p, stmt_body(s), times * n) + stmt_work(p, stmt_otherwise(s), times);
  }
  return sum;
}

/* Compiled code may add in lanes: the bits are its own. */
static bool adds_no_float(void *user, Stmt *s) {
  (void)user;
  return s->kind != ST_ACC || !dtype_is_float((DType)s->access.value->dtype);
}

static bool module_adds_floats(const Module *m) {
  for (const Step *s = m->steps; s; s = s->next)
    if (s->kind == STEP_KERNEL && !stmt_each(s->call.kernel->body, adds_no_float, NULL))
      return true;
  return false;
}

/* Operations of one run. */
static double module_work(const Module *m) {
  double sum = 0;
  for (const Step *s = m->steps; s; s = s->next)
    if (s->kind == STEP_KERNEL) sum += stmt_work(m->model->pool, s->call.kernel->body, 1);
  return sum;
}

static bool run_program(Constants *t, const Module *m, void *const *out) {
  const PassCtx *c = t->c;
  const double work = module_work(m);
  if ((work > interpreted_work || module_adds_floats(m)) && c->run_constants &&
      c->run_constants(c->run_user, m, t->in.data, out))
    return true;
  return work <= max_interpreted_work && module_interpret(m, t->in.data, out, NULL);
}

static bool set_results(Constants *t, void *const *out) {
  Model *m = t->c->model;
  for (int k = 0; k < t->out.n; k++) {
    Value *v = t->out.data[k];
    int64_t dims[MAX_RANK];
    value_is_static(v, dims);
    ConstData *data = const_new(m, v->name, v->dtype, v->rank, dims, out[k]);
    if (!forward_set(&t->f, v->def, v, value_const(m, data))) return false;
  }
  return true;
}

static bool drop_computed(Forward *f, Node *n, bool *keep) {
  const Constants *t = f->user;
  *keep = n->graph != t->g || (n->mark & STAYS);
  return true;
}

static bool compute(Constants *t) {
  static const char *const passes[] = {
      "lower,simplify_loops,expand_math,plan_memory",
      "fuse,choose,layout,choose_tiles,lower,simplify_loops,expand_math,merge_kernels,plan_memory"};
  const int errors = diag_errors(t->c->model->diag);
  if (!build_program(t)) return diag_errors(t->c->model->diag) == errors;
  PassCtx c = *t->c;
  Target host;
  if (target_has_grids(c.target)) {
    host = target_host_code(c.target);
    c.target = &host;
  }
  c.model = t->sub;
  c.module = NULL;
  c.tuning = NULL;
  c.decisions = NULL;
  if (!c.run_passes(&c, passes[c.opt_level > 0])) return false;
  void **out = ARENA_ARRAY(c.model->arena, void *, t->out.n + 1);
  for (int k = 0; k < t->out.n; k++)
    out[k] = arena_alloc(c.model->arena, (size_t)bytes_of(t->out.data[k]) + 64);
  if (!run_program(t, c.module, out)) return diag_errors(c.model->diag) == errors;
  t->f = forward_new(t->c);
  t->f.user = t;
  return set_results(t, out) && forward_walk(&t->f, t->g, drop_computed);
}

/* A node of constants only: without one there is nothing to begin with, and no table is made. */
static bool has_start(const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    bool constant = n->op->body != OB_REGION;
    for (int k = 0; k < n->n_in && constant; k++) constant = !n->in[k] || n->in[k]->cdata;
    if (constant) return true;
  }
  return false;
}

static bool compute_graph(PassCtx *c, Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && n->attrs[k].graph != untaken_branch(n) &&
          !compute_graph(c, n->attrs[k].graph))
        return false;
  }
  if (!has_start(g)) return true;
  Constants t = {.c = c, .g = g};
  t.leaf = ARENA_ARRAY(c->scratch, int64_t, c->model->next_value + 1);
  t.to = ARENA_ARRAY(c->scratch, Value *, c->model->next_value + 1);
  t.uses = graph_uses(c->model->main, c->scratch);
  return !mark_nodes(&t) || compute(&t);
}

bool pass_compute_constants(PassCtx *c) { return compute_graph(c, c->model->main); }
