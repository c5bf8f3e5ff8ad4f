/* Einsum: the sum over all labels that the output does not have of the product of the inputs. The
 * equation is parsed into one label per dim; an ellipsis becomes labels of its own, aligned from
 * the right. */
#include <string.h>
#include "ir/op/kit.h"

enum { MAX_LABELS = 52 + MAX_RANK, MAX_EINSUM_IN = 16 };

typedef struct Einsum {
  int n_in;
  int rank[MAX_EINSUM_IN + 1]; /* the last is the output */
  int8_t label[MAX_EINSUM_IN + 1][MAX_RANK];
  int8_t ellipsis[MAX_EINSUM_IN +
                  1]; /* position of the ellipsis among the explicit labels, -1: none */
  int uses[MAX_LABELS];
  const char *error;
} Einsum;

static int letter(char ch) {
  if (ch >= 'A' && ch <= 'Z') return ch - 'A';
  return ch >= 'a' && ch <= 'z' ? 26 + ch - 'a' : -1;
}

/* One term up to ',' '-' or the end. Explicit labels only; the ellipsis is widened afterwards. */
static const char *parse_term(Einsum *e, int k, const char *s) {
  e->ellipsis[k] = -1;
  for (; *s && *s != ',' && *s != '-'; s++) {
    if (*s == ' ') continue;
    if (strncmp(s, "...", 3) == 0 && e->ellipsis[k] < 0) {
      e->ellipsis[k] = (int8_t)e->rank[k];
      s += 2;
      continue;
    }
    const int l = letter(*s);
    if (l < 0 || e->rank[k] == MAX_RANK) {
      e->error = l < 0 ? "bad character" : "too many labels";
      return s;
    }
    e->label[k][e->rank[k]++] = (int8_t)l;
  }
  return s;
}

/* Makes room for `width` broadcast labels (52 …, aligned right to `most`) at the ellipsis of term
 * k. */
static void widen(Einsum *e, int k, int width, int most) {
  const int at = e->ellipsis[k];
  if (e->rank[k] + width > MAX_RANK) {
    e->error = "too many labels";
    return;
  }
  memmove(e->label[k] + at + width, e->label[k] + at, (size_t)(e->rank[k] - at));
  for (int i = 0; i < width; i++) e->label[k][at + i] = (int8_t)(52 + most - width + i);
  e->rank[k] += width;
}

/* Without "->": the broadcast dims, then all labels used once, in order of the alphabet. */
static void implicit_output(Einsum *e, int most) {
  const int k = e->n_in;
  e->ellipsis[k] = -1;
  for (int i = 0; i < most; i++) e->label[k][e->rank[k]++] = (int8_t)(52 + i);
  for (int l = 0; l < 52; l++) {
    if (e->uses[l] != 1) continue;
    if (e->rank[k] == MAX_RANK)
      e->error = "too many labels";
    else
      e->label[k][e->rank[k]++] = (int8_t)l;
  }
}

static bool parse_inputs(Einsum *e, const Node *n, const char **s) {
  for (int k = 0; k < e->n_in && !e->error; k++) {
    *s = parse_term(e, k, *s);
    if (k + 1 < e->n_in && *(*s)++ != ',') e->error = "fewer terms than inputs";
    if (e->error) return false;
  }
  return !e->error;
}

static bool parse_equation(Einsum *e, const Node *n) {
  const char *s = node_string(n, "equation", "");
  int most = 0, width[MAX_EINSUM_IN];
  *e = (Einsum){.n_in = n->n_in};
  if (!parse_inputs(e, n, &s)) return false;
  for (int k = 0; k < e->n_in; k++) {
    width[k] = n->in[k]->rank - e->rank[k];
    if (width[k] < 0 || (width[k] > 0 && e->ellipsis[k] < 0))
      e->error = "term does not have the rank of its input";
    else if (width[k] > most)
      most = width[k];
  }
  for (int k = 0; k < e->n_in && !e->error; k++) {
    if (e->ellipsis[k] >= 0) widen(e, k, width[k], most);
    for (int d = 0; d < e->rank[k]; d++) e->uses[e->label[k][d]]++;
  }
  if (e->error) return false;
  if (!*s) {
    implicit_output(e, most);
    return !e->error;
  }
  if (s[0] != '-' || s[1] != '>')
    e->error = "more terms than inputs";
  else
    s = parse_term(e, e->n_in, s + 2);
  if (!e->error && *s) e->error = "text after the output term";
  if (!e->error && e->ellipsis[e->n_in] >= 0) widen(e, e->n_in, most, most);
  return !e->error;
}

