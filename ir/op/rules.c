/* Infer rules and checks that the op families share; see ops.h. All arithmetic on sizes goes
 * through the expression pool; constants that come from the file are range-checked by their readers
 * here. */
#include <string.h>
#include "ir/expr/expr_query.h"
#include "ir/op/ops.h"
#include "ir/op/tensor_util.h"

/* ---- checks ---- */

bool op_need_class(Model *m, const Node *n, int k, unsigned classes) {
  const Value *v = node_in(n, k);
  if (!v || (classes >> dtype_rows[v->dtype].cls & 1)) return true;
  return op_error(m, n, ERR_TYPE, "input %d of %s has type %s", k, n->op->name,
                  dtype_text(v->dtype));
}

bool op_need_dtype(Model *m, const Node *n, int k, DType t) {
  const Value *v = node_in(n, k);
  if (!v || v->dtype == t) return true;
  return op_error(m, n, ERR_TYPE, "input %d of %s has type %s, needs %s", k, n->op->name,
                  dtype_text(v->dtype), dtype_text(t));
}

bool op_same_dtype(Model *m, const Node *n, int k, int other) {
  const Value *v = node_in(n, k), *w = node_in(n, other);
  if (!v || !w || v->dtype == w->dtype) return true;
  return op_error(m, n, ERR_TYPE, "input %d of %s has type %s, input %d has %s", k, n->op->name,
                  dtype_text(v->dtype), other, dtype_text(w->dtype));
}

bool op_product_types(Model *m, Node *n, DType *result) {
  int64_t wide;
  *result = n->in[0]->dtype;
  if (!op_int_in(m, n, "wide", 0, 0, 1, &wide)) return false;
  if (!wide) return op_same_dtype(m, n, 1, 0) && op_same_dtype(m, n, 2, 0);
  *result = DT_F32;
  for (int k = 0; k < 2; k++)
    if (dtype_compute(n->in[k]->dtype) != DT_F32)
      return op_error(m, n, ERR_TYPE, "input %d of a wide %s has type %s, which is no small float",
                      k, n->op->name, dtype_text(n->in[k]->dtype));
  return op_need_dtype(m, n, 2, DT_F32);
}

bool op_need_rank(Model *m, const Node *n, int k, int lo, int hi) {
  const Value *v = node_in(n, k);
  if (!v || (v->rank >= lo && v->rank <= hi)) return true;
  if (lo == hi)
    return op_error(m, n, ERR_RANK, "input %d of %s has rank %d, needs %d", k, n->op->name, v->rank,
                    lo);
  return op_error(m, n, ERR_RANK, "input %d of %s has rank %d, needs %d to %d", k, n->op->name,
                  v->rank, lo, hi);
}

bool op_need_tensors(Model *m, const Node *n) {
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] &&
        (n->in[k]->kind != TY_TENSOR || n->in[k]->rank < 0 || n->in[k]->dtype == DT_NONE))
      return op_error(m, n, ERR_TYPE, "input %d of %s is not a tensor of known type and rank", k,
                      n->op->name);
  return true;
}

bool op_norm_axis(Model *m, const Node *n, const char *what, int64_t v, int rank, int *out) {
  if (v < -rank || v >= rank)
    return op_error(m, n, ERR_ATTR_VALUE, "%s %lld is outside a tensor of rank %d", what,
                    (long long)v, rank);
  *out = (int)(v < 0 ? v + rank : v);
  return true;
}

bool op_axis(Model *m, const Node *n, const char *attr, int64_t def, int rank, int *out) {
  int64_t v;
  return op_int(m, n, attr, def, &v) && op_norm_axis(m, n, attr, v, rank, out);
}

bool op_axis_set(Model *m, const Node *n, const char *what, int count, const int64_t *axes,
                 int rank, bool *set) {
  for (int d = 0; d < rank; d++) set[d] = false;
  for (int i = 0; i < count; i++) {
    int d;
    if (!op_norm_axis(m, n, what, axes[i], rank, &d)) return false;
    if (set[d]) return op_error(m, n, ERR_ATTR_VALUE, "%s %d is named twice", what, d);
    set[d] = true;
  }
  return true;
}

/* ---- attributes ---- */

static bool attr_kind(Model *m, const Node *n, const char *name, AttrKind kind, const Attr **a) {
  *a = node_attr(n, name);
  if (!*a || (*a)->kind == kind) return true;
  return op_error(m, n, ERR_ATTR_TYPE, "attribute %s of %s has the wrong type", name, n->op->name);
}

bool op_int(Model *m, const Node *n, const char *name, int64_t def, int64_t *v) {
  const Attr *a;
  if (!attr_kind(m, n, name, AT_INT, &a)) return false;
  *v = a ? a->ints[0] : def;
  return true;
}

