/* Evaluates nodes and whole graphs with given inputs: op_elem for every output element, runtime
 * functions for EXTERN rows, expansion of composites on the fly. Slow and simple: the oracle of
 * tests, and the engine of constant folding. Tensors only. */
#include "ir/eval/graph_eval.h"
#include <string.h>
#include "ir/eval/tape.h"
#include "runtime/abi.h"

bool eval_fail(GraphEval *ev, const Node *n, ErrCode code, const char *fmt, ...) {
  ev->failed = true;
  if (ev->quiet) return false;
  va_list ap;
  va_start(ap, fmt);
  diag_verror(ev->m->diag, n ? n->loc : NULL, code, fmt, ap);
  va_end(ap);
  return false;
}

/* ---- values and symbols ---- */
static void *grown(GraphEval *ev, void *old, int n, int *cap, int want, size_t size) {
  if (want < *cap) return old;
  const int now = 2 * want + 64;
  char *p = arena_alloc_array(ev->arena, (size_t)now, size);
  if (n) memcpy(p, old, (size_t)n * size);
  *cap = now;
  return p;
}

const ConstData *eval_value(GraphEval *ev, const Value *v) {
  if (v->cdata) return v->cdata;
  return v->id < ev->n_value ? ev->value[v->id] : NULL;
}

static void sym_set(GraphEval *ev, int id, int64_t v) {
  int cap = ev->n_sym;
  ev->sym_known = grown(ev, ev->sym_known, ev->n_sym, &cap, id, sizeof(bool));
  ev->sym = grown(ev, ev->sym, ev->n_sym, &ev->n_sym, id, sizeof(int64_t));
  ev->sym[id] = v;
  ev->sym_known[id] = true;
}

/* A symbol that stands for a size or an element that is now known. */
static void learn(GraphEval *ev, const Expr *e, int64_t v) {
  if (e->op != EX_SYM) return;
  const bool known = e->id < ev->n_sym && ev->sym_known[e->id];
  if (!known || expr_symbol(ev->m->pool, e->id)->runtime) sym_set(ev, e->id, v);
}

void eval_set(GraphEval *ev, const Value *v, const ConstData *c) {
  ev->value = grown(ev, ev->value, ev->n_value, &ev->n_value, v->id, sizeof *ev->value);
  ev->value[v->id] = c;
  for (int d = 0; d < v->rank && d < c->rank; d++) learn(ev, v->dims[d], c->dims[d]);
  for (int64_t i = 0; v->contents && i < c->count; i++) learn(ev, v->contents[i], const_int(c, i));
}

static Scalar read_sym(void *user, int id) {
  GraphEval *ev = user;
  if (id < ev->n_sym && ev->sym_known[id]) return (Scalar){.i = ev->sym[id]};
  ev->failed = true;
  return (Scalar){.i = 0};
}

/* A size; with `bounds`, unknown symbols count as their upper bound. */
static const Expr *bound_of(void *user, const Expr *leaf) {
  GraphEval *ev = user;
  if (leaf->op != EX_SYM || (leaf->id < ev->n_sym && ev->sym_known[leaf->id])) return NULL;
  const Symbol *s = expr_symbol(ev->m->pool, leaf->id);
  return s->bound ? expr_rewrite(ev->m->pool, s->bound, bound_of, ev) : NULL;
}

static int64_t eval_size(GraphEval *ev, const Expr *e, bool bounds) {
  int64_t v;
  if (bounds) e = expr_rewrite(ev->m->pool, e, bound_of, ev);
  if (expr_is_const(e, &v)) return v;
  EvalEnv env = {.user = ev, .sym = read_sym};
  return expr_eval(ev->m->pool, e, &env).i;
}

