/* TfIdfVectorizer over numbers or strings: its lists become constant inputs of burin.TfIdf
 * (runtime/ops/ops_tfidf.c). */
#include "ir/ops/ml/ml.h"
#include "runtime/ops/ops.h"

static const char *const modes[] = {"TF", "IDF", "TFIDF", NULL};

static bool need_list(Model *m, Node *n, const char *name, const int64_t **v, int *count) {
  if (!op_ints(m, n, name, v, count)) return false;
  return *count >= 0 || op_error(m, n, ERR_ATTR_MISSING, "%s is missing", name);
}

static bool check_lists(Model *m, Node *n, int64_t *width) {
  const int64_t *starts, *index, *pool;
  int n_starts, n_index, n_pool;
  const Attr *w = node_attr(n, "weights");
  if (!need_list(m, n, "ngram_counts", &starts, &n_starts) ||
      !need_list(m, n, "ngram_indexes", &index, &n_index))
    return false;
  if (n->in[0]->dtype == DT_STR) {
    const Attr *const s = node_attr(n, "pool_strings");
    if (!s || s->kind != AT_STRINGS)
      return op_error(m, n, ERR_ATTR_MISSING, "pool_strings is missing");
    n_pool = s->n;
  } else if (!need_list(m, n, "pool_int64s", &pool, &n_pool)) {
    return false;
  }
  if (w && (w->kind != AT_FLOATS || w->n != n_index))
    return op_error(m, n, ERR_ATTR_VALUE, "weights needs %d entries", n_index);
  for (int k = 0; k < n_starts; k++)
    if (starts[k] < (k ? starts[k - 1] : 0) || starts[k] > n_pool)
      return op_error(m, n, ERR_ATTR_VALUE, "ngram_counts holds %lld", (long long)starts[k]);
  *width = 0;
  for (int k = 0; k < n_index; k++) {
    if (index[k] < 0 || index[k] > 1 << 28)
      return op_error(m, n, ERR_ATTR_VALUE, "ngram_indexes holds %lld", (long long)index[k]);
    if (index[k] >= *width) *width = index[k] + 1;
  }
  return true;
}

bool infer_tfidf(Model *m, Node *n) {
  int mode;
  int64_t k, width;
  const Value *x = n->in[0];
  static const char *const sizes[] = {"min_gram_length", "max_gram_length", "max_skip_count"};
  if (!op_choice(m, n, "mode", "TF", modes, &mode) || !check_lists(m, n, &width) ||
      !op_need_rank(m, n, 0, 1, 2) || !op_need_class(m, n, 0, CL_INT | CL_STRING))
    return false;
  for (int i = 0; i < 3; i++) {
    if (!node_attr(n, sizes[i])) return op_error(m, n, ERR_ATTR_MISSING, "%s is missing", sizes[i]);
    if (!op_int_in(m, n, sizes[i], 1, i < 2, 1 << 20, &k)) return false;
  }
  const Expr *dims[2] = {x->dims[0], ex_i64(m->pool, width)};
  return op_out(m, n, 0, DT_F32, x->rank, x->rank == 2 ? dims : dims + 1);
}

static Value *list_value(Build *b, const Node *n, const char *name) {
  const int64_t *v;
  const int count = node_ints(n, name, &v);
  return build_i64s(b, count, v);
}

static Value *pool_value(Build *b, const Node *n) {
  const Attr *const s = node_attr(n, "pool_strings");
  if (n->in[0]->dtype != DT_STR) return list_value(b, n, "pool_int64s");
  const int64_t count = s->n;
  return value_const(b->m, const_new(b->m, NULL, DT_STR, 1, &count, s->strs));
}

bool expand_tfidf(Build *b, Node *n, Value **out) {
  int mode;
  int64_t width;
  const Attr *w = node_attr(n, "weights");
  if (!op_choice(b->m, n, "mode", "TF", modes, &mode) || !check_lists(b->m, n, &width))
    return false;
  const int64_t dims[1] = {w ? w->n : 0};
  float *weights = ARENA_ARRAY(b->m->arena, float, dims[0] + 1);
  for (int i = 0; i < dims[0]; i++) weights[i] = (float)w->floats[i];
  Value *ins[5] = {n->in[0], pool_value(b, n), list_value(b, n, "ngram_counts"),
                   list_value(b, n, "ngram_indexes"),
                   value_const(b->m, const_new(b->m, NULL, DT_F32, 1, dims, weights))};
  Arena *a = b->m->arena;
  const Attr attrs[5] = {attr_int(a, "min_gram_length", node_int(n, "min_gram_length", 1)),
                         attr_int(a, "max_gram_length", node_int(n, "max_gram_length", 1)),
                         attr_int(a, "max_skip_count", node_int(n, "max_skip_count", 0)),
                         attr_int(a, "mode", mode), attr_int(a, "width", width)};
  out[0] = build_node(b, "TfIdf", "burin", 5, ins, 1, 5, attrs)->out[0];
  return b->ok;
}

/* ---- burin.TfIdf ---- */
bool infer_tfidf_counts(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[2] = {x->rank ? x->dims[0] : NULL, ex_i64(m->pool, node_int(n, "width", 0))};
  return op_need_rank(m, n, 0, 1, 2) &&
         op_out(m, n, 0, DT_F32, x->rank, x->rank == 2 ? dims : dims + 1);
}

static int pack_tfidf(const Node *n, int64_t *w, int max) {
  w[0] = node_int(n, "min_gram_length", 1);
  w[1] = node_int(n, "max_gram_length", 1);
  w[2] = node_int(n, "max_skip_count", 0);
  w[3] = node_int(n, "mode", 0);
  return 4;
}
const ExternRow ext_tfidf = {"rt_tfidf", (void *)rt_tfidf, pack_tfidf,
                             NULL,       .phases = 1,      .members = 1 << 12};