bool op_int_in(Model *m, const Node *n, const char *name, int64_t def, int64_t lo, int64_t hi,
               int64_t *v) {
  if (!op_int(m, n, name, def, v)) return false;
  if (*v >= lo && *v <= hi) return true;
  return op_error(m, n, ERR_ATTR_VALUE, "attribute %s of %s is %lld, must be in [%lld, %lld]", name,
                  n->op->name, (long long)*v, (long long)lo, (long long)hi);
}

bool op_float(Model *m, const Node *n, const char *name, double def, double *v) {
  const Attr *a;
  if (!attr_kind(m, n, name, AT_FLOAT, &a)) return false;
  *v = a ? a->floats[0] : def;
  return true;
}

bool op_string(Model *m, const Node *n, const char *name, const char *def, const char **v) {
  const Attr *a;
  if (!attr_kind(m, n, name, AT_STRING, &a)) return false;
  *v = a ? a->strs[0] : def;
  return true;
}

bool op_ints(Model *m, const Node *n, const char *name, const int64_t **v, int *count) {
  const Attr *a;
  if (!attr_kind(m, n, name, AT_INTS, &a)) return false;
  *v = a ? a->ints : NULL;
  *count = a ? a->n : -1;
  return true;
}

bool op_need_attr(Model *m, const Node *n, const char *name, AttrKind kind, const Attr **a) {
  if (!attr_kind(m, n, name, kind, a)) return false;
  return *a || op_error(m, n, ERR_ATTR_MISSING, "%s needs the attribute %s", n->op->name, name);
}

bool op_dtype(Model *m, const Node *n, const char *name, DType def, DType *t) {
  const Attr *a;
  if (!attr_kind(m, n, name, AT_INT, &a)) return false;
  *t = a ? dtype_from_onnx(a->ints[0]) : def;
  return *t != DT_NONE || op_error(m, n, ERR_ATTR_VALUE, "attribute %s=%lld is not a tensor type",
                                   name, a ? (long long)a->ints[0] : 0);
}

bool op_choice(Model *m, const Node *n, const char *name, const char *def,
               const char *const *choices, int *v) {
  const char *s;
  if (!op_string(m, n, name, def, &s)) return false;
  for (*v = 0; choices[*v]; ++*v)
    if (s && strcmp(s, choices[*v]) == 0) return true;
  return op_error(m, n, ERR_ATTR_VALUE, "attribute %s of %s cannot be \"%s\"", name, n->op->name,
                  s ? s : "");
}

/* ---- values of inputs ---- */

enum { MAX_KNOWN = 1 << 16 }; /* elements; lists longer than that are no shapes */

/* Number of elements of input k if it is a list whose elements are known, else -1. */
static int known_count(const Node *n, int k) {
  const Value *v = node_in(n, k);
  int64_t dim = 1;
  if (!v || v->rank < 0 || v->rank > 1 || !value_known(v) || !value_is_static(v, &dim) ||
      dim > MAX_KNOWN)
    return -1;
  return v->rank ? (int)dim : 1;
}

bool op_known_exprs(Model *m, const Node *n, int k, const Expr *const **v, int *count) {
  const int c = known_count(n, k);
  if (c < 0) return false;
  const Expr **list = ARENA_ARRAY(m->arena, const Expr *, c);
  for (int i = 0; i < c; i++) {
    const Expr *e = value_element(m->pool, n->in[k], i);
    if (!e || dtype_is_float((DType)e->dtype)) return false;
    list[i] = ex_cast(m->pool, DT_I64, e);
  }
  *v = list;
  *count = c;
  return true;
}

bool op_known_ints(Model *m, const Node *n, int k, const int64_t **v, int *count) {
  const Expr *const *e;
  if (!op_known_exprs(m, n, k, &e, count)) return false;
  int64_t *list = ARENA_ARRAY(m->arena, int64_t, *count);
  for (int i = 0; i < *count; i++)
    if (!expr_is_const(e[i], &list[i])) return false;
  *v = list;
  return true;
}

bool op_known_floats(Model *m, const Node *n, int k, const double **v, int *count) {
  const int c = known_count(n, k);
  if (c < 0) return false;
  double *list = ARENA_ARRAY(m->arena, double, c);
  for (int i = 0; i < c; i++) {
    const Expr *e = value_element(m->pool, n->in[k], i);
    if (!e || e->op != EX_CONST) return false;
    list[i] = dtype_is_float((DType)e->dtype) ? e->k.f : (double)e->k.i;
  }
  *v = list;
  *count = c;
  return true;
}