/* A label that one term repeats walks a diagonal: no size gives way there, not even 1. */
static bool same_on_diagonal(Model *m, const Node *n, const Einsum *e, int k, int d) {
  int first = 0;
  while (e->label[k][first] != e->label[k][d]) first++;
  return require_equal(m, n, n->in[k]->dims[first], n->in[k]->dims[d], "dims of a repeated label");
}

/* Size of each label; 1-sized dims of broadcast labels give way. */
static bool label_sizes(Model *m, const Node *n, const Einsum *e, const Expr **size) {
  for (int k = 0; k < e->n_in; k++)
    for (int d = 0; d < e->rank[k]; d++) {
      const int l = e->label[k][d];
      const Expr *dim = n->in[k]->dims[d];
      if (!same_on_diagonal(m, n, e, k, d)) return false;
      if (!size[l] || expr_is_i64(size[l], 1))
        size[l] = dim;
      else if (!expr_is_i64(dim, 1) &&
               !op_same_dim(m, n, size[l], dim, "dims of one label", &size[l]))
        return false;
    }
  return true;
}

bool infer_einsum(Model *m, Node *n) {
  Einsum e;
  const Attr *a;
  const Expr *size[MAX_LABELS] = {0}, *dims[MAX_RANK];
  bool seen[MAX_LABELS] = {0};
  if (!op_need_attr(m, n, "equation", AT_STRING, &a) || !op_need_class(m, n, 0, CL_NUMBER))
    return false;
  if (n->n_in > MAX_EINSUM_IN)
    return op_error(m, n, ERR_UNSUPPORTED, "more than %d inputs", MAX_EINSUM_IN);
  for (int k = 1; k < n->n_in; k++)
    if (!op_same_dtype(m, n, k, 0)) return false;
  if (!parse_equation(&e, n))
    return op_error(m, n, ERR_ATTR_VALUE, "equation \"%s\": %s", a->strs[0], e.error);
  if (!label_sizes(m, n, &e, size)) return false;
  const int r = e.rank[e.n_in];
  for (int d = 0; d < r; d++) {
    const int l = e.label[e.n_in][d];
    if (!size[l] || seen[l])
      return op_error(m, n, ERR_ATTR_VALUE, "equation \"%s\": %s", a->strs[0],
                      seen[l] ? "output repeats a label" : "output has a label that no input has");
    seen[l] = true;
    dims[d] = size[l];
  }
  return op_out(m, n, 0, n->in[0]->dtype, r, dims);
}

const Expr *elem_einsum(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  Einsum e;
  const Expr *size[MAX_LABELS] = {0}, *at[MAX_LABELS] = {0}, *vars[MAX_LABELS], *own[MAX_RANK],
             *body = NULL;
  const DType t = kit_compute(n);
  int n_vars = 0;
  if (!parse_equation(&e, n) || !label_sizes(c->model, n, &e, size)) return NULL;
  for (int d = 0; d < e.rank[e.n_in]; d++) at[e.label[e.n_in][d]] = idx[d];
  for (int l = 0; l < MAX_LABELS; l++)
    if (size[l] && !at[l]) at[l] = vars[n_vars++] = kit_var(c, "k", size[l]);
  for (int k = 0; k < n->n_in; k++) {
    for (int d = 0; d < e.rank[k]; d++)
      own[d] = expr_is_i64(n->in[k]->dims[d], 1) ? ex_i64(c->pool, 0) : at[e.label[k][d]];
    const Expr *x = kit_in(c, n, k, own, t);
    body = body ? ex_mul(c->pool, body, x) : x;
  }
  return kit_ret(c, n, out, kit_reduce_all(c, RED_SUM, n_vars, vars, body));
}

/* ---- a plain contraction of two tensors as a matrix product ---- */
/* Labels in the order batch, rows (of a only), columns (of b only), inner (summed). */
typedef struct Operands {
  int batch[MAX_RANK], rows[MAX_RANK], cols[MAX_RANK], inner[MAX_RANK];
  int n_batch, n_rows, n_cols, n_inner;
} Operands;

static int position(const Einsum *e, int k, int label) {
  for (int d = 0; d < e->rank[k]; d++)
    if (e->label[k][d] == label) return d;
  return -1;
}

/* False where the equation is more than that: other numbers of inputs, diagonals, broadcast or
 * summed-alone dims. */
