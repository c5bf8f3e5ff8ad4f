/* Operators of strings. The ONNX rows check types and attributes and become runtime functions
 * (runtime/text/), whose attributes that are strings are constant inputs. */
#include "runtime/text/text.h"
#include <string.h>
#include "ir/op/ops.h"
#include "ir/ops/text/regex.h"

/* ---- what the rows share ---- */
static bool need_text(Model *m, const Node *n, int k) {
  const Value *v = node_in(n, k);
  return !v || v->dtype == DT_STR || v->dtype == DT_I64 ||
         op_error(m, n, ERR_TYPE, "input %d of %s is no text", k, n->op->name);
}

static Value *const_texts(Build *b, int rank, int64_t n, const char *const *s) {
  return value_const(b->m, const_new(b->m, NULL, DT_STR, rank, &n, s));
}

/* Attribute lists of strings; absent: count 0. */
static bool need_strings(Model *m, const Node *n, const char *name, int *count,
                         const char *const **s) {
  const Attr *a = node_attr(n, name);
  *count = a ? a->n : 0;
  *s = a ? a->strs : NULL;
  return !a || a->kind == AT_STRINGS ||
         op_error(m, n, ERR_ATTR_TYPE, "attribute %s of %s is no list of strings", name,
                  n->op->name);
}

static int pack_nothing(const Node *n, int64_t *w, int max) { return 0; }

/* ---- StringConcat ---- */
bool infer_string_concat(Model *m, Node *n) {
  return op_need_dtype(m, n, 0, DT_STR) && op_need_dtype(m, n, 1, DT_STR) &&
         infer_texts_concat(m, n);
}

bool expand_string_concat(Build *b, Node *n, Value **out) {
  out[0] = build_node(b, "StringConcat", "burin", 2, n->in, 1, 0, NULL)->out[0];
  return b->ok;
}

bool infer_texts_concat(Model *m, Node *n) {
  const Expr *dims[MAX_RANK];
  int rank;
  const Value *x = n->in[0], *y = n->in[1];
  return need_text(m, n, 0) && need_text(m, n, 1) &&
         op_broadcast(m, n, x->rank, x->dims, y->rank, y->dims, &rank, dims) &&
         op_out(m, n, 0, x->dtype, rank, dims);
}
const ExternRow ext_string_concat = {"rt_string_concat", (void *)rt_string_concat, pack_nothing,
                                     NULL, .heap = true};

/* ---- StringSplit ---- */
/* Most pieces of a string that nobody says how often to split, where no --bound is given. */
enum { MOST_PIECES = 256 };

static bool split_limit(Model *m, Node *n, int64_t *limit) {
  return op_int_in(m, n, "maxsplit", -1, -1, INT32_MAX, limit);
}

bool infer_string_split(Model *m, Node *n) {
  const char *delimiter;
  return op_string(m, n, "delimiter", "", &delimiter) && op_need_dtype(m, n, 0, DT_STR) &&
         infer_texts_split(m, n);
}

bool expand_string_split(Build *b, Node *n, Value **out) {
  const char **const delimiter = ARENA_ARRAY(b->m->arena, const char *, 1);
  delimiter[0] = node_string(n, "delimiter", "");
  const Attr limit = attr_int(b->m->arena, "maxsplit", node_int(n, "maxsplit", -1));
  Value *ins[2] = {n->in[0], const_texts(b, 0, 1, delimiter)};
  const Node *const split = build_node(b, "StringSplit", "burin", 2, ins, 2, 1, &limit);
  out[0] = split->out[0];
  out[1] = split->out[1];
  return b->ok;
}

bool infer_texts_split(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  int64_t limit;
  if (!need_text(m, n, 0) || !split_limit(m, n, &limit) || !op_need_rank(m, n, 0, 0, MAX_RANK - 1))
    return false;
  memcpy(dims, x->dims, sizeof *dims * (size_t)x->rank);
  const Expr *const most = limit >= 0 ? ex_i64(m->pool, limit + 1) : NULL;
  dims[x->rank] = op_runtime_dim(m, n, 0, x->rank, "pieces", most);
  Symbol *const pieces = expr_symbol(m->pool, dims[x->rank]->id);
  if (!pieces->bound) pieces->bound = ex_i64(m->pool, MOST_PIECES);
  return op_out(m, n, 0, x->dtype, x->rank + 1, dims) && op_out(m, n, 1, DT_I64, x->rank, x->dims);
}

static int pack_split(const Node *n, int64_t *w, int max) {
  w[0] = node_int(n, "maxsplit", -1);
  return 1;
}
const ExternRow ext_string_split = {"rt_string_split", (void *)rt_string_split, pack_split, NULL,
                                    .heap = true};

/* ---- StringNormalizer ---- */
static const char *const case_actions[] = {"NONE", "LOWER", "UPPER", NULL};

bool infer_string_normalizer(Model *m, Node *n) {
  const char *const *stopwords, *locale;
  int64_t sensitive;
  int action, count;
  return op_need_dtype(m, n, 0, DT_STR) &&
         op_choice(m, n, "case_change_action", "NONE", case_actions, &action) &&
         op_int_in(m, n, "is_case_sensitive", 0, 0, 1, &sensitive) &&
         op_string(m, n, "locale", "en_US", &locale) &&
         need_strings(m, n, "stopwords", &count, &stopwords) && infer_texts_normalize(m, n);
}

