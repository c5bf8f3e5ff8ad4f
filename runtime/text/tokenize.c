/* Tokenizer of com.microsoft: the matches of a pattern, or what stands between them. */
#include "runtime/ops/ops.h"
#include "runtime/text/regex.h"

enum { TOKEN_MATCHES, TOKEN_BETWEEN };

typedef struct Tokens {
  const Strings *s;
  Regex regex;
  TextView text;
  int64_t kind, least, count;
  int64_t *to; /* NULL: they are only counted */
} Tokens;

/* The token from `begin` to `end`, if it is long enough; false: no memory. */
static bool token_add(Tokens *k, uint64_t begin, uint64_t end) {
  const TextView t = {k->text.bytes + begin, end - begin};
  int64_t chars = 0;
  int bytes;
  for (uint64_t at = 0; at < t.length; at += (uint64_t)bytes, chars++)
    utf8_read(t.bytes + at, t.length - at, &bytes);
  if (!chars || chars < k->least) return true;
  if (k->to && (k->to[k->count] = strings_put(k->s, t)) < 0) return false;
  k->count++;
  return true;
}

/* The leftmost match behind `from` that is not empty, each as long as it can be. */
static bool next_match(Tokens *k, uint64_t from, uint32_t *before, uint64_t *begin, uint64_t *end) {
  int bytes;
  for (uint64_t at = from; at < k->text.length; at += (uint64_t)bytes) {
    *end = regex_longest(&k->regex, k->text, at, *before);
    *begin = at;
    if (*end != REGEX_NO_MATCH && *end > at) return true;
    *before = utf8_read(k->text.bytes + at, k->text.length - at, &bytes);
  }
  return false;
}

static uint32_t last_code_point(TextView t, uint64_t begin, uint64_t end) {
  uint32_t c = REGEX_NOTHING;
  int bytes;
  for (uint64_t at = begin; at < end; at += (uint64_t)bytes)
    c = utf8_read(t.bytes + at, t.length - at, &bytes);
  return c;
}

static bool tokenize(Tokens *k) {
  uint64_t from = 0, begin, end;
  uint32_t before = REGEX_NOTHING;
  for (k->count = 0; next_match(k, from, &before, &begin, &end); from = end) {
    if (!(k->kind == TOKEN_MATCHES ? token_add(k, begin, end) : token_add(k, from, begin)))
      return false;
    before = last_code_point(k->text, begin, end);
  }
  return k->kind == TOKEN_MATCHES || token_add(k, from, k->text.length);
}

int32_t rt_tokenize(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                    const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  const int64_t *const x = (const int64_t *)in->data, *const given = (const int64_t *)in[2].data;
  const int64_t count = rt_count(in), marks = w[2] ? 2 : 0;
  int64_t *const width = &out->dims[in->rank], *to = (int64_t *)out->data, widest = 0;
  Tokens k = {.s = &s, .kind = w[0], .least = w[1]};
  if (!regex_open(&k.regex, s.heap, (const uint32_t *)in[1].data)) return BURIN_E_MEMORY;
  for (int64_t i = 0; i < count; i++) {
    k.text = strings_get(&s, x[i]);
    if (!tokenize(&k)) return BURIN_E_MEMORY;
    if (k.count > widest) widest = k.count;
  }
  if (widest) widest += marks; /* as in ONNX Runtime: no marks where nobody has a token */
  if (widest > *width) return BURIN_E_DATA;
  *width = widest;
  for (int64_t i = 0; to && widest && i < count; i++, to += widest) {
    k.text = strings_get(&s, x[i]);
    k.to = to + marks / 2;
    if (!tokenize(&k)) return BURIN_E_MEMORY;
    if (marks) {
      to[0] = given[1];
      to[1 + k.count] = given[2];
    }
    for (int64_t j = k.count + marks; j < widest; j++) to[j] = given[0];
  }
  return BURIN_OK;
}