static bool plan_make(const Einsum *e, const Node *n, const Expr *const *size, Operands *p) {
  *p = (Operands){0};
  if (e->n_in != 2) return false;
  for (int k = 0; k < 2; k++)
    for (int d = 0; d < e->rank[k]; d++) {
      const int l = e->label[k][d];
      const bool other = position(e, 1 - k, l) >= 0, kept = position(e, 2, l) >= 0;
      if (position(e, k, l) != d || n->in[k]->dims[d] != size[l] || (!other && !kept)) return false;
      if (k == 1 && other) continue;
      if (other && kept)
        p->batch[p->n_batch++] = l;
      else if (other)
        p->inner[p->n_inner++] = l;
      else if (k == 0)
        p->rows[p->n_rows++] = l;
      else
        p->cols[p->n_cols++] = l;
    }
  return p->n_batch + 2 <= MAX_RANK;
}

/* Product of the labels' sizes; -1 when it is not constant. */
static int64_t merged(const Expr *const *size, int n, const int *labels) {
  int64_t all = 1, v;
  for (int i = 0; i < n; i++)
    if (!expr_is_const(size[labels[i]], &v) || !ck_mul(all, v, &all)) return -1;
  return all;
}

/* Reshape to dims, of which at most one may be -1. Equal shapes stay. */
static Value *reshape_to(Build *b, Value *v, int rank, const int64_t *dims) {
  int unknown = 0;
  for (int d = 0; d < rank; d++) unknown += dims[d] < 0;
  if (unknown > 1) b->ok = false;
  if (!b->ok) return v;
  return build_op(b, "Reshape", 2, (Value *[]){v, build_i64s(b, rank, dims)}, 0, NULL);
}

/* Input k as [batch…, first, second], each of the two a merged group of labels. */
static Value *operand(Build *b, const Einsum *e, const Operands *p, const Expr *const *size, int k,
                      Value *v, int n1, const int *first, int n2, const int *second) {
  int64_t perm[MAX_RANK], dims[MAX_RANK + 2];
  int r = 0;
  bool moved = false;
  for (int i = 0; i < p->n_batch; i++) perm[r++] = position(e, k, p->batch[i]);
  for (int i = 0; i < n1; i++) perm[r++] = position(e, k, first[i]);
  for (int i = 0; i < n2; i++) perm[r++] = position(e, k, second[i]);
  for (int d = 0; d < r; d++) moved = moved || perm[d] != d;
  const Attr a = attr_ints(b->m->arena, "perm", r, perm);
  if (moved) v = build_op(b, "Transpose", 1, &v, 1, &a);
  if (n1 == 1 && n2 == 1) return v;
  for (int i = 0; i < p->n_batch; i++) dims[i] = 0;
  dims[p->n_batch] = merged(size, n1, first);
  dims[p->n_batch + 1] = merged(size, n2, second);
  return reshape_to(b, v, p->n_batch + 2, dims);
}

/* The product [batch…, rows, cols] with its groups split again, in the order of the output. */
static Value *restore(Build *b, const Einsum *e, const Operands *p, const Expr *const *size,
                      Value *v) {
  int64_t dims[MAX_RANK + 2], perm[MAX_RANK];
  int labels[MAX_RANK], r = 0;
  bool moved = false;
  if (p->n_batch + p->n_rows + p->n_cols > MAX_RANK) b->ok = false;
  for (int i = 0; b->ok && i < p->n_batch + p->n_rows + p->n_cols; i++) {
    const bool batch = i < p->n_batch, row = i < p->n_batch + p->n_rows;
    labels[r] = batch ? p->batch[i]
                : row ? p->rows[i - p->n_batch]
                      : p->cols[i - p->n_batch - p->n_rows];
    dims[r++] = batch ? 0 : merged(size, 1, &labels[i]);
  }
  if (p->n_rows != 1 || p->n_cols != 1) v = reshape_to(b, v, r, dims);
  for (int d = 0; d < r; d++)
    for (int i = 0; i < r; i++)
      if (labels[i] == e->label[2][d]) perm[d] = i;
  for (int d = 0; d < r; d++) moved = moved || perm[d] != d;
  const Attr a = attr_ints(b->m->arena, "perm", r, perm);
  return moved && b->ok ? build_op(b, "Transpose", 1, &v, 1, &a) : v;
}

