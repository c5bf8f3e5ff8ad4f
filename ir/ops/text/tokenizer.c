/* Tokenizer of com.microsoft, as text vectorizers of scikit-learn are written: a runtime function
 * (runtime/text/tokenize.c) that gets the pattern as a program. */
#include <string.h>
#include "ir/op/ops.h"
#include "ir/ops/text/regex.h"
#include "runtime/text/text.h"

/* Most tokens of a string where no --bound is given. */
enum { MOST_TOKENS = 256 };

/* The one pattern: tokenexp, or a separator (*between). "." of any code point for the separator "",
 * which parts a text into its characters. */
static const char *token_pattern(const Node *n, bool *between) {
  const Attr *const separators = node_attr(n, "separators");
  *between = separators && *separators->strs[0];
  return *between ? separators->strs[0] : separators ? "(?s)." : node_string(n, "tokenexp", "");
}

static const uint32_t *token_program(Model *m, const Node *n, int64_t *count) {
  const char *why;
  int at;
  bool between, unsupported;
  const uint32_t *const program =
      regex_compile(m->arena, token_pattern(n, &between), count, &why, &at, &unsupported);
  if (!program)
    op_error(m, n, unsupported ? ERR_UNSUPPORTED : ERR_ATTR_VALUE, "pattern, byte %d: %s", at, why);
  return program;
}

static bool need_pattern(Model *m, const Node *n) {
  const Attr *const separators = node_attr(n, "separators"), *const token =
                                                                 node_attr(n, "tokenexp");
  const char *pattern;
  int64_t count;
  if ((separators != NULL) == (token != NULL))
    return op_error(m, n, ERR_ATTR_VALUE, "one of separators and tokenexp must be given");
  if (separators && (separators->kind != AT_STRINGS || separators->n < 1))
    return op_error(m, n, ERR_ATTR_TYPE, "attribute separators is no list of strings");
  if (separators && separators->n > 1)
    return op_error(m, n, ERR_UNSUPPORTED, "more than one separator");
  if (separators && !*separators->strs[0] && node_int(n, "mincharnum", 1) > 1)
    return op_error(m, n, ERR_ATTR_VALUE, "single characters have no mincharnum of more than 1");
  if (!op_string(m, n, "tokenexp", "", &pattern)) return false;
  if (token && !*pattern) return op_error(m, n, ERR_ATTR_VALUE, "tokenexp is empty");
  return token_program(m, n, &count) != NULL;
}

bool infer_tokenizer(Model *m, Node *n) {
  const Attr *pad;
  int64_t mark, least;
  return op_need_dtype(m, n, 0, DT_STR) && op_need_rank(m, n, 0, 1, 2) &&
         op_int_in(m, n, "mark", 0, 0, 1, &mark) &&
         op_int_in(m, n, "mincharnum", 1, 1, INT32_MAX, &least) &&
         op_need_attr(m, n, "pad_value", AT_STRING, &pad) && need_pattern(m, n) &&
         infer_texts_tokenize(m, n);
}

bool expand_tokenizer(Build *b, Node *n, Value **out) {
  int64_t count;
  bool between;
  const uint32_t *const program = token_program(b->m, n, &count);
  const char **const given = ARENA_ARRAY(b->m->arena, const char *, 3);
  if (!program) return false;
  given[0] = node_string(n, "pad_value", "");
  given[1] = "\x02";
  given[2] = "\x03";
  token_pattern(n, &between);
  const Attr attrs[3] = {attr_int(b->m->arena, "between", between),
                         attr_int(b->m->arena, "least", node_int(n, "mincharnum", 1)),
                         attr_int(b->m->arena, "mark", node_int(n, "mark", 0))};
  const int64_t texts = 3;
  Value *ins[3] = {n->in[0], value_const(b->m, const_new(b->m, NULL, DT_U32, 1, &count, program)),
                   value_const(b->m, const_new(b->m, NULL, DT_STR, 1, &texts, given))};
  out[0] = build_node(b, "Tokenize", "burin", 3, ins, 1, 3, attrs)->out[0];
  return b->ok;
}

bool infer_texts_tokenize(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  if (!op_need_rank(m, n, 0, 0, MAX_RANK - 1)) return false;
  memcpy(dims, x->dims, sizeof *dims * (size_t)x->rank);
  dims[x->rank] = op_runtime_dim(m, n, 0, x->rank, "tokens", NULL);
  Symbol *const tokens = expr_symbol(m->pool, dims[x->rank]->id);
  if (!tokens->bound) tokens->bound = ex_i64(m->pool, MOST_TOKENS);
  return op_out(m, n, 0, x->dtype, x->rank + 1, dims);
}

static int pack_tokenize(const Node *n, int64_t *w, int max) {
  w[0] = node_int(n, "between", 0);
  w[1] = node_int(n, "least", 1);
  w[2] = node_int(n, "mark", 0);
  return 3;
}
const ExternRow ext_tokenize = {"rt_tokenize", (void *)rt_tokenize, pack_tokenize, NULL,
                                .heap = true};