static bool eval_dims(GraphEval *ev, const Node *n, const Value *v, bool bounds, int64_t *dims) {
  for (int d = 0; d < v->rank; d++) {
    dims[d] = eval_size(ev, v->dims[d], bounds);
    if (ev->failed)
      return eval_fail(ev, n, ERR_DYNAMIC, "size %s is not known",
                       expr_text(ev->m->pool, v->dims[d]));
    if (dims[d] < 0)
      return eval_fail(ev, n, ERR_SHAPE, "dim %d of the result is %lld", d, (long long)dims[d]);
  }
  return true;
}

ConstData *eval_tensor(GraphEval *ev, DType t, int rank, const int64_t *dims) {
  int64_t count = 1, bytes;
  for (int d = 0; d < rank; d++)
    if (!ck_mul(count, dims[d], &count)) return NULL;
  if (!ck_mul(count, dtype_bytes(t), &bytes)) return NULL;
  ConstData *c = ARENA_NEW(ev->arena, ConstData);
  *c = (ConstData){.id = -1, .dtype = t, .rank = rank, .count = count};
  c->dims = arena_dup(ev->arena, dims, sizeof *dims * (size_t)rank);
  c->data = arena_alloc(ev->arena, (size_t)bytes);
  return c;
}

/* Runtime symbols that the node reads from its inputs. */
static bool eval_syms(GraphEval *ev, const Node *n) {
  for (int i = 0; i < n->n_syms; i++) {
    const SymDef *s = &n->syms[i];
    const ConstData *c = s->src ? eval_value(ev, s->src) : NULL;
    if (s->src && (!c || s->elem >= c->count))
      return eval_fail(ev, n, ERR_DYNAMIC, "data of a size is not known");
    const int64_t v = s->src ? const_int(c, s->elem) : eval_size(ev, s->value, false);
    if (ev->failed) return eval_fail(ev, n, ERR_DYNAMIC, "a size is not known");
    sym_set(ev, s->sym->id, v);
  }
  return true;
}

/* ---- EW and ELEM ---- */
/* Nothing is computed with these: 64 bits of an element are read at a time. */
static bool is_moved_only(DType t) {
  return dtype_rows[t].cls == DC_STRING || dtype_rows[t].cls == DC_COMPLEX;
}

static Scalar load_element(void *user, DType t, int buffer, int64_t index) {
  GraphEval *ev = user;
  const ConstData *c = ev->value[buffer];
  Scalar v = {.i = 0};
  if (index < 0 || index >= c->count) {
    ev->failed = true;
    return v;
  }
  const char *p = (const char *)c->data + index * dtype_bytes(t);
  if (is_moved_only(t))
    memcpy(&v.i, p + 8 * ev->half, sizeof v.i);
  else if (dtype_is_float(t))
    v.f = dtype_load_f(t, p);
  else
    v.i = dtype_load_i(t, p);
  return v;
}

static void store_element(DType t, char *p, Scalar v) {
  if (is_moved_only(t))
    memcpy(p, &v.i, sizeof v.i);
  else if (dtype_is_float(t))
    dtype_store_f(t, p, v.f);
  else
    dtype_store_i(t, p, v.i);
}

static const Expr *read_value(ElemCtx *c, const Value *v, const Expr *const *idx,
                              const Expr *guard) {
  GraphEval *ev = c->user;
  const ConstData *data = eval_value(ev, v);
  const Expr *at = ex_i64(c->pool, 0);
  if (!data || data->rank != v->rank) {
    ev->failed = true;
    return ex_const(c->pool, v->dtype, 0);
  }
  for (int d = 0; d < data->rank; d++)
    at = ex_add(c->pool, ex_mul(c->pool, at, ex_i64(c->pool, data->dims[d])), idx[d]);
  if (v->cdata) { /* constants are found by the loads under their id, too */
    ev->value = grown(ev, ev->value, ev->n_value, &ev->n_value, v->id, sizeof *ev->value);
    ev->value[v->id] = data;
  }
  return ex_load(c->pool, v->dtype, v->id, at, guard);
}

static bool next_index(int rank, const int64_t *dims, int64_t *at) {
  for (int d = rank - 1; d >= 0; d--) {
    if (++at[d] < dims[d]) return true;
    at[d] = 0;
  }
  return false;
}

