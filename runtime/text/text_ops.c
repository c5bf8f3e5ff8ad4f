/* Operators of strings: in and out of a model, StringConcat, StringSplit, StringNormalizer, order
 * (text.h says what each gets). */
#include <string.h>
#include "runtime/ops/ops.h"
#include "runtime/text/text.h"

static const int64_t *numbers(const RtTensor *t) { return (const int64_t *)t->data; }

/* ---- in and out ---- */
int32_t rt_strings_in(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                      const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  const char *const *const from = (const char *const *)in[0].data;
  int64_t *const to = (int64_t *)out->data;
  for (int64_t i = 0; i < rt_count(in); i++) {
    TextView t = {from[i] ? from[i] : "", 0};
    while (t.bytes[t.length]) t.length++;
    if ((to[i] = strings_put(&s, t)) < 0) return BURIN_E_MEMORY;
  }
  return BURIN_OK;
}

int32_t rt_strings_out(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                       const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  const char **const to = (const char **)out->data;
  for (int64_t i = 0; to && i < rt_count(in); i++) to[i] = strings_get(&s, numbers(in)[i]).bytes;
  return BURIN_OK;
}

/* ---- StringConcat ---- */
/* Position in t of element i of an output of these dims, to which t is broadcast. */
static int64_t broadcast_at(const RtTensor *t, const RtTensor *out, int64_t i) {
  int64_t at = 0, step = 1;
  for (int32_t d = out->rank - 1, k = t->rank - 1; k >= 0; d--, k--) {
    if (t->dims[k] != 1) at += i % out->dims[d] * step;
    step *= t->dims[k];
    i /= out->dims[d];
  }
  return at;
}

int32_t rt_string_concat(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  int64_t *const to = (int64_t *)out->data;
  uint64_t room = 0;
  char *both = NULL;
  for (int64_t i = 0; i < rt_count(out); i++) {
    const TextView a = strings_get(&s, numbers(&in[0])[broadcast_at(&in[0], out, i)]),
                   b = strings_get(&s, numbers(&in[1])[broadcast_at(&in[1], out, i)]);
    if (a.length + b.length > room || !both) {
      room = 2 * (a.length + b.length);
      both = (char *)heap_alloc(s.heap, room);
      if (!both) return BURIN_E_MEMORY;
    }
    memcpy(both, a.bytes, a.length);
    memcpy(both + a.length, b.bytes, b.length);
    to[i] = strings_put(&s, (TextView){both, a.length + b.length});
    if (to[i] < 0) return BURIN_E_MEMORY;
  }
  return BURIN_OK;
}

/* ---- StringSplit ---- */
static bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

static TextView view_from(TextView t, uint64_t at) {
  return (TextView){t.bytes + at, t.length - at};
}

static TextView skip_spaces(TextView t) {
  int n;
  while (t.length && is_space(utf8_read(t.bytes, t.length, &n))) t = view_from(t, (uint64_t)n);
  return t;
}

/* Bytes before the first separator; *gap: its own bytes (0: there is none). */
static uint64_t find_separator(TextView t, TextView separator, uint64_t *gap) {
  int n;
  *gap = separator.length;
  for (uint64_t i = 0; i < t.length; i += separator.length ? 1 : (uint64_t)n) {
    if (separator.length) {
      if (t.length - i >= separator.length &&
          memcmp(t.bytes + i, separator.bytes, separator.length) == 0)
        return i;
    } else if (is_space(utf8_read(t.bytes + i, t.length - i, &n))) {
      *gap = (uint64_t)n;
      return i;
    }
  }
  *gap = 0;
  return t.length;
}

/* The next piece of *rest; false: there is none. `last`: it is all that is left. */
static bool next_piece(TextView *rest, TextView separator, bool first, bool last, TextView *piece) {
  uint64_t gap;
  if (!separator.length) *rest = skip_spaces(*rest);
  if (!rest->bytes || (!separator.length && !rest->length)) return false;
  *piece = *rest;
  if (!last) piece->length = find_separator(*rest, separator, &gap);
  if (last || !gap)
    *rest = (TextView){NULL, 0};
  else
    *rest = view_from(*rest, piece->length + gap);
  return true;
}

/* Pieces of one string; to NULL: only counted. -1: no memory. */
static int64_t split_one(const Strings *s, TextView t, TextView separator, int64_t most,
                         int64_t *to) {
  int64_t n = 0;
  TextView rest = t, piece;
  for (; rest.bytes && next_piece(&rest, separator, n == 0, n == most, &piece); n++)
    if (to && (to[n] = strings_put(s, piece)) < 0) return -1;
  return n;
}

