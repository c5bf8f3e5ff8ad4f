/* Which runtime functions a device runs, and where they leave what they found. */
#include "codegen/analysis/program.h"
#include "runtime/cuda/gpu.h"

enum { FEW = 4096 }; /* elements of all tensors that one thread goes through */

static int rank_sum(const TensorRef *r, int n) {
  int ranks = 0;
  for (int i = 0; i < n; i++) ranks += r[i].buf.buffer < 0 ? 0 : r[i].rank;
  return ranks;
}

/* At most; a number above FEW where that is not known. */
static int64_t elements(const Program *p, const TensorRef *r, int n) {
  int64_t sum = 0;
  for (int i = 0; i < n && sum <= FEW; i++) {
    const Expr *count = ex_i64(p->m->model->pool, r[i].buf.buffer >= 0);
    int64_t k;
    for (int d = 0; d < r[i].rank && r[i].buf.buffer >= 0; d++)
      count = ex_mul(p->m->model->pool, count, r[i].dims[d]);
    sum += expr_is_const(program_upper(p, count), &k) && k <= FEW ? k : FEW + 1;
  }
  return sum;
}

static bool has_strings(const TensorRef *r, int n) {
  for (int i = 0; i < n; i++)
    if (r[i].buf.buffer >= 0 && r[i].dtype == DT_STR) return true;
  return false;
}

bool program_call_on_device(const Program *p, const Step *s) {
  const TensorRef *const in = s->ext.ins, *const out = s->ext.outs;
  const int n_in = s->ext.n_ins, n_out = s->ext.n_outs;
  if (!p->launches || n_in > RT_CALL_IN || n_out > RT_CALL_OUT || s->ext.n_words > RT_CALL_WORDS ||
      rank_sum(in, n_in) + rank_sum(out, n_out) > RT_CALL_DIMS || s->ext.row->heap ||
      s->ext.row->host_only || has_strings(in, n_in) || has_strings(out, n_out))
    return false;
  return s->ext.row->phases || elements(p, in, n_in) + elements(p, out, n_out) <= FEW;
}

int program_call_position(const Program *p, const ExternRow *row) {
  for (int i = 0; i < p->device_calls.n; i++)
    if (p->device_calls.data[i] == row) return i;
  return -1;
}

/* ---- results ---- */
static bool finds_sizes(const Program *p, const Step *s) {
  for (int i = 0; i < s->ext.n_outs; i++)
    for (int d = 0; d < s->ext.outs[i].rank; d++) {
      const Expr *const e = s->ext.outs[i].dims[d];
      if (e->op == EX_SYM && expr_symbol(p->m->model->pool, e->id)->runtime) return true;
    }
  return false;
}

bool program_call_waits(const Program *p, const Step *s) {
  const Step *top = p->m->steps;
  while (top && top != s) top = top->next;
  return !top || finds_sizes(p, s);
}

static int words_of(const Program *p, const Step *s, bool late) {
  if (s->kind != STEP_EXTERN || !program_call_on_device(p, s)) return 0;
  if (program_call_waits(p, s) == late) return 0;
  return 1 + rank_sum(s->ext.outs, s->ext.n_outs);
}

int program_result_words(const Program *p, bool late) {
  int n = 0;
  for (int i = 0; i < p->calls.n; i++) n += words_of(p, p->calls.data[i], late);
  return n;
}

int program_call_result(const Program *p, const Step *s) {
  const bool late = !program_call_waits(p, s);
  int n = late ? 0 : program_result_words(p, true);
  for (int i = 0; i < p->calls.n && p->calls.data[i] != s; i++)
    n += words_of(p, p->calls.data[i], late);
  return n;
}