static bool not_known(Model *m, const Node *n, int k, const char *what) {
  return op_error(m, n, ERR_DYNAMIC, "%s (input %d of %s) is not known at compile time", what, k,
                  n->op->name);
}

bool op_need_ints(Model *m, const Node *n, int k, const char *what, const int64_t **v, int *count) {
  return op_known_ints(m, n, k, v, count) || not_known(m, n, k, what);
}

bool op_need_exprs(Model *m, const Node *n, int k, const char *what, const Expr *const **v,
                   int *count) {
  return op_known_exprs(m, n, k, v, count) || not_known(m, n, k, what);
}

/* ---- outputs ---- */

bool op_out(Model *m, Node *n, int k, DType t, int rank, const Expr *const *given) {
  const Expr *dims[MAX_RANK];
  if (rank > MAX_RANK)
    return op_error(m, n, ERR_RANK, "%s makes a tensor of rank %d", n->op->name, rank);
  for (int d = 0; d < rank; d++)
    dims[d] = node_out(n, k) ? tu_short(m, n, k, d, given[d], NULL) : given[d];
  const char *problem = dims_problem(m, rank, dims);
  if (problem)
    return op_error(m, n, ERR_OVERFLOW, "%s makes a tensor that is too large: %s", n->op->name,
                    problem);
  for (int i = 0; i < rank; i++)
    if (!require_at_least(m, n, dims[i], ex_i64(m->pool, 0), "size of a result")) return false;
  if (node_out(n, k)) value_set_tensor(m, n->out[k], t, rank, dims);
  return true;
}

bool op_out_like(Model *m, Node *n, int k, DType t, const Value *v) {
  return op_out(m, n, k, t, v->rank, v->dims);
}

const Expr *op_runtime_dim(Model *m, const Node *n, int k, int d, const char *stem,
                           const Expr *bound) {
  const Value *v = node_out(n, k);
  /* one that its own bound names is another node's, which inference put there with other types */
  if (v && v->rank > d && v->dims[d] && v->dims[d]->op == EX_SYM &&
      expr_symbol(m->pool, v->dims[d]->id)->runtime &&
      !(bound && expr_contains(m->pool, bound, v->dims[d]))) {
    expr_symbol(m->pool, v->dims[d]->id)->bound = bound ? bound : model_bound(m, v->dims[d]);
    return v->dims[d];
  }
  const Expr *s = ex_sym_fresh(m->pool, stem);
  if (!bound) bound = model_bound(m, s);
  *expr_symbol(m->pool, s->id) =
      (Symbol){.name = expr_symbol(m->pool, s->id)->name, .lo = 0, .bound = bound, .runtime = true};
  return s;
}

/* ---- shapes ---- */

bool op_same_dim(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what,
                 const Expr **out) {
  int64_t k;
  *out = !expr_is_const(a, &k) && expr_is_const(b, &k) ? b : a;
  return require_equal(m, n, a, b, what);
}

/* ones: a size that turns out to be 1 when the model runs yields, too. */
static bool broadcast(Model *m, const Node *n, bool ones, int ra, const Expr *const *da, int rb,
                      const Expr *const *db, int *rank, const Expr **out) {
  const Expr *res[MAX_RANK];
  const int r = ra > rb ? ra : rb;
  for (int d = 0; d < r; d++) {
    const Expr *a = d - (r - ra) >= 0 ? da[d - (r - ra)] : NULL;
    const Expr *b = d - (r - rb) >= 0 ? db[d - (r - rb)] : NULL;
    if (!a || (b && expr_is_i64(a, 1)))
      res[d] = b;
    else if (!b || expr_is_i64(b, 1))
      res[d] = a;
    else if (a == b || !ones || !(res[d] = dim_join(m->pool, a, b)))
      if (!op_same_dim(m, n, a, b, "broadcast", &res[d])) return false;
  }
  *rank = r;
  memcpy(out, res, sizeof *res * (size_t)r);
  return true;
}

bool op_broadcast(Model *m, const Node *n, int ra, const Expr *const *da, int rb,
                  const Expr *const *db, int *rank, const Expr **out) {
  return broadcast(m, n, false, ra, da, rb, db, rank, out);
}

bool op_broadcast_all(Model *m, const Node *n, int *rank, const Expr **out) {
  *rank = 0;
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && !broadcast(m, n, true, *rank, out, n->in[k]->rank,
                               (const Expr *const *)n->in[k]->dims, rank, out))
      return false;
  for (int k = 0; k < n->n_in; k++)
    for (int d = 0; n->in[k] && d < n->in[k]->rank; d++) {
      const Expr *dim = n->in[k]->dims[d], *result = out[d + *rank - n->in[k]->rank];
      if (dims_broadcast(m->pool, dim, result) &&
          !require_broadcast(m, n, dim, result, "broadcast"))
        return false;
    }
  return true;
}

