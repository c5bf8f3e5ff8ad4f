/* Gradients of reductions, running sums, softmax and products (Griewank and Walther; Giles, An
 * extended collection of matrix derivative results, 2008). g is the gradient of the result. */
#include <string.h>
#include "ir/op/gradient.h"
#include "ir/op/kit.h"

/* ---- reductions ---- */
typedef struct Reduced {
  int64_t axes[MAX_RANK];
  int n;
  bool none; /* nothing is reduced */
} Reduced;

static bool reduced_axes(Gradient *s, Reduced *r) {
  const Node *n = s->n;
  const int rank = n->in[0]->rank;
  const int64_t *list;
  int count = 0;
  if (node_in(n, 1) && !op_need_ints(s->b->m, n, 1, "axes", &list, &count)) return false;
  r->n = count ? count : rank;
  r->none = rank == 0 || (!count && node_int(n, "noop_with_empty_axes", 0));
  for (int i = 0; i < r->n; i++) r->axes[i] = !count ? i : list[i] < 0 ? list[i] + rank : list[i];
  return true;
}

/* The reduced dims of v as 1. */
static Value *kept(Gradient *s, const Reduced *r, Value *v) {
  if (v->rank == s->n->in[0]->rank || !s->b->ok) return v;
  return build2(s->b, "Unsqueeze", v, build_i64s(s->b, r->n, r->axes));
}

static Value *expand_like(Build *b, Value *v, Value *like) {
  return b->ok ? build2(b, "Expand", v, build_shape_of(b, like)) : v;
}

/* Elements of x for each of y. */
static Value *ratio(Gradient *s, DType t) {
  Build *b = s->b;
  Value *sizes[2] = {build1(b, "Size", s->n->in[0]), build1(b, "Size", s->n->out[0])};
  for (int k = 0; k < 2; k++) sizes[k] = build_cast(b, sizes[k], t);
  return build2(b, "Div", sizes[0], sizes[1]);
}

static Value *map3(Build *b, const char *text, Value *x, Value *y, Value *g) {
  return b->ok ? build_map(b, x->dtype, text, 3, (Value *[]){x, y, g}) : x;
}

/* Equal extremes share. */
static Value *extreme(Gradient *s, const Reduced *r, Value *x, Value *y, Value *g) {
  Value *hits = build_map(s->b, x->dtype, "select(a == b, 1, 0)", 2, (Value *[]){x, y});
  Value *count = build_sum(s->b, hits, r->n, r->axes, true);
  return build_map(s->b, x->dtype, "select(a == b, c / d, 0)", 4, (Value *[]){x, y, g, count});
}

/* One zero: only its element has a gradient, the product of the others. */
static Value *product(Gradient *s, const Reduced *r, Value *x, Value *y, Value *g) {
  Build *b = s->b;
  Value *zero = build_map(b, x->dtype, "select(a == 0, 1, 0)", 1, &x);
  Value *zeros = build_sum(b, zero, r->n, r->axes, true);
  Value *others = build_map(b, x->dtype, "select(a == 0, 1, a)", 1, &x);
  const Attr keep = attr_int(b->m->arena, "keepdims", 1);
  others =
      build_op(b, "ReduceProd", 2, (Value *[]){others, build_i64s(b, r->n, r->axes)}, 1, &keep);
  return build_map(b, x->dtype, "select(d == 0, c * b / a, select((d == 1) & (a == 0), c * e, 0))",
                   5, (Value *[]){x, y, g, zeros, others});
}

