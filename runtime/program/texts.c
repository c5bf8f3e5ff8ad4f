/* Tensors of strings: elements are addresses of UTF-8 that ends with a 0. */
#include "program.h"

const char **texts_of(const Tensor *t) { return (const char **)t->data; }

bool is_text(const Tensor *t) { return number_type(t->dtype)->kind == NK_TEXT; }

void *heap_grow(void *user, uint64_t bytes) {
  return bytes < SIZE_MAX / 2 ? sys_alloc((size_t)bytes) : NULL;
}

/* A copy with a 0 behind it; NULL: no memory. */
static const char *text_copy(const char *s, size_t n) {
  char *const copy = sys_alloc(n + 1);
  if (copy && n) __builtin_memcpy(copy, s, n);
  return copy;
}

void texts_clear(Tensor *t) {
  for (uint64_t i = 0; i < t->count; i++) texts_of(t)[i] = "";
}

/* a,b,c: a string for every element, or one for all. */
bool texts_listed(Tensor *t, const char *s) {
  uint64_t n = 0;
  for (bool more = true; more; n++) {
    size_t length = 0;
    while (s[length] && s[length] != ',') length++;
    if (n == t->count || !(texts_of(t)[n] = text_copy(s, length))) return false;
    more = s[length] == ',';
    s += length + more;
  }
  for (const bool one = n == 1; one && n < t->count; n++) texts_of(t)[n] = texts_of(t)[0];
  return n == t->count;
}

bool text_add(Tensor *t, uint64_t i, const void *bytes, size_t n) {
  for (size_t k = 0; k < n; k++)
    if (!((const char *)bytes)[k]) return false;
  return i < t->count && (texts_of(t)[i] = text_copy(bytes, n));
}

void texts_show(Program *p, const Tensor *t) {
  const uint64_t n = t->count < 8 ? t->count : 8;
  out_format(&p->out, " ");
  for (uint64_t i = 0; i < n; i++) out_format(&p->out, " \"%s\"", texts_of(t)[i]);
  out_format(&p->out, n < t->count ? " …\n" : "\n");
}

bool texts_compare(Program *p, const char *name, const Tensor *got, const Tensor *want) {
  uint64_t wrong = 0, first = 0;
  for (uint64_t i = 0; i < got->count; i++)
    if (!text_equal(texts_of(got)[i], texts_of(want)[i]) && wrong++ == 0) first = i;
  out_format(&p->out, "%s: %s, %u of %u strings differ\n", name, wrong ? "MISMATCH" : "ok", wrong,
             got->count);
  if (wrong)
    out_format(&p->out, "  first: element %u is \"%s\", expected \"%s\"\n", first,
               texts_of(got)[first], texts_of(want)[first]);
  return !wrong;
}