static bool broadcasts_to(Model *m, const Node *n, bool ones, int k, int rank,
                          const Expr *const *dims) {
  const Value *v = node_in(n, k);
  if (!v) return true;
  if (v->rank > rank)
    return op_error(m, n, ERR_SHAPE, "input %d of %s has rank %d, more than %d", k, n->op->name,
                    v->rank, rank);
  for (int d = 0; d < v->rank; d++) {
    const Expr *res, *dim = v->dims[d], *to = dims[d + rank - v->rank];
    if (expr_is_i64(dim, 1)) continue;
    if (ones && dims_broadcast(m->pool, dim, to) ? !require_broadcast(m, n, dim, to, "broadcast")
                                                 : !op_same_dim(m, n, dim, to, "broadcast", &res))
      return false;
  }
  return true;
}

bool op_broadcasts_to(Model *m, const Node *n, int k, int rank, const Expr *const *dims) {
  return broadcasts_to(m, n, false, k, rank, dims);
}

bool op_yields_to(Model *m, const Node *n, int k, int rank, const Expr *const *dims) {
  return broadcasts_to(m, n, true, k, rank, dims);
}

const Expr *op_times(Model *m, const Expr *a, const Expr *b) {
  if (expr_magnitude(a, 1) * expr_magnitude(b, 1) < 4e18) return ex_mul(m->pool, a, b);
  return ex_i64(m->pool, INT64_MAX);
}

const Expr *op_product(Model *m, const Expr *const *dims, int from, int to) {
  const Expr *e = ex_i64(m->pool, 1);
  for (int d = from; d < to; d++) e = op_times(m, e, dims[d]);
  return e;
}

const Expr *index_flatten(ExprPool *p, int rank, const Expr *const *dims, const Expr *const *idx) {
  const Expr *e = ex_i64(p, 0);
  for (int d = 0; d < rank; d++) e = ex_add(p, ex_mul(p, e, dims[d]), idx[d]);
  return e;
}

void index_unflatten(ExprPool *p, int rank, const Expr *const *dims, const Expr *flat,
                     const Expr **idx) {
  for (int d = rank - 1; d >= 0; d--) {
    if (d == 0) {
      idx[0] = flat;
      return;
    }
    idx[d] = ex_floormod(p, flat, dims[d]);
    flat = ex_floordiv(p, flat, dims[d]);
  }
}

/* ---- infer rules ---- */

bool infer_same(Model *m, Node *n) {
  const Value *v = n->in[0];
  for (int k = 0; k < n->n_out; k++) {
    Value *o = n->out[k];
    if (!o) continue;
    if (v->rank >= 0) value_set_tensor(m, o, v->dtype, v->rank, (const Expr *const *)v->dims);
    o->dtype = v->dtype;
    o->kind = v->kind;
  }
  return true;
}

bool infer_same_number(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_NUMBER) && infer_same(m, n);
}

bool infer_same_float(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_FLOAT) && infer_same(m, n);
}

bool infer_same_int(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_INT) && infer_same(m, n);
}

bool infer_same_bool(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_BOOL) && infer_same(m, n);
}

bool infer_same_to_bool(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_FLOAT) && op_out_like(m, n, 0, DT_BOOL, n->in[0]);
}

static bool broadcast_of(Model *m, Node *n, unsigned classes, DType result) {
  int rank;
  const Expr *dims[MAX_RANK];
  for (int k = 0; k < n->n_in; k++)
    if (!op_need_class(m, n, k, classes) || !op_same_dtype(m, n, k, 0)) return false;
  return op_broadcast_all(m, n, &rank, dims) &&
         op_out(m, n, 0, result == DT_NONE ? n->in[0]->dtype : result, rank, dims);
}

bool infer_broadcast(Model *m, Node *n) { return broadcast_of(m, n, CL_NUMBER, DT_NONE); }

bool infer_broadcast_float(Model *m, Node *n) { return broadcast_of(m, n, CL_FLOAT, DT_NONE); }

bool infer_broadcast_int(Model *m, Node *n) { return broadcast_of(m, n, CL_INT, DT_NONE); }

bool infer_broadcast_bool(Model *m, Node *n) { return broadcast_of(m, n, CL_BOOL, DT_BOOL); }

bool infer_compare(Model *m, Node *n) { return broadcast_of(m, n, CL_NUMBER | CL_BOOL, DT_BOOL); }
bool infer_equal(Model *m, Node *n) {
  return broadcast_of(m, n, CL_NUMBER | CL_BOOL | CL_STRING, DT_BOOL);
}