static void fill_half(GraphEval *ev, const Expr *e, const Expr *const *idx, ConstData *c) {
  Arena *scratch = arena_child(ev->arena);
  Tape *tape = tape_new(scratch, ev->m->pool, e);
  const TapeEnv env = {.user = ev, .sym = read_sym, .load = load_element};
  int64_t at[MAX_RANK] = {0}, k = 0;
  char *data = (char *)c->data;
  do {
    for (int d = 0; d < c->rank; d++)
      if (idx[d]->op == EX_VAR) tape_set(tape, idx[d], at[d]);
    store_element(c->dtype, data + 8 * ev->half + k++ * dtype_bytes(c->dtype),
                  tape_run(tape, &env));
  } while (!ev->failed && next_index(c->rank, c->dims, at));
  arena_free(scratch);
}

static void fill(GraphEval *ev, const Expr *e, const Expr *const *idx, ConstData *c) {
  for (ev->half = 0; ev->half < (dtype_bytes(c->dtype) > 8 ? 2 : 1); ev->half++)
    fill_half(ev, e, idx, c);
  ev->half = 0;
}

static bool eval_elem(GraphEval *ev, const Node *n, int out) {
  const Value *v = n->out[out];
  int64_t dims[MAX_RANK];
  const Expr *idx[MAX_RANK];
  if (v->kind != TY_TENSOR)
    return eval_fail(ev, n, ERR_UNSUPPORTED, "only tensors can be evaluated");
  if (!eval_dims(ev, n, v, false, dims)) return false;
  ConstData *c = eval_tensor(ev, v->dtype, v->rank, dims);
  if (!c) return eval_fail(ev, n, ERR_OVERFLOW, "size of the result overflows");
  ExprPool *p = ev->m->pool;
  for (int d = 0; d < v->rank; d++)
    idx[d] = dims[d] == 1 ? ex_i64(p, 0) : ex_var(p, "i", ex_i64(p, dims[d]));
  ElemCtx ctx = {.pool = p, .model = ev->m, .read = read_value, .user = ev};
  if (c->count) {
    const Expr *e = op_elem(&ctx, n, out, idx);
    if (!e) return eval_fail(ev, n, ERR_INTERNAL, "%s has no element expression", n->op->name);
    fill(ev, e, idx, c);
    if (ev->failed) return eval_fail(ev, n, ERR_VALUE, "%s reads outside its input", n->op->name);
  }
  eval_set(ev, v, c);
  return true;
}

/* ---- EXPAND and EXTERN ---- */
static bool eval_expanded(GraphEval *ev, Node *n) {
  Graph *g = graph_new(ev->m, n->graph, "expanded");
  Build b = {.m = ev->m, .g = g, .loc = n->loc, .ok = true};
  Value **out = ARENA_ARRAY(ev->arena, Value *, n->n_out + 1);
  if (!n->op->expand(&b, n, out) || !b.ok)
    return eval_fail(ev, n, ERR_INTERNAL, "expansion of %s failed", n->op->name);
  if (!eval_nodes(ev, g)) return false;
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k]) continue;
    const ConstData *c = out[k] ? eval_value(ev, out[k]) : NULL;
    if (!c)
      return eval_fail(ev, n, ERR_INTERNAL, "expansion of %s lacks output %d", n->op->name, k);
    eval_set(ev, n->out[k], c);
  }
  return true;
}

/* Constants may be slices of a file: runtime functions want them aligned. */
static RtTensor rt_tensor(GraphEval *ev, const ConstData *c) {
  const void *data = c->data;
  if ((uintptr_t)data % 16)
    data = arena_dup(ev->arena, data, (size_t)c->count * (size_t)dtype_bytes(c->dtype));
  return (RtTensor){.data = (void *)(uintptr_t)data,
                    .dtype = dtype_rows[c->dtype].onnx,
                    .rank = c->rank,
                    .dims = (int64_t *)(uintptr_t)c->dims};
}