int32_t rt_string_split(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                        const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  const TextView separator = strings_get(&s, numbers(&in[1])[0]);
  const int64_t count = rt_count(in);
  int64_t *const width = &out[0].dims[in->rank], *const pieces = (int64_t *)out[1].data;
  int64_t widest = 0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t n = split_one(&s, strings_get(&s, numbers(in)[i]), separator, w[0], NULL);
    if (pieces) pieces[i] = n;
    if (n > widest) widest = n;
  }
  if (widest > *width) return BURIN_E_DATA;
  *width = widest;
  int64_t *to = (int64_t *)out[0].data;
  for (int64_t i = 0; to && i < count; i++, to += widest) {
    int64_t n = split_one(&s, strings_get(&s, numbers(in)[i]), separator, w[0], to);
    if (n < 0) return BURIN_E_MEMORY;
    for (; n < widest; n++) to[n] = 0;
  }
  return BURIN_OK;
}

/* ---- StringNormalizer ---- */
enum { CASE_SAME, CASE_LOWER, CASE_UPPER };

/* The number of t in another case; -1: no memory. */
static int64_t put_in_case(const Strings *s, TextView t, int64_t to) {
  char *const text = (char *)heap_alloc(s->heap, 2 * t.length + 4);
  uint64_t n = 0;
  int bytes;
  if (!text) return -1;
  for (uint64_t i = 0; i < t.length; i += (uint64_t)bytes) {
    const uint32_t c = utf8_read(t.bytes + i, t.length - i, &bytes);
    n += (uint64_t)utf8_write(to == CASE_LOWER ? code_point_lower(c) : code_point_upper(c),
                              text + n);
  }
  return strings_put(s, (TextView){text, n});
}

static bool contains(const int64_t *list, int64_t n, int64_t number) {
  for (int64_t i = 0; i < n; i++)
    if (list[i] == number) return true;
  return false;
}

int32_t rt_string_normalize(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                            const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  const int64_t stops = rt_count(&in[1]);
  int64_t *const to = (int64_t *)out->data, n = 0;
  int64_t *const stop = (int64_t *)heap_alloc(s.heap, (uint64_t)stops * sizeof *stop);
  if (!stop) return BURIN_E_MEMORY;
  for (int64_t k = 0; k < stops; k++) {
    const int64_t word = numbers(&in[1])[k];
    stop[k] = w[1] ? word : put_in_case(&s, strings_get(&s, word), CASE_LOWER);
    if (stop[k] < 0) return BURIN_E_MEMORY;
  }
  for (int64_t i = 0; i < rt_count(in); i++) {
    const int64_t word = numbers(in)[i];
    const TextView t = strings_get(&s, word);
    const int64_t key = w[1] || !stops ? word : put_in_case(&s, t, CASE_LOWER);
    if (contains(stop, stops, key)) continue;
    to[n] = w[0] == CASE_SAME ? word : put_in_case(&s, t, w[0]);
    if (key < 0 || to[n++] < 0) return BURIN_E_MEMORY;
  }
  if (!n) to[n++] = 0; /* the specification: one empty string */
  out->dims[out->rank - 1] = n;
  return BURIN_OK;
}

/* ---- order ---- */
typedef struct Order {
  const Strings *s;
  const int64_t *numbers;
} Order;

static int order_compare(const Order *o, int64_t a, int64_t b) {
  return text_compare(strings_get(o->s, o->numbers[a]), strings_get(o->s, o->numbers[b]));
}

static void order_sift(const Order *o, int64_t *heap, int64_t i, int64_t n) {
  for (int64_t c = 2 * i + 1; c < n; c = 2 * i + 1) {
    if (c + 1 < n && order_compare(o, heap[c], heap[c + 1]) < 0) c++;
    if (order_compare(o, heap[i], heap[c]) >= 0) return;
    const int64_t other = heap[i];
    heap[i] = heap[c];
    heap[c] = other;
    i = c;
  }
}

int32_t rt_string_ranks(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                        const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  const Order o = {&s, numbers(in)};
  const int64_t n = rt_count(in);
  int64_t *const at = (int64_t *)heap_alloc(s.heap, (uint64_t)n * sizeof *at), rank = 0;
  if (!at) return BURIN_E_MEMORY;
  for (int64_t i = 0; i < n; i++) at[i] = i;
  for (int64_t i = n / 2 - 1; i >= 0; i--) order_sift(&o, at, i, n);
  for (int64_t k = n - 1; k > 0; k--) { /* heapsort */
    const int64_t top = at[0];
    at[0] = at[k];
    at[k] = top;
    order_sift(&o, at, 0, k);
  }
  for (int64_t k = 0; k < n; k++) {
    rank += k && o.numbers[at[k]] != o.numbers[at[k - 1]];
    ((int64_t *)out->data)[at[k]] = rank;
  }
  return BURIN_OK;
}