/* At most one group of each operand and of the result may have a size that is not constant. */
static bool can_merge(const Operands *p, const Expr *const *size) {
  const int64_t m = merged(size, p->n_rows, p->rows), c = merged(size, p->n_cols, p->cols);
  const int64_t k = merged(size, p->n_inner, p->inner);
  int unknown = 0;
  for (int i = 0; i < p->n_rows; i++) unknown += merged(size, 1, &p->rows[i]) < 0;
  for (int i = 0; i < p->n_cols; i++) unknown += merged(size, 1, &p->cols[i]) < 0;
  const bool a = (p->n_rows == 1 && p->n_inner == 1) || (m >= 0) + (k >= 0) > 0;
  const bool b = (p->n_cols == 1 && p->n_inner == 1) || (c >= 0) + (k >= 0) > 0;
  return a && b && ((p->n_rows == 1 && p->n_cols == 1) || unknown <= 1) && m != 0 && c != 0 &&
         k != 0;
}

static void put_term(StrBuf *s, const int8_t *labels, int rank) {
  for (int d = 0; d < rank; d++)
    sb_putc(s, labels[d] < 26 ? 'A' + labels[d] : 'a' + labels[d] - 26);
}

/* The labels of inputs 0 and 1 that somebody else still needs; count, -1: the pair must stay. */
static int pair_labels(const Einsum *e, int8_t *labels) {
  int rank = 0, most = 0;
  for (int k = 0; k <= e->n_in; k++) most = e->rank[k] > most ? e->rank[k] : most;
  for (int l = 0; l < MAX_LABELS; l++) {
    bool here = false, later = false;
    for (int k = 0; k <= e->n_in; k++)
      for (int d = 0; d < e->rank[k]; d++) {
        here = here || (k < 2 && e->label[k][d] == l);
        later = later || (k >= 2 && e->label[k][d] == l);
      }
    if (here && l >= 52) return -1; /* an ellipsis has no letters */
    if (here && later && rank == most) return -1;
    if (here && later) labels[rank++] = (int8_t)l;
  }
  return rank;
}

/* More than two factors: the first two become one, so that each product is one of matrices. Half
 * types would round in between. NULL: they stay together. */
static Value *einsum_pairwise(Build *b, const Node *n, const Einsum *e) {
  int8_t labels[MAX_RANK];
  const int rank = e->n_in > 2 ? pair_labels(e, labels) : -1;
  if (rank < 0 || dtype_compute(n->in[0]->dtype) != n->in[0]->dtype) return NULL;
  for (int k = 0; k <= e->n_in; k++)
    for (int d = 0; d < e->rank[k]; d++)
      if (e->label[k][d] >= 52) return NULL;
  StrBuf first = {.arena = b->m->arena}, rest = {.arena = b->m->arena};
  put_term(&first, e->label[0], e->rank[0]);
  sb_putc(&first, ',');
  put_term(&first, e->label[1], e->rank[1]);
  sb_printf(&first, "->");
  put_term(&first, labels, rank);
  put_term(&rest, labels, rank);
  for (int k = 2; k <= e->n_in; k++) {
    sb_printf(&rest, k < e->n_in ? "," : "->");
    put_term(&rest, e->label[k], e->rank[k]);
  }
  const Attr a = attr_string(b->m->arena, "equation", sb_str(&first)),
             c = attr_string(b->m->arena, "equation", sb_str(&rest));
  Value *in[MAX_EINSUM_IN];
  in[0] = build_op(b, "Einsum", 2, n->in, 1, &a);
  for (int k = 2; k < e->n_in; k++) in[k - 1] = n->in[k];
  return b->ok ? build_op(b, "Einsum", e->n_in - 1, in, 1, &c) : NULL;
}

bool expand_einsum(Build *b, Node *n, Value **out) {
  Einsum e;
  Operands p;
  const Expr *size[MAX_LABELS] = {0};
  if (!parse_equation(&e, n) || !label_sizes(b->m, n, &e, size)) return false;
  if ((out[0] = einsum_pairwise(b, n, &e)) != NULL || !b->ok) return b->ok;
  if (!plan_make(&e, n, size, &p) || !can_merge(&p, size)) {
    out[0] = build_node(b, "Einsum", "burin", n->n_in, n->in, 1, n->n_attrs, n->attrs)->out[0];
    return b->ok;
  }
  Value *x = operand(b, &e, &p, size, 0, n->in[0], p.n_rows, p.rows, p.n_inner, p.inner);
  Value *y =
      b->ok ? operand(b, &e, &p, size, 1, n->in[1], p.n_inner, p.inner, p.n_cols, p.cols) : NULL;
  if (b->ok) out[0] = build2(b, "MatMul", x, y);
  if (b->ok) out[0] = restore(b, &e, &p, size, out[0]);
  return b->ok;
}
