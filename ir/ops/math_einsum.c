/* Einsum: the sum over all labels that the output does not have of the product of the inputs. The equation is
 * parsed into one label per dim; an ellipsis becomes labels of its own, aligned from the right. */
#include <string.h>
#include "ir/ops/kit.h"

enum { MAX_LABELS = 52 + MAX_RANK, MAX_EINSUM_IN = 16 };

typedef struct Einsum {
  int n_in;
  int rank[MAX_EINSUM_IN + 1];              /* the last is the output */
  int8_t label[MAX_EINSUM_IN + 1][MAX_RANK];
  int8_t ellipsis[MAX_EINSUM_IN + 1];       /* position of the ellipsis among the explicit labels, -1: none */
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

/* Makes room for `width` broadcast labels (52 …, aligned right to `most`) at the ellipsis of term k. */
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
    if (e->rank[k] == MAX_RANK) e->error = "too many labels";
    else e->label[k][e->rank[k]++] = (int8_t)l;
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
    if (width[k] < 0 || (width[k] > 0 && e->ellipsis[k] < 0)) e->error = "term does not have the rank of its input";
    else if (width[k] > most) most = width[k];
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
  if (s[0] != '-' || s[1] != '>') e->error = "more terms than inputs";
  else s = parse_term(e, e->n_in, s + 2);
  if (!e->error && *s) e->error = "text after the output term";
  if (!e->error && e->ellipsis[e->n_in] >= 0) widen(e, e->n_in, most, most);
  return !e->error;
}

/* Size of each label; 1-sized dims of broadcast labels give way. */
static bool label_sizes(Model *m, const Node *n, const Einsum *e, const Expr **size) {
  for (int k = 0; k < e->n_in; k++)
    for (int d = 0; d < e->rank[k]; d++) {
      const int l = e->label[k][d];
      const Expr *dim = n->in[k]->dims[d];
      if (!size[l] || expr_is_i64(size[l], 1)) size[l] = dim;
      else if (!expr_is_i64(dim, 1) && !op_same_dim(m, n, size[l], dim, "dims of one label", &size[l])) return false;
    }
  return true;
}

bool infer_einsum(Model *m, Node *n) {
  Einsum e;
  const Attr *a;
  const Expr *size[MAX_LABELS] = {0}, *dims[MAX_RANK];
  bool seen[MAX_LABELS] = {0};
  if (!op_need_attr(m, n, "equation", AT_STRING, &a) || !op_need_class(m, n, 0, CL_NUMBER)) return false;
  if (n->n_in > MAX_EINSUM_IN) return op_error(m, n, ERR_UNSUPPORTED, "more than %d inputs", MAX_EINSUM_IN);
  for (int k = 1; k < n->n_in; k++)
    if (!op_same_dtype(m, n, k, 0)) return false;
  if (!parse_equation(&e, n)) return op_error(m, n, ERR_ATTR_VALUE, "equation \"%s\": %s", a->strs[0], e.error);
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
  const Expr *size[MAX_LABELS] = {0}, *at[MAX_LABELS] = {0}, *vars[MAX_LABELS], *own[MAX_RANK], *body = NULL;
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
