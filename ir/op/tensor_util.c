/* See tensor_util.h. */
#include "ir/op/tensor_util.h"

int tu_declared_rank(const Node *n) {
  return n->out[0] && n->out[0]->kind == TY_TENSOR ? n->out[0]->rank : -1;
}

bool tu_count(Model *m, Node *n, int k, const char *what, int expected, int *count) {
  const Value *v = n->in[k];
  if (!op_need_rank(m, n, k, 0, 1)) return false;
  int64_t c = 1;
  *count = expected;
  if (v->rank == 1 && !expr_is_const(v->dims[0], &c) && expected >= 0)
    return require_size(m, n, v->dims[0], expected, what);
  if (v->rank == 1 && !expr_is_const(v->dims[0], &c))
    return op_error(m, n, ERR_DYNAMIC, "the number of elements of %s (input %d) is not known", what,
                    k);
  if (c > 1 << 20)
    return op_error(m, n, ERR_SHAPE, "%s (input %d) has %lld elements", what, k, (long long)c);
  *count = (int)c;
  return true;
}

static SymDef *find_src(const Node *n, const Value *src, int64_t elem) {
  for (int i = 0; i < n->n_syms; i++)
    if (n->syms[i].src == src && n->syms[i].elem == elem) return &n->syms[i];
  return NULL;
}

static SymDef *add_sym(Model *m, Node *n, SymDef d) {
  SymDef *s = ARENA_ARRAY(m->arena, SymDef, n->n_syms + 1);
  for (int i = 0; i < n->n_syms; i++) s[i] = n->syms[i];
  s[n->n_syms] = d;
  n->syms = s;
  return &s[n->n_syms++];
}

const Expr *tu_i64(ExprPool *p, const Expr *e) {
  return e->dtype == DT_I64 ? e : ex_cast(p, DT_I64, e);
}

const Expr *tu_known(ExprPool *p, const Node *n, int k, int64_t i) {
  const Value *v = node_in(n, k);
  if (!v) return NULL;
  const Expr *e = value_element(p, v, i);
  if (e) return tu_i64(p, e);
  const SymDef *d = find_src(n, v, i);
  return d ? d->sym : NULL;
}

const Expr *tu_elem(Model *m, Node *n, int k, int64_t i) {
  const Expr *e = tu_known(m->pool, n, k, i);
  if (e) return e;
  Value *v = n->in[k];
  if (!dtype_is_int(v->dtype)) return NULL;
  e = ex_sym_fresh(m->pool, "data");
  Symbol *s = expr_symbol(m->pool, e->id);
  s->runtime = true;
  s->lo = INT64_MIN;
  add_sym(m, n, (SymDef){.sym = e, .src = v, .elem = i});
  return e;
}

static bool is_data(void *user, const Expr *e) {
  const Node *const n = user;
  for (int i = 0; e->op == EX_SYM && i < n->n_syms; i++)
    if (n->syms[i].sym == e && n->syms[i].src) return true;
  return false;
}

static bool uses_data(const Node *n, const Expr *e) {
  return n->n_syms > 0 && expr_any(e, EXF_SYM, is_data, (void *)n);
}

const Expr *tu_declared(const Node *n, int out, int d) {
  const Value *v = node_out(n, out);
  int64_t k;
  if (!v || v->kind != TY_TENSOR || v->rank <= d || !v->dims || !v->dims[d]) return NULL;
  return expr_is_const(v->dims[d], &k) && k >= 0 ? v->dims[d] : NULL;
}

static const Expr *symbol_value(Model *m, const Expr *sym) {
  const Symbol *s = expr_symbol(m->pool, sym->id);
  return s->bound && expr_is_i64(s->bound, s->lo) ? s->bound : sym;
}

static const Expr *size_symbol(Model *m, Node *n, int out, int d, const Expr *value,
                               const Expr *bound) {
  const int64_t key = (int64_t)out * MAX_RANK + d;
  SymDef *def = NULL;
  for (int i = 0; i < n->n_syms; i++)
    if (!n->syms[i].src && n->syms[i].elem == key) def = &n->syms[i];
  if (def) {
    def->value = value;
    return symbol_value(m, def->sym);
  }
  const Expr *declared = tu_declared(n, out, d);
  const Expr *sym = ex_sym_fresh(m->pool, "size");
  Symbol *s = expr_symbol(m->pool, sym->id);
  s->runtime = true;
  s->lo = 0;
  s->bound = bound ? bound : model_bound(m, sym);
  if (declared) {
    expr_is_const(declared, &s->lo);
    s->bound = declared;
  }
  add_sym(m, n, (SymDef){.sym = sym, .elem = key, .value = value});
  return symbol_value(m, sym);
}