bool grad_reduce(Gradient *s) {
  static const struct {
    const char *name, *text;
  } maps[] = {{"ReduceL1", "select(0 < a, c, select(a < 0, neg(c), 0))"},
              {"ReduceL2", "select(b == 0, 0, c * a / b)"},
              {"ReduceSumSquare", "c * (a + a)"},
              {"ReduceLogSum", "c / exp(b)"},
              {"ReduceLogSumExp", "select(a == b, c, c * exp(a - b))"}};
  Build *b = s->b;
  const Node *n = s->n;
  Value *x = n->in[0];
  Reduced r;
  if (!reduced_axes(s, &r)) return false;
  if (r.none && (kit_is(n, "ReduceSum") || kit_is(n, "ReduceMean") || kit_is(n, "ReduceMax") ||
                 kit_is(n, "ReduceMin") || kit_is(n, "ReduceProd")))
    return gradient_give(s, x, s->g[0]);
  if (r.none) r.n = 0;
  Value *g = kept(s, &r, s->g[0]), *y = kept(s, &r, n->out[0]);
  if (kit_is(n, "ReduceSum")) return gradient_give(s, x, expand_like(b, g, x));
  if (kit_is(n, "ReduceMean"))
    return gradient_give(s, x, expand_like(b, build2(b, "Div", g, ratio(s, g->dtype)), x));
  if (kit_is(n, "ReduceMax") || kit_is(n, "ReduceMin"))
    return gradient_give(s, x, extreme(s, &r, x, y, g));
  if (kit_is(n, "ReduceProd")) return gradient_give(s, x, product(s, &r, x, y, g));
  for (int k = 0; k < 5; k++)
    if (kit_is(n, maps[k].name)) return gradient_give(s, x, map3(b, maps[k].text, x, y, g));
  return false;
}

/* Broadcast again. */
bool grad_sum_to(Gradient *s) {
  gradient_none(s, s->n->in[1]); /* it only gives the shape */
  return gradient_give(s, s->n->in[0], expand_like(s->b, s->g[0], s->n->in[0]));
}

/* Summed from the other end. */
bool grad_cum_sum(Gradient *s) {
  const Node *n = s->n;
  Arena *a = s->b->m->arena;
  const Attr attrs[] = {attr_int(a, "exclusive", node_int(n, "exclusive", 0)),
                        attr_int(a, "reverse", !node_int(n, "reverse", 0))};
  return gradient_give(s, n->in[0],
                       build_op(s->b, "CumSum", 2, (Value *[]){s->g[0], n->in[1]}, 2, attrs));
}

/* Softmax, LogSoftmax, SafeSoftmax, whose axis is the last. */
bool grad_softmax(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *y = n->out[0], *g = s->g[0];
  const bool log = kit_is(n, "LogSoftmax");
  int64_t axis = kit_is(n, "SafeSoftmax") ? -1 : node_int(n, "axis", -1);
  if (axis < 0) axis += y->rank;
  Value *sum = build_sum(b, log ? g : build2(b, "Mul", g, y), y->rank ? 1 : 0, &axis, true);
  return gradient_give(s, n->in[0], map3(b, log ? "c - exp(a) * b" : "a * (c - b)", y, sum, g));
}

/* ---- products ---- */
/* All rows of v [.., k] as one matrix. */
static Value *as_rows(Build *b, Value *v) {
  int64_t k;
  if (v->rank == 2 || !b->ok) return v;
  if (expr_is_const(v->dims[v->rank - 1], &k) && k > 0)
    return build_reshape(b, v, 2, (int64_t[]){-1, k});
  const Attr axis = attr_int(b->m->arena, "axis", v->rank - 1);
  return build_op(b, "Flatten", 1, &v, 1, &axis);
}

/* d summed over the batches that v was broadcast to; its matrices are as large as v's. */
static Value *sum_batches(Build *b, Value *d, const Value *v) {
  bool same = d->rank == v->rank;
  for (int k = 0; same && k < v->rank - 2; k++) same = d->dims[k] == v->dims[k];
  return same ? d : build_sum_to(b, d, v);
}

static bool give_product(Gradient *s, int k, Value *d) {
  Value *v = s->n->in[k];
  return s->b->ok &&
         gradient_give(s, v, build_reshape_like(s->b, build_cast(s->b, d, v->dtype), v));
}