/* A function that uses the heap makes memory of sizes that have no bound. */
static void open_dims(GraphEval *ev, const Value *v) {
  for (int d = 0; d < v->rank; d++)
    if (v->dims[d]->op == EX_SYM && expr_symbol(ev->m->pool, v->dims[d]->id)->runtime &&
        !expr_symbol(ev->m->pool, v->dims[d]->id)->bound)
      sym_set(ev, v->dims[d]->id, 0);
}

static bool extern_outputs(GraphEval *ev, const Node *n, ConstData **made, RtTensor *out) {
  for (int k = 0; k < n->n_out; k++) {
    const Value *v = n->out[k];
    int64_t dims[MAX_RANK];
    if (!v) continue;
    if (v->kind != TY_TENSOR)
      return eval_fail(ev, n, ERR_UNSUPPORTED, "only tensors can be evaluated");
    if (n->op->ext->heap) open_dims(ev, v);
    if (!eval_dims(ev, n, v, true, dims)) return false;
    made[k] = eval_tensor(ev, v->dtype, v->rank, dims);
    if (!made[k]) return eval_fail(ev, n, ERR_OVERFLOW, "size of the result overflows");
    out[k] = rt_tensor(ev, made[k]);
  }
  return true;
}

/* The function has written the real dims. */
static void settle(ConstData *c) {
  c->count = 1;
  for (int d = 0; d < c->rank; d++) c->count *= c->dims[d];
}

static bool eval_extern(GraphEval *ev, const Node *n) {
  enum { MAX_WORDS = 1024 };
  const ExternRow *row = n->op->ext;
  RtTensor *in = ARENA_ARRAY(ev->arena, RtTensor, n->n_in + 1),
           *out = ARENA_ARRAY(ev->arena, RtTensor, n->n_out + 1);
  ConstData **made = ARENA_ARRAY(ev->arena, ConstData *, n->n_out + 1);
  int64_t *words = ARENA_ARRAY(ev->arena, int64_t, MAX_WORDS);
  if (row->heap && !ev->heap)
    return eval_fail(ev, n, ERR_UNSUPPORTED, "strings are made at run time");
  if (!row->fn)
    return eval_fail(ev, n, ERR_UNSUPPORTED, "%s cannot be evaluated at compile time", row->symbol);
  for (int k = 0; k < n->n_in; k++) {
    if (!n->in[k]) continue;
    const ConstData *c = eval_value(ev, n->in[k]);
    if (!c) return eval_fail(ev, n, ERR_INTERNAL, "input %d is not computed", k);
    in[k] = rt_tensor(ev, c);
  }
  if (!extern_outputs(ev, n, made, out)) return false;
  if (row->pack && row->pack(n, words, MAX_WORDS) < 0)
    return eval_fail(ev, n, ERR_LIMIT, "too many attributes");
  const Expr *bytes = row->scratch ? row->scratch(ev->m, n) : NULL;
  const int64_t size = bytes ? eval_size(ev, bytes, true) : 0;
  if (ev->failed || size < 0) return eval_fail(ev, n, ERR_DYNAMIC, "scratch size is not known");
  const RtOpFn fn = (RtOpFn)(uintptr_t)row->fn;
  const int32_t status = fn(in, n->n_in, out, n->n_out, words,
                            row->heap ? (void *)ev->heap
                            : size    ? arena_alloc(ev->arena, (size_t)size)
                                      : NULL);
  if (status) return eval_fail(ev, n, ERR_VALUE, "%s fails with status %d", n->op->name, status);
  for (int k = 0; k < n->n_out; k++) {
    if (!made[k]) continue;
    made[k]->data = out[k].data;
    settle(made[k]);
    eval_set(ev, n->out[k], made[k]);
  }
  return true;
}

/* ---- nodes, graphs ---- */
/* Strings are compared as numbers, which the pass strings gives them; before it they only move. */
static bool compares_strings(const Node *n) {
  bool in = false, out = false;
  for (int k = 0; k < n->n_in; k++) in |= n->in[k] && n->in[k]->dtype == DT_STR;
  for (int k = 0; k < n->n_out; k++) out |= n->out[k] && n->out[k]->dtype == DT_STR;
  return in && !out && (n->op->body == OB_EW || n->op->body == OB_ELEM);
}