const Expr *tu_short(Model *m, Node *n, int out, int d, const Expr *size, const Expr *bound) {
  enum { LONG = 4000, TOO_LONG = 1000000 }; /* parts */
  const double parts = expr_tree_size(size);
  if (parts <= LONG || parts > TOO_LONG) return size;
  return size_symbol(m, n, out, d, size, bound ? bound : size);
}

const Expr *tu_dim(Model *m, Node *n, int out, int d, const Expr *value, const Expr *bound) {
  return uses_data(n, value) ? size_symbol(m, n, out, d, value, bound)
                             : tu_short(m, n, out, d, value, bound);
}

bool tu_axes(Model *m, Node *n, int k, int rank, int *axes, int *count) {
  if (!node_in(n, k)) {
    for (int i = 0; i < rank; i++) axes[i] = i;
    *count = rank;
    return true;
  }
  const int64_t *v;
  bool set[MAX_RANK] = {0};
  if (!op_need_ints(m, n, k, "axes", &v, count) || !op_axis_set(m, n, "axis", *count, v, rank, set))
    return false;
  for (int i = 0; i < *count; i++) axes[i] = (int)(v[i] < 0 ? v[i] + rank : v[i]);
  return true;
}

bool tu_data_axes(Model *m, Node *n, int k, int count, int rank) {
  ExprPool *p = m->pool;
  const Expr *of = ex_i64(p, rank);
  for (int i = 0; i < count; i++) {
    const Expr *axis = tu_elem(m, n, k, i);
    if (!axis) return op_error(m, n, ERR_TYPE, "axes must be integers");
    if (!require_at_least(m, n, axis, ex_i64(p, -rank), "axis") ||
        !require_at_most(m, n, axis, ex_i64(p, rank - 1), "axis"))
      return false;
    for (int j = 0; j < i; j++) {
      const Expr *other = tu_wrap(p, tu_elem(m, n, k, j), of);
      if (!require_nonzero(m, n, ex_sub(p, tu_wrap(p, axis, of), other), "distance of two axes"))
        return false;
    }
  }
  return true;
}

const Expr *tu_clamp(ExprPool *p, const Expr *e, const Expr *lo, const Expr *hi) {
  return ex_max(p, ex_min(p, e, hi), lo);
}

const Expr *tu_wrap(ExprPool *p, const Expr *e, const Expr *dim) {
  int64_t lo, hi;
  if (expr_range(p, e, &lo, &hi)) {
    if (lo >= 0) return e;
    if (hi < 0) return ex_add(p, e, dim);
  }
  return ex_select(p, ex_lt(p, e, ex_i64(p, 0)), ex_add(p, e, dim), e);
}

const Expr *tu_wrap_clamp(ExprPool *p, const Expr *e, const Expr *dim) {
  return tu_clamp(p, tu_wrap(p, e, dim), ex_i64(p, 0), ex_sub(p, dim, ex_i64(p, 1)));
}

bool tu_may_be_empty(ExprPool *p, const Expr *dim) {
  int64_t lo, hi;
  return !expr_range(p, dim, &lo, &hi) || lo <= 0;
}

const Expr *tu_const_element(ExprPool *p, const ConstData *c, int64_t i) {
  if (dtype_is_float(c->dtype)) return ex_float(p, c->dtype, const_float(c, i));
  return c->dtype == DT_BOOL ? ex_bool(p, const_int(c, i) != 0)
                             : ex_int(p, c->dtype, const_int(c, i));
}

const Expr *tu_not(ExprPool *p, const Expr *e) { return ex_op(p, EX_not, e, NULL, NULL); }
const Expr *tu_f32(ExprPool *p, double v) { return ex_float(p, DT_F32, v); }

bool tu_lengths_inside(Model *m, const Node *n, int k, const Expr *most) {
  const ConstData *c = n->in[k]->cdata;
  for (int64_t i = 0; c && i < c->count; i++) {
    const Expr *len = ex_i64(m->pool, const_int(c, i));
    if (!require_at_least(m, n, len, ex_i64(m->pool, 0), "length of a sequence") ||
        !require_at_most(m, n, len, most, "length of a sequence and of the time axis"))
      return false;
  }
  return true;
}