/* a^T g for a matrix b below batches of a: one product over all rows. */
static Value *second_of_matrix(Build *b, Value *a, Value *g) {
  const Attr trans = attr_int(b->m->arena, "transA", 1);
  return build_op(b, "Gemm", 2, (Value *[]){as_rows(b, a), as_rows(b, g)}, 1, &trans);
}

bool grad_matmul(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *x = n->in[0], *y = n->in[1], *g = s->g[0];
  const bool vx = x->rank == 1, vy = y->rank == 1;
  if (vy) g = build_unsqueeze(b, g, g->rank); /* a column */
  if (vx) g = build_unsqueeze(b, g, g->rank - 1);
  Value *a = vx ? build_unsqueeze(b, x, 0) : x, *c = vy ? build_unsqueeze(b, y, 1) : y;
  if (!b->ok) return false;
  g = build_cast(b, g, n->out[0]->dtype);
  if (gradient_wants_in(s, 1)) { /* mostly weights: first, as of Conv */
    Value *wide = build_cast(b, a, g->dtype);
    Value *d = c->rank == 2 && a->rank == g->rank
                   ? second_of_matrix(b, wide, g)
                   : sum_batches(b, build2(b, "MatMul", build_swap_last(b, wide), g), c);
    if (!b->ok || !give_product(s, 1, d)) return false;
  }
  if (!gradient_wants_in(s, 0)) return true;
  Value *d = build2(b, "MatMul", g, build_swap_last(b, build_cast(b, c, g->dtype)));
  return b->ok && give_product(s, 0, sum_batches(b, d, a));
}

static Value *gemm(Build *b, Value *x, bool tx, Value *y, bool ty, double alpha) {
  Arena *a = b->m->arena;
  const Attr attrs[] = {attr_int(a, "transA", tx), attr_int(a, "transB", ty),
                        attr_float(a, "alpha", alpha)};
  return build_op(b, "Gemm", 2, (Value *[]){x, y}, 3, attrs);
}

bool grad_gemm(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  const bool ta = node_int(n, "transA", 0) != 0, tb = node_int(n, "transB", 0) != 0;
  const double alpha = node_float(n, "alpha", 1), beta = node_float(n, "beta", 1);
  Value *g = s->g[0], *x = n->in[0], *y = n->in[1];
  if (gradient_wants_in(s, 1)) {
    Value *w = build_cast(b, x, g->dtype);
    if (!give_product(s, 1, tb ? gemm(b, g, true, w, ta, alpha) : gemm(b, w, !ta, g, false, alpha)))
      return false;
  }
  if (gradient_wants_in(s, 2)) {
    Value *d = beta != 1 ? build2(b, "Mul", g, build_scalar(b, g->dtype, beta)) : g;
    if (!b->ok || !gradient_give_in(s, 2, d)) return false;
  }
  if (!gradient_wants_in(s, 0)) return true;
  Value *w = build_cast(b, y, g->dtype);
  return give_product(s, 0, ta ? gemm(b, w, tb, g, true, alpha) : gemm(b, g, false, w, !tb, alpha));
}

/* ---- Einsum: the gradient of an operand is the Einsum of g and the other operands into its labels.
 * A label that it alone has is one of a vector of ones; of a label that it has twice the second one
 * is a label of its own, joined by an identity matrix. ---- */
enum { EINSUM_MAX = 16, TERM_MAX = 64 };
typedef struct Terms {
  char of[EINSUM_MAX + 1][TERM_MAX]; /* the last is the result's */
  int n;
} Terms;

static bool split_terms(const Node *n, Terms *t) {
  const char *e = node_string(n, "equation", "");
  int uses[128] = {0}, length = 0, k = 0;
  bool arrow = false, dots = false;
  t->n = n->n_in;
  if (t->n > EINSUM_MAX) return false;
  memset(t->of, 0, sizeof t->of);
  for (; *e; e++) {
    if (*e == ' ') continue;
    if (*e == '-' || *e == ',') {
      arrow |= *e == '-';
      e += *e == '-';
      k = arrow ? t->n : k + 1;
      length = 0;
      if (k > t->n) return false;
      continue;
    }
    if (length + 1 == TERM_MAX) return false;
    t->of[k][length++] = *e;
    if (*e == '.') dots = true;
    if (!arrow) uses[*e & 127]++;
  }
  if (arrow) return true;
  char *out = t->of[t->n];
  if (dots) memcpy(out, "...", 3), out += 3;
  for (int c = 'A'; c <= 'z'; c++)
    if (uses[c] == 1) *out++ = (char)c;
  return true;
}

