/* Options of a run, and what is said when one fails: the caller's options may be of an older,
 * shorter version; a failed check is noted with its numbers and put into words on request. */
#include <stdbool.h>

#include "runtime/core/rt.h"

int32_t burin_rt_options(const BurinOptions *given, BurinOptions *own) {
  *own = (BurinOptions){.size = sizeof *own};
  if (!given) return BURIN_OK;
  if (given->size < sizeof given->size) return BURIN_E_ARGUMENT;
  burin_rt_copy(own, given, given->size < sizeof *own ? given->size : sizeof *own);
  own->size = sizeof *own;
  if (own->failure) *own->failure = (BurinFailure){.check = -1};
  return BURIN_OK;
}

int32_t burin_rt_fail(const BurinOptions *own, int32_t status, int32_t check, int64_t a, int64_t b,
                      int64_t c) {
  if (own->failure) *own->failure = (BurinFailure){status, check, {a, b, c}};
  return status;
}

/* ---- text ---- */
typedef struct Text {
  char *at;
  int32_t size, n; /* n: length of all, also of what did not fit */
} Text;

static void put(Text *t, char c) {
  if (t->n < t->size - 1) t->at[t->n] = c;
  t->n++;
}
static void put_string(Text *t, const char *s) {
  while (*s) put(t, *s++);
}
static void put_number(Text *t, int64_t v) {
  char digits[20];
  int n = 0;
  uint64_t u = v < 0 ? 0u - (uint64_t)v : (uint64_t)v;
  if (v < 0) put(t, '-');
  do digits[n++] = (char)('0' + u % 10);
  while (u /= 10);
  while (n) put(t, digits[--n]);
}

static const char *status_text(int32_t status) {
  static const char texts[][48] = {"ok",
                                   "impossible argument",
                                   "these sizes do not fit the compiled model",
                                   "arena missing, misaligned or too small",
                                   "this CPU lacks a feature that the code needs",
                                   "the data give an impossible index or size",
                                   "unsupported",
                                   "the device failed",
                                   "the heap is missing, or gave no more memory"};
  if (status == BURIN_E_WEIGHTS) return "the file of weights is not mapped, or not this model's";
  return status >= 0 && status < (int32_t)(sizeof texts / sizeof *texts) ? texts[status] : NULL;
}

/* Of a device: constants of the runtime or of its driver. */
static void put_device(Text *t, const BurinFailure *failure) {
  const char *s = (const char *)(uintptr_t)failure->values[0];
  const int64_t *value = &failure->values[1], *const end = failure->values + 3;
  for (; *s; s++) {
    if (*s != '%' || value == end || (s[1] != 's' && s[1] != 'u')) {
      put(t, *s);
    } else if (*++s == 'u') {
      put_number(t, *value++);
    } else {
      put_string(t, (const char *)(uintptr_t)*value++);
    }
  }
}

int32_t burin_rt_failure_text(const BurinModel *m, const BurinFailure *failure, char *text,
                              int32_t size) {
  static const BurinFailure none = {.status = -1, .check = -1};
  Text t = {text, text && size > 0 ? size : 0, 0};
  if (!failure) failure = &none;
  const bool known = failure->check >= 0 && failure->check < m->n_checks;
  const char *s = known ? m->checks[failure->check].text : status_text(failure->status);
  if (!known && failure->status == BURIN_E_DEVICE && failure->values[0]) {
    put_device(&t, failure);
    s = "";
  } else if (!s) {
    put_string(&t, "unknown status ");
    put_number(&t, failure->status);
    s = "";
  }
  for (; *s; s++)
    if (known && s[0] == '{' && s[1] >= '0' && s[1] <= '2' && s[2] == '}') {
      put_number(&t, failure->values[s[1] - '0']);
      s += 2;
    } else {
      put(&t, *s);
    }
  if (t.size > 0) t.at[t.n < t.size ? t.n : t.size - 1] = 0;
  return t.n;
}
