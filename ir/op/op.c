/* The dispatchers over the rows of the operator table (ir/ops/table.c): op_find, op_infer,
 * op_elem. EW bodies are scalar text; they are parsed here, once per use, with the inputs bound
 * to a b c d … What the rows' functions share stands in op/rules.c; symbolic folding of small
 * results in op_fold.c. */
#include "ir/op/op.h"
#include <stdlib.h>
#include <string.h>
#include "ir/op/op_internal.h"
#include "ir/op/ops.h"

static const char *domain_norm(const char *d) { return !d || strcmp(d, "ai.onnx") == 0 ? "" : d; }

/* Linear: a few hundred rows, asked once per node of a file. */
const OpRow *op_find(const char *domain, const char *name) {
  domain = domain_norm(domain);
  for (int i = 0; i < op_row_count; i++)
    if (strcmp(op_rows[i].name, name) == 0 && strcmp(domain_norm(op_rows[i].domain), domain) == 0)
      return &op_rows[i];
  return NULL;
}

bool op_error(Model *m, const Node *n, ErrCode code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  diag_verror(m->diag, n->loc, code, fmt, ap);
  va_end(ap);
  return false;
}

/* ---- inference ---- */

static bool check_arity(Model *m, const Node *n) {
  const OpRow *r = n->op;
  if (n->n_in < r->min_in || (r->max_in >= 0 && n->n_in > r->max_in))
    return op_error(m, n, ERR_ARITY, "%s has %d inputs, needs %d%s", r->name, n->n_in, r->min_in,
                    r->max_in < 0           ? " or more"
                    : r->max_in > r->min_in ? arena_printf(m->arena, " to %d", r->max_in)
                                            : "");
  if (n->n_out < r->min_out || (r->max_out >= 0 && n->n_out > r->max_out))
    return op_error(m, n, ERR_ARITY, "%s has %d outputs, needs %d%s", r->name, n->n_out, r->min_out,
                    r->max_out < 0            ? " or more"
                    : r->max_out > r->min_out ? arena_printf(m->arena, " to %d", r->max_out)
                                              : "");
  return true;
}

static bool check_inputs(Model *m, const Node *n) {
  const OpRow *r = n->op;
  if (r->body == OB_REGION) return true;
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    if (!v && (k < r->min_in || r->max_in < 0))
      return op_error(m, n, ERR_ARITY, "input %d of %s is required", k, r->name);
    if (!v || (r->flags & OF_ANYKIND)) continue;
    if (v->kind != TY_TENSOR || v->rank < 0 || v->dtype == DT_NONE)
      return op_error(m, n, ERR_TYPE, "input %d of %s is not a tensor of known type and rank", k,
                      r->name);
  }
  return true;
}

bool op_infer(Model *m, Node *n) {
  if (!check_arity(m, n) || !check_inputs(m, n)) return false;
  Contents *before = ARENA_ARRAY(m->arena, Contents, n->n_out + 1);
  for (int k = 0; k < n->n_out; k++) before[k] = n->out[k] ? n->out[k]->contents : NULL;
  if (!n->op->infer(m, n)) return false;
  op_fold_contents(m, n, before);
  return true;
}

/* Beyond the image a cropping Resize puts in a number of its own. */
static bool picks_nearest(const Node *n) {
  return strcmp(n->op->name, "Resize") == 0 &&
         strcmp(node_string(n, "mode", "nearest"), "nearest") == 0 &&
         strcmp(node_string(n, "coordinate_transformation_mode", ""), "tf_crop_and_resize") != 0;
}

bool node_moves(const Node *n) { return (n->op->flags & OF_MOVES) || picks_nearest(n); }

int node_data_inputs(const Node *n) { return n->op->flags & OF_PIECES ? n->n_in : 1; }

static bool check_graph_inputs(Graph *g) {
  for (int i = 0; i < g->inputs.n; i++) {
    const Value *v = g->inputs.data[i];
    if (v->kind != TY_TENSOR || v->rank < 0) continue;
    const char *problem = dims_problem(g->model, v->rank, (const Expr *const *)v->dims);
    if (problem)
      return diag_error(g->model->diag, &(Loc){.file = g->model->file, .node = -1}, ERR_OVERFLOW,
                        "input %s is too large: %s", v->name ? v->name : "", problem);
  }
  return true;
}

bool graph_infer(Graph *g) {
  if (!check_graph_inputs(g)) return false;
  for (int i = 0; i < g->nodes.n; i++)
    if (!op_infer(g->model, g->nodes.data[i])) return false;
  return true;
}

/* ---- elem ---- */

