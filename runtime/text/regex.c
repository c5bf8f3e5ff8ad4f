/* RegexFullMatch and matches inside a text: all states of an automaton at once, one code point after
 * the other (Thompson, "Regular Expression Search Algorithm", 1968), so that no match takes longer
 * than the pattern's length times that of the text. The program is made by the compiler
 * (ir/ops/text/regex.c). */
#include "runtime/text/regex.h"
#include "runtime/ops/ops.h"

static const uint32_t *instruction(const Regex *m, uint32_t k) {
  return m->program + REGEX_HEADER + 3 * k;
}

static bool in_ranges(const Regex *m, uint32_t first, uint32_t count, uint32_t c) {
  const uint32_t *const r =
      m->program + REGEX_HEADER + 3 * m->program[REGEX_INSTRUCTIONS] + 2 * first;
  uint32_t low = 0, high = count;
  while (low < high) { /* they rise */
    const uint32_t mid = (low + high) / 2;
    if (c > r[2 * mid + 1])
      low = mid + 1;
    else
      high = mid;
  }
  return low < count && c >= r[2 * low];
}

static bool is_word(uint32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

/* What stands around a position; REGEX_NOTHING at either end. */
static bool assertion_holds(uint32_t what, uint32_t before, uint32_t behind) {
  switch (what) {
    case REGEX_TEXT_BEGIN: return before == REGEX_NOTHING;
    case REGEX_TEXT_END: return behind == REGEX_NOTHING;
    case REGEX_LINE_BEGIN: return before == REGEX_NOTHING || before == '\n';
    case REGEX_LINE_END: return behind == REGEX_NOTHING || behind == '\n';
    case REGEX_WORD_EDGE: return is_word(before) != is_word(behind);
    default: return is_word(before) == is_word(behind);
  }
}

static bool set_add(StateSet *s, uint32_t state) {
  const uint32_t place = s->places[state];
  if (place < s->count && s->members[place] == state) return false;
  s->places[state] = s->count;
  s->members[s->count++] = state;
  return true;
}

/* Enters a state and all that it leads to without a character. */
static void enter(Regex *m, StateSet *s, uint32_t state, uint32_t before, uint32_t behind) {
  uint32_t n = 0;
  m->stack[n++] = state;
  while (n) {
    const uint32_t k = m->stack[--n], *const i = instruction(m, k);
    if (!set_add(s, k)) continue;
    if (i[0] == REGEX_SPLIT) m->stack[n++] = i[2];
    if (i[0] == REGEX_SPLIT || i[0] == REGEX_JUMP) m->stack[n++] = i[1];
    if (i[0] == REGEX_ASSERT && assertion_holds(i[1], before, behind)) m->stack[n++] = k + 1;
  }
}

static uint32_t code_point_at(TextView t, uint64_t at, int *bytes) {
  *bytes = 0;
  return at < t.length ? utf8_read(t.bytes + at, t.length - at, bytes) : REGEX_NOTHING;
}

static bool set_matches(const Regex *m, const StateSet *s) {
  for (uint32_t k = 0; k < s->count; k++)
    if (instruction(m, s->members[k])[0] == REGEX_MATCH) return true;
  return false;
}

uint64_t regex_longest(Regex *m, TextView t, uint64_t from, uint32_t before) {
  int bytes, ahead;
  uint32_t c = code_point_at(t, from, &bytes);
  uint64_t longest = REGEX_NO_MATCH;
  m->now.count = 0;
  enter(m, &m->now, 0, before, c);
  for (uint64_t at = from; m->now.count; at += (uint64_t)bytes, bytes = ahead) {
    if (set_matches(m, &m->now)) longest = at;
    if (at >= t.length) break;
    const uint32_t behind = code_point_at(t, at + (uint64_t)bytes, &ahead);
    m->next.count = 0;
    for (uint32_t k = 0; k < m->now.count; k++) {
      const uint32_t *const i = instruction(m, m->now.members[k]);
      if (i[0] == REGEX_RANGES && in_ranges(m, i[1], i[2], c))
        enter(m, &m->next, m->now.members[k] + 1, c, behind);
    }
    const StateSet other = m->now;
    m->now = m->next;
    m->next = other;
    c = behind;
  }
  return longest;
}

static bool set_new(BurinHeap *h, StateSet *s, uint32_t n) {
  s->members = (uint32_t *)heap_alloc(h, n * sizeof *s->members);
  s->places = (uint32_t *)heap_alloc(h, n * sizeof *s->places);
  s->count = 0;
  for (uint32_t k = 0; s->places && k < n; k++) s->places[k] = 0;
  return s->members && s->places;
}

bool regex_open(Regex *m, BurinHeap *h, const uint32_t *program) {
  const uint32_t n = program[REGEX_INSTRUCTIONS];
  m->program = program;
  /* each state on the stack was put there by another one, once */
  m->stack = (uint32_t *)heap_alloc(h, (2 * (uint64_t)n + 2) * sizeof *m->stack);
  return m->stack && set_new(h, &m->now, n) && set_new(h, &m->next, n);
}

int32_t rt_regex_full_match(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                            const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  Regex m;
  if (!regex_open(&m, s.heap, (const uint32_t *)in[1].data)) return BURIN_E_MEMORY;
  for (int64_t i = 0; i < rt_count(in); i++) {
    const TextView t = strings_get(&s, ((const int64_t *)in->data)[i]);
    ((uint8_t *)out->data)[i] = regex_longest(&m, t, 0, REGEX_NOTHING) == t.length;
  }
  return BURIN_OK;
}
