/* Whether attention is one kernel on a GPU, and with which tile: one question, asked when the graph
 * is rewritten and again when the kernel is made. The answer is a tuning file's, else what takes the
 * fewest cycles by the model. */
#include "passes/choose/choice.h"
#include "passes/gpu/attention.h"

static bool is_half(DType t) { return t == DT_F16 || t == DT_BF16; }

static bool is_float(DType t) { return t == DT_F32 || is_half(t); }

bool gpu_attention_kind(const PassCtx *c, const Attention *a, TileKind *kind) {
  const DType q = a->q->dtype, k = a->k->dtype, v = a->v->dtype;
  const bool single = q == DT_F32 && k == DT_F32 && v == DT_F32;
  *kind = q == k && k == v && is_half(q) ? TILE_HALF : single && c->tf32 ? TILE_TF32 : TILE_F32;
  return is_float(q) && is_float(k) && is_float(v) && is_float(a->x->dtype);
}

static GpuAttention sizes_of(ExprPool *p, const Attention *a, TileKind kind) {
  GpuAttention s = {.kind = kind,
                    .heads = 1,
                    .rows = expr_extent_guess(p, a->rows),
                    .keys = expr_extent_guess(p, a->keys),
                    .dk = a->dk,
                    .dv = a->dv};
  for (int d = 0; d < a->x->rank - 2; d++) s.heads *= expr_extent_guess(p, a->x->dims[d]);
  return s;
}

/* Candidate 0 is two products with a softmax between them, then come the tiles. */
typedef struct Question {
  const char *key; /* or NULL */
  AttentionTile tile[MOST_ATTENTION_TILES + 1];
  Candidate candidate[MOST_ATTENTION_TILES + 1];
  int n;
  int model; /* what it takes */
} Question;

static void ask(const PassCtx *c, const GpuAttention *s, Question *q) {
  static const char *const kinds[TILE_KINDS] = {"f32", "tf32", "half", "bytes"};
  const Gpu *const g = c->target->gpu;
  Arena *const a = c->model->arena;
  q->n = 1 + gpu_attention_tiles(g, s, q->tile + 1);
  q->candidate[0] = (Candidate){.name = "apart", .cost = gpu_attention_apart(g, s)};
  q->model = 0;
  for (int i = 1; i < q->n; i++) {
    const AttentionTile *const t = &q->tile[i];
    const int own = t->fragments * ATTENTION_ROWS_OWN;
    q->candidate[i] = (Candidate){.name = arena_printf(a, "%dx%dx%d", t->warps, own, t->keys),
                                  .cost = gpu_attention_cycles(g, s, t),
                                  .family = t->warps * own};
    if (q->candidate[i].cost < q->candidate[q->model].cost) q->model = i;
  }
  q->key =
      choice_matters(c)
          ? choice_key(c, "gpu_attention %s heads=%.0f rows=%.0f keys=%.0f sizes=%.0f,%.0f",
                       kinds[s->kind], s->heads, s->rows, s->keys, (double)s->dk, (double)s->dv)
          : NULL;
}

static int answer(const PassCtx *c, const Question *q) {
  return q->key ? choice_take(c, CHOICE_ALGORITHM, q->key, q->candidate, q->n, q->model) : q->model;
}

bool gpu_takes_attention(const PassCtx *c, const Attention *a) {
  TileKind kind;
  Question q;
  if (!gpu_attention_kind(c, a, &kind)) return false;
  const GpuAttention s = sizes_of(c->model->pool, a, kind);
  ask(c, &s, &q);
  return q.n > 1 && answer(c, &q) > 0;
}

/* The best tile. */
static int tile_of(const Question *q) {
  int best = 1;
  for (int i = 2; i < q->n; i++)
    if (q->candidate[i].cost < q->candidate[best].cost) best = i;
  return best;
}

bool gpu_attention_choose(GpuAttn *g) {
  const PassCtx *const c = g->c.l->c;
  Question q;
  if (!gpu_attention_kind(c, g->c.at, &g->kind)) return false;
  const GpuAttention s = sizes_of(g->c.p, g->c.at, g->kind);
  ask(c, &s, &q);
  if (q.n < 2) return false;
  const int taken = answer(c, &q), at = taken > 0 ? taken : tile_of(&q);
  g->tile = q.tile[at];
  g->type = g->kind == TILE_HALF ? g->c.at->q->dtype : DT_F32;
  if (q.key) choice_note(arena(&g->c), &g->c.b.keys, q.key);
  kb_estimate(&g->c.b, "gpu_attention", q.candidate[at].cost);
  return true;
}