bool expand_string_normalizer(Build *b, Node *n, Value **out) {
  const char *const *stopwords;
  int count, action;
  Arena *a = b->m->arena;
  if (!op_choice(b->m, n, "case_change_action", "NONE", case_actions, &action) ||
      !need_strings(b->m, n, "stopwords", &count, &stopwords))
    return false;
  const Attr attrs[2] = {attr_int(a, "action", action),
                         attr_int(a, "sensitive", node_int(n, "is_case_sensitive", 0))};
  Value *ins[2] = {n->in[0], const_texts(b, 1, count, stopwords)};
  out[0] = build_node(b, "StringNormalizer", "burin", 2, ins, 1, 2, attrs)->out[0];
  return b->ok;
}

/* [C] or [1, C]; one empty string where none is left. */
bool infer_texts_normalize(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[2];
  if (!need_text(m, n, 0) || !op_need_rank(m, n, 0, 1, 2)) return false;
  if (x->rank == 2 && !require_size(m, n, x->dims[0], 1, "rows")) return false;
  const int last = x->rank - 1;
  dims[0] = ex_i64(m->pool, 1);
  const Expr *const most = ex_max(m->pool, x->dims[last], ex_i64(m->pool, 1));
  dims[last] = op_runtime_dim(m, n, 0, last, "words", most);
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

static int pack_normalize(const Node *n, int64_t *w, int max) {
  w[0] = node_int(n, "action", 0);
  w[1] = node_int(n, "sensitive", 0);
  return 2;
}
const ExternRow ext_string_normalize = {"rt_string_normalize", (void *)rt_string_normalize,
                                        pack_normalize, NULL, .heap = true};

/* ---- RegexFullMatch ---- */
bool infer_regex_full_match(Model *m, Node *n) {
  const Attr *a;
  const char *why;
  int64_t count;
  int at;
  bool unsupported;
  if (!op_need_dtype(m, n, 0, DT_STR) || !op_need_attr(m, n, "pattern", AT_STRING, &a))
    return false;
  if (!regex_compile(m->arena, a->strs[0], &count, &why, &at, &unsupported))
    return op_error(m, n, unsupported ? ERR_UNSUPPORTED : ERR_ATTR_VALUE, "pattern, byte %d: %s",
                    at, why);
  return op_out_like(m, n, 0, DT_BOOL, n->in[0]);
}

bool expand_regex_full_match(Build *b, Node *n, Value **out) {
  const char *why;
  int64_t count;
  int at;
  bool unsupported;
  const uint32_t *const program =
      regex_compile(b->m->arena, node_string(n, "pattern", ""), &count, &why, &at, &unsupported);
  Value *ins[2] = {n->in[0], value_const(b->m, const_new(b->m, NULL, DT_U32, 1, &count, program))};
  out[0] = build_node(b, "RegexFullMatch", "burin", 2, ins, 1, 0, NULL)->out[0];
  return b->ok;
}

bool infer_texts_match(Model *m, Node *n) {
  return need_text(m, n, 0) && op_need_dtype(m, n, 1, DT_U32) &&
         op_out_like(m, n, 0, DT_BOOL, n->in[0]);
}
const ExternRow ext_regex_full_match = {"rt_regex_full_match", (void *)rt_regex_full_match,
                                        pack_nothing, NULL, .heap = true};

/* ---- MurmurHash3 of com.microsoft ---- */
bool infer_murmur_hash(Model *m, Node *n) {
  int64_t seed, positive;
  if (n->in[0]->dtype != DT_STR)
    return op_error(m, n, ERR_UNSUPPORTED, "only strings are hashed, not %s",
                    dtype_text(n->in[0]->dtype));
  return op_int_in(m, n, "seed", 0, 0, UINT32_MAX, &seed) &&
         op_int_in(m, n, "positive", 1, 0, 1, &positive) &&
         op_out_like(m, n, 0, positive ? DT_U32 : DT_I32, n->in[0]);
}

bool expand_murmur_hash(Build *b, Node *n, Value **out) {
  const Attr attrs[2] = {attr_int(b->m->arena, "seed", node_int(n, "seed", 0)),
                         attr_int(b->m->arena, "positive", node_int(n, "positive", 1))};
  out[0] = build_node(b, "TextHash", "burin", 1, n->in, 1, 2, attrs)->out[0];
  return b->ok;
}

bool infer_texts_hash(Model *m, Node *n) {
  return need_text(m, n, 0) &&
         op_out_like(m, n, 0, node_int(n, "positive", 1) ? DT_U32 : DT_I32, n->in[0]);
}

static int pack_hash(const Node *n, int64_t *w, int max) {
  w[0] = node_int(n, "seed", 0);
  return 1;
}
const ExternRow ext_text_hash = {"rt_text_hash", (void *)rt_text_hash, pack_hash, NULL,
                                 .heap = true};

/* ---- what the pass strings makes ---- */
bool infer_texts_to_i64(Model *m, Node *n) { return op_out_like(m, n, 0, DT_I64, n->in[0]); }
bool infer_texts_out(Model *m, Node *n) { return op_out_like(m, n, 0, DT_STR, n->in[0]); }

bool infer_text_to_number(Model *m, Node *n) {
  DType to;
  return op_dtype(m, n, "to", DT_NONE, &to) && op_out_like(m, n, 0, to, n->in[0]);
}

const ExternRow ext_string_ranks = {"rt_string_ranks", (void *)rt_string_ranks, pack_nothing, NULL,
                                    .heap = true};
const ExternRow ext_string_to_number = {"rt_string_to_number", (void *)rt_string_to_number,
                                        pack_nothing, NULL, .heap = true};
const ExternRow ext_number_to_string = {"rt_number_to_string", (void *)rt_number_to_string,
                                        pack_nothing, NULL, .heap = true};
const ExternRow ext_strings_in = {"rt_strings_in", (void *)rt_strings_in, pack_nothing, NULL,
                                  .heap = true};
const ExternRow ext_strings_out = {"rt_strings_out", (void *)rt_strings_out, pack_nothing, NULL,
                                   .heap = true};