static char unused_label(const Terms *t, const char *also) {
  for (char c = 'a'; c <= 'z'; c++) {
    bool used = strchr(also, c) != NULL;
    for (int k = 0; k <= t->n; k++) used |= strchr(t->of[k], c) != NULL;
    if (!used) return c;
  }
  return 0;
}

/* The dim of operand k that its label at `at` names; the dots stand for what the others leave. */
static int dim_of_label(const Terms *t, const Node *n, int k, int at) {
  const char *term = t->of[k];
  const int own = (int)strlen(term), dots = strchr(term, '.') ? n->in[k]->rank - (own - 3) : 0;
  int d = 0;
  for (int i = 0; i < at; i++)
    if (term[i] != '.')
      d++;
    else if (i == 0 || term[i - 1] != '.')
      d += dots;
  return d;
}

static bool elsewhere(const Terms *t, int k, char label) {
  for (int i = 0; i <= t->n; i++)
    if (i != k && strchr(t->of[i], label)) return true;
  return false;
}

/* Ones [size], or the identity [size, size]. */
static Value *label_operand(Build *b, Value *like, int dim, bool identity) {
  Value *size = build_shape(b, like, dim, dim + 1);
  if (!b->ok) return like;
  if (!identity) return build2(b, "Expand", build_scalar(b, like->dtype, 1), size);
  const Attr attrs[] = {attr_int(b->m->arena, "axis", 0)};
  Value *both = build_op(b, "Concat", 2, (Value *[]){size, size}, 1, attrs);
  Value *square = build2(b, "Expand", build_scalar(b, like->dtype, 0), both);
  return b->ok ? build1(b, "EyeLike", square) : like;
}

static bool einsum_operand(Gradient *s, const Terms *t, int k) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *in[2 * EINSUM_MAX + MAX_RANK], *v = n->in[k];
  StrBuf e = {.arena = b->m->arena};
  char own[TERM_MAX];
  int count = 0;
  memcpy(own, t->of[k], sizeof own);
  sb_printf(&e, "%s", t->of[t->n]);
  in[count++] = s->g[0];
  for (int i = 0; i < t->n; i++) {
    if (i == k) continue;
    sb_printf(&e, ",%s", t->of[i]);
    in[count++] = n->in[i];
  }
  for (int at = 0; own[at]; at++) {
    if (own[at] == '.') continue;
    const char *before = memchr(own, own[at], (size_t)at);
    if (!before && elsewhere(t, k, own[at])) continue;
    const int dim = dim_of_label(t, n, k, at);
    if (count == 2 * EINSUM_MAX + MAX_RANK) return false;
    in[count++] = label_operand(b, v, dim, before != NULL);
    const char fresh = before ? unused_label(t, own) : own[at];
    sb_printf(&e, before ? ",%c%c" : ",%c", own[at], fresh);
    if (!fresh || !b->ok) return false;
    own[at] = fresh;
  }
  sb_printf(&e, "->%s", own);
  const Attr a = attr_string(b->m->arena, "equation", sb_str(&e));
  Value *d = build_op(b, "Einsum", count, in, 1, &a);
  return b->ok && gradient_give(s, v, build_sum_to(b, d, v));
}

bool grad_einsum(Gradient *s) {
  Terms t;
  if (!split_terms(s->n, &t))
    return op_error(s->b->m, s->n, ERR_UNSUPPORTED, "the equation is too long for a gradient");
  for (int k = 0; k < s->n->n_in; k++)
    if (gradient_wants_in(s, k) && !einsum_operand(s, &t, k))
      return s->b->ok && op_error(s->b->m, s->n, ERR_UNSUPPORTED,
                                  "the equation has too many labels for a gradient");
  return true;
}