const Expr *elem_in_guarded(ElemCtx *c, const Node *n, int k, const Expr *const *idx,
                            const Expr *guard) {
  return c->read(c, n->in[k], idx, guard);
}

const Expr *elem_in(ElemCtx *c, const Node *n, int k, const Expr *const *idx) {
  return c->read(c, n->in[k], idx, NULL);
}

const Expr *elem_in_bcast(ElemCtx *c, const Node *n, int k, int rank, const Expr *const *idx) {
  const Value *v = n->in[k];
  const Expr *own[MAX_RANK];
  const Value *out = n->out[0] && n->out[0]->rank == rank ? n->out[0] : NULL;
  for (int d = 0; d < v->rank; d++) {
    const int at = d + rank - v->rank;
    own[d] = bcast_index(c->pool, v->dims[d], out ? out->dims[at] : NULL, idx[at]);
  }
  return c->read(c, v, own, NULL);
}

enum { EW_MAX_ATTRS = 8 };
typedef struct EwScope {
  ElemCtx *c;
  const Node *n;
  int rank;
  const Expr *const *idx;
  DType hint;
  bool stored;   /* inputs as they are: loads are not widened to the compute type */
  const Expr *g; /* what `g` means, or NULL: input 6 */
  const Expr *attrs[EW_MAX_ATTRS]; /* named _0 _1 … in the prepared text */
} EwScope;

/* `a` is input 0. */
static const Expr *ew_name(void *user, const char *ident) {
  EwScope *s = user;
  if (s->g && strcmp(ident, "g") == 0) return s->g;
  if (ident[0] == '_' && ident[1] >= '0' && ident[1] < '0' + EW_MAX_ATTRS && !ident[2])
    return s->attrs[ident[1] - '0'];
  const int k = ident[0] - 'a';
  if (ident[1] || k < 0 || k >= s->n->n_in || !s->n->in[k]) return NULL;
  const Expr *e = elem_in_bcast(s->c, s->n, k, s->rank, s->idx);
  return !e || s->stored ? e : ex_cast(s->c->pool, dtype_compute((DType)e->dtype), e);
}

/* Type of bare numbers: compute type of the first input that is not bool. */
static DType ew_hint(const Node *n, int out) {
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && n->in[k]->dtype != DT_BOOL) return dtype_compute(n->in[k]->dtype);
  return dtype_compute(n->out[out]->dtype);
}

/* Replaces `@name:default` by _k and fills s->attrs. Returns the prepared text. */
static const char *ew_prepare(EwScope *s, const char *text) {
  StrBuf b = {.arena = s->c->model->arena};
  int n_attrs = 0;
  while (*text) {
    if (*text != '@') {
      sb_putc(&b, *text++);
      continue;
    }
    size_t len = strspn(++text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    const char *name = arena_strndup(s->c->model->arena, text, len);
    text += len;
    double def = 0;
    if (*text == ':') def = strtod(text + 1, (char **)&text);
    const Attr *a = node_attr(s->n, name);
    const double v = a && a->kind == AT_FLOAT ? a->floats[0]
                     : a && a->kind == AT_INT ? (double)a->ints[0]
                                              : def;
    if (n_attrs == EW_MAX_ATTRS) return NULL;
    s->attrs[n_attrs] = ex_const(s->c->pool, s->hint, v);
    sb_printf(&b, "_%d", n_attrs++);
  }
  return sb_str(&b);
}

const Expr *op_elem_text(ElemCtx *c, const Node *n, const Expr *const *idx, const char *text,
                         bool stored, const Expr *g, const char **error) {
  EwScope s = {.c = c,
               .n = n,
               .rank = n->out[0]->rank,
               .idx = idx,
               .hint = ew_hint(n, 0),
               .stored = stored,
               .g = g};
  text = ew_prepare(&s, text);
  *error = text ? NULL : "too many attributes";
  const ExprScope scope = {.user = &s, .name = ew_name, .hint = s.hint};
  const Expr *e = text ? expr_parse(c->pool, &text, &scope, error) : NULL;
  if (e && *text) *error = "more than an expression";
  return *error ? NULL : e;
}

static const Expr *ew_elem(ElemCtx *c, const Node *n, const Expr *const *idx) {
  const char *error;
  const Expr *e = op_elem_text(c, n, idx, n->op->ew, false, NULL, &error);
  if (!e) {
    diag_internal(c->model->diag, n->loc, "body of %s: %s", n->op->name, error);
    return NULL;
  }
  return ex_cast(c->pool, n->out[0]->dtype, e);
}

const Expr *op_elem(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  if (n->op->body == OB_EW) return ew_elem(c, n, idx);
  if (n->op->body == OB_ELEM) return n->op->elem(c, n, out, idx);
  return NULL;
}