bool eval_node(GraphEval *ev, Node *n) {
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && !eval_value(ev, n->in[k]))
      return eval_fail(ev, n, ERR_INTERNAL, "input %d is not computed", k);
  if (!eval_syms(ev, n)) return false;
  if (n->op->body == OB_EXPAND) return eval_expanded(ev, n);
  if (compares_strings(n))
    return eval_fail(ev, n, ERR_UNSUPPORTED, "strings that are no numbers yet");
  if (n->op->body == OB_EXTERN) return eval_extern(ev, n);
  if (n->op->body == OB_REGION) return eval_region(ev, n);
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && !eval_elem(ev, n, k)) return false;
  return true;
}

bool eval_nodes(GraphEval *ev, Graph *g) {
  for (int i = 0; i < g->nodes.n; i++)
    if (!eval_node(ev, g->nodes.data[i])) return false;
  return true;
}

static GraphEval eval_begin(Model *m, bool quiet) {
  return (GraphEval){.m = m, .arena = m->arena, .quiet = quiet};
}

bool node_eval(Model *m, const Node *n, const ConstData *const *in, ConstData **out) {
  GraphEval ev = eval_begin(m, true);
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && in[k]) eval_set(&ev, n->in[k], in[k]);
  if (!eval_node(&ev, (Node *)(uintptr_t)n)) return false;
  for (int k = 0; k < n->n_out; k++)
    out[k] = n->out[k] ? (ConstData *)(uintptr_t)eval_value(&ev, n->out[k]) : NULL;
  return true;
}

static bool input_fits(GraphEval *ev, const Value *v, const ConstData *c) {
  if (c->dtype != v->dtype || c->rank != v->rank)
    return eval_fail(ev, NULL, ERR_SHAPE, "input \"%s\" is %s of rank %d, given is %s of rank %d",
                     v->name ? v->name : "", dtype_text(v->dtype), v->rank, dtype_text(c->dtype),
                     c->rank);
  eval_set(ev, v, c);
  for (int d = 0; d < v->rank; d++)
    if (v->dims[d]->op == EX_CONST && !expr_is_i64(v->dims[d], c->dims[d]))
      return eval_fail(ev, NULL, ERR_SHAPE, "dim %d of input \"%s\" is %lld", d,
                       v->name ? v->name : "", (long long)c->dims[d]);
  return true;
}

static void *grow(void *user, uint64_t bytes) { return arena_alloc(user, (size_t)bytes); }
BurinHeap heap_in_arena(Arena *a) { return (BurinHeap){.grow = grow, .user = a}; }

bool graph_eval(Model *m, const ConstData *const *inputs, ConstData **outputs) {
  GraphEval ev = eval_begin(m, false);
  BurinHeap heap = heap_in_arena(m->arena);
  Graph *g = m->main;
  ev.heap = &heap;
  uint8_t unset = true;
  for (int k = 0; k < g->inputs.n; k++) {
    const Value *v = g->inputs.data[k], *init = v->init;
    const ConstData *given = inputs[k] ? inputs[k] : init ? init->cdata : NULL;
    if (!given || !input_fits(&ev, v, given)) return false;
    if (init && inputs[k]) unset = false;
  }
  if (g->unset) eval_set(&ev, g->unset, const_new(m, NULL, DT_BOOL, 0, NULL, &unset));
  if (!eval_nodes(&ev, g)) return false;
  for (int k = 0; k < g->outputs.n; k++) {
    const ConstData *c = eval_value(&ev, g->outputs.data[k]);
    if (!c) return eval_fail(&ev, NULL, ERR_INTERNAL, "output %d is not computed", k);
    outputs[k] = (ConstData *)(uintptr_t)c;
  }
  return true;
}