/* ---- matrices ---- */
static Value *inverse(Build *b, Value *x) {
  return build_node(b, "Inverse", "com.microsoft", 1, &x, 1, 0, NULL)->out[0];
}

/* g det(x) x^-T: of invertible matrices. */
bool grad_det(Gradient *s) {
  Build *b = s->b;
  Value *x = s->n->in[0], *by = build2(b, "Mul", s->g[0], s->n->out[0]);
  const int64_t last[] = {x->rank - 2, x->rank - 1};
  by = b->ok ? build2(b, "Unsqueeze", by, build_i64s(b, 2, last)) : by;
  return b->ok && gradient_give(s, x, build2(b, "Mul", build_swap_last(b, inverse(b, x)), by));
}

bool grad_inverse(Gradient *s) {
  Build *b = s->b;
  Value *y = build_swap_last(b, s->n->out[0]);
  Value *d = build2(b, "MatMul", build2(b, "MatMul", y, s->g[0]), y);
  return b->ok && gradient_give(s, s->n->in[0], build1(b, "Neg", d));
}

/* Rows of a against rows of b. */
bool parts_cdist(Build *b, Node *n, Value **out) {
  const int64_t last = 2;
  Value *gap = build2(b, "Sub", build_unsqueeze(b, n->in[0], 1), build_unsqueeze(b, n->in[1], 0));
  const bool root = strcmp(node_string(n, "metric", "sqeuclidean"), "euclidean") == 0;
  const Attr keep = attr_int(b->m->arena, "keepdims", 0);
  if (b->ok)
    out[0] = build_op(b, root ? "ReduceL2" : "ReduceSumSquare", 2,
                      (Value *[]){gap, build_i64s(b, 1, &last)}, 1, &keep);
  return b->ok;
}

/* ---- CumProd: products of rows of a matrix that has 1 where an element does not count ---- */
bool parts_cum_prod(Build *b, Node *n, Value **out) {
  Value *x = n->in[0];
  const int last = x->rank - 1;
  const bool reverse = node_int(n, "reverse", 0) != 0, exclusive = node_int(n, "exclusive", 0) != 0;
  const int64_t *axis, front = 0, behind[] = {1};
  int count;
  int64_t perm[MAX_RANK];
  if (!op_known_ints(b->m, n, 1, &axis, &count))
    return op_error(b->m, n, ERR_DYNAMIC, "a gradient of CumProd needs a constant axis");
  const int64_t at = axis[0] < 0 ? axis[0] + x->rank : axis[0];
  for (int d = 0; d <= last; d++) perm[d] = d;
  perm[at] = last, perm[last] = at;
  x = at == last ? x : build_transpose(b, x, x->rank, perm);
  if (!b->ok) return false;
  Value *size = build_reshape(b, build_shape(b, x, last, last + 1), 0, NULL);
  Value *number = build_range(b, size);
  if (!b->ok) return false;
  Value *pair[] = {build_unsqueeze(b, x, last), build_unsqueeze(b, number, front),
                   build_unsqueeze(b, number, behind[0])};
  static const char *const counts[2][2] = {{"select(b <= c, a, 1)", "select(b < c, a, 1)"},
                                           {"select(c <= b, a, 1)", "select(c < b, a, 1)"}};
  const int64_t along = last + 1;
  const Attr keep = attr_int(b->m->arena, "keepdims", 0);
  Value *rows = b->ok ? build_map(b, n->in[0]->dtype, counts[reverse][exclusive], 3, pair) : x;
  Value *y =
      b->ok ? build_op(b, "ReduceProd", 2, (Value *[]){rows, build_i64s(b, 1, &along)}, 1, &keep)
            : x;
  out[0] = at == last || !b->ok ? y : build_transpose(b, y, y->rank, perm);
  return b->ok;
}
