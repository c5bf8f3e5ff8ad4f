/* Names, text and form of plans. */
#include "ir/graph/plan.h"

const AlgorithmName algorithm_names[] = {
    {"tiled", ALG_TILED, 0},        {"winograd2", ALG_WINOGRAD, 2},
    {"winograd4", ALG_WINOGRAD, 4}, {"winograd6", ALG_WINOGRAD, 6},
    {"thin", ALG_THIN, 0},          {"depthwise", ALG_DEPTHWISE, 0},
    {"sparse", ALG_SPARSE, 0},      {"attention", ALG_ATTENTION, 0},
    {"maxpool", ALG_MAXPOOL, 0},    {NULL, ALG_TILED, 0}};

const char *plan_name(const Plan *p) {
  const AlgorithmName *a = algorithm_names;
  while (a->name && (a->algorithm != p->algorithm || a->winograd != p->winograd)) a++;
  return a->name;
}

PlanLoops plan_loops(const Plan *p, int64_t phase) {
  if (!p || !p->n_loops) return (PlanLoops){0};
  return p->loops[phase < p->n_loops ? phase : 0];
}

bool plan_has_matrix(const Plan *p) {
  for (int i = 0; i < p->n_loops; i++)
    if (p->loops[i].matrix) return true;
  return false;
}

bool plan_has_blocks(const Plan *p) {
  return (p->algorithm == ALG_TILED && !p->chain && !p->chained) ||
         (p->algorithm == ALG_WINOGRAD && !p->block);
}

static void print_loops(const PlanLoops *l, StrBuf *b) {
  if (l->rows)
    sb_printf(b, " tile=%dx%d", l->rows, l->vectors);
  else if (l->vectors)
    sb_printf(b, " vectors=%d", l->vectors);
  if (l->matrix) sb_printf(b, " matrix=%d", l->matrix);
  if (l->width) sb_printf(b, " width=%d", l->width);
  if (l->values_rows) sb_printf(b, " values=%dx%d", l->values_rows, l->values_vectors);
  if (l->queries) sb_printf(b, " queries=%lld", (long long)l->queries);
  if (l->keys) sb_printf(b, " keys=%lld", (long long)l->keys);
  if (l->lines) sb_printf(b, " lines");
  if (l->high > 1) sb_printf(b, " high=%d", l->high);
  if (l->part) sb_printf(b, " part=%lld", (long long)l->part);
  if (l->steps) sb_printf(b, " steps=%lld", (long long)l->steps);
  if (l->outside) sb_printf(b, " outside=%d", l->outside);
  if (l->panels > 1) sb_printf(b, " panels=%lld", (long long)l->panels);
  if (l->gathered) sb_printf(b, " gathered");
  if (l->serial) sb_printf(b, " serial");
}

static bool loops_agree(const Plan *p) {
  for (int i = 1; i < p->n_loops; i++) {
    const PlanLoops *a = &p->loops[0], *b = &p->loops[i];
    if (a->rows != b->rows || a->vectors != b->vectors || a->matrix != b->matrix ||
        a->lines != b->lines || a->high != b->high || a->part != b->part || a->steps != b->steps ||
        a->outside != b->outside || a->panels != b->panels || a->gathered != b->gathered ||
        a->serial != b->serial)
      return false;
  }
  return true;
}

void plan_print(const Plan *p, StrBuf *b) {
  static const char *const lanes[] = {"", " lanes=pixels", " lanes=channels", " lanes=any"};
  const char *name = plan_name(p);
  sb_printf(b, "{plan=%s%s", name ? name : "?", lanes[p->lanes & 3]);
  if (p->block) sb_printf(b, " block=%d", p->block);
  if (p->planes) sb_printf(b, " planes=%d", p->planes);
  if (p->skips) sb_printf(b, " skips");
  if (p->steady) sb_printf(b, " steady");
  if (p->chain) sb_printf(b, " chain=%d rows=%d parts=%d", p->chain, p->rows, p->parts);
  if (p->chained) sb_printf(b, " chained");
  for (int s = 0; s < p->spatial; s++)
    sb_printf(b, "%s%lld:%lld", s ? "," : " halo=[", (long long)p->halo_lo[s],
              (long long)p->halo_hi[s]);
  if (p->spatial) sb_putc(b, ']');
  for (int i = 0; i < (loops_agree(p) ? p->n_loops > 0 : p->n_loops); i++) {
    if (i) sb_putc(b, ';');
    print_loops(&p->loops[i], b);
  }
  sb_putc(b, '}');
}

static const char *strip_malformed(const Plan *p) {
  enum { LONGEST = 6, MOST_ROWS = 16, MOST_PARTS = 64 };
  const bool strips =
      p->algorithm == ALG_TILED || p->algorithm == ALG_DEPTHWISE || p->algorithm == ALG_MAXPOOL;
  if ((p->chain || p->chained) && !strips) return "this algorithm is not one for strips";
  if (p->algorithm == ALG_MAXPOOL && !p->chain && !p->chained)
    return "a MaxPool is planned as part of a chain";
  if (!p->chain) return p->rows || p->parts ? "rows and parts are of chains" : NULL;
  if (p->chained) return "a chain's last convolution is not inside another";
  if (p->chain < 2 || p->chain > LONGEST || p->rows < 1 || p->rows > MOST_ROWS || p->parts < 1 ||
      p->parts > MOST_PARTS)
    return "impossible chain";
  return NULL;
}

static bool has_blocks(const PlanLoops *l) {
  return l->matrix || l->part || l->steps || l->outside || l->panels > 1 || l->gathered ||
         l->lines || l->serial;
}

static const char *sparse_loops_malformed(const PlanLoops *l) {
  const bool others = l->rows || l->matrix || l->part || l->outside || l->panels > 1 || l->lines ||
                      l->serial || l->high > 1 || l->values_rows || l->queries || l->keys;
  return l->vectors < 1 || l->width < 1 || l->steps < 0 || others
             ? "a plan of a sparse kernel names vectors and width, and steps"
             : NULL;
}

/* Of algorithms whose kernels have other loops. */
static const char *own_loops_malformed(const Plan *p, const PlanLoops *l) {
  const bool attention = p->algorithm == ALG_ATTENTION, thin = p->algorithm == ALG_THIN;
  if (p->algorithm == ALG_SPARSE) return sparse_loops_malformed(l);
  if (has_blocks(l) || (l->high > 1 && !l->vectors)) return "this algorithm has no blocks of tiles";
  if (attention)
    return l->width || l->high > 1 ? "strips are of convolutions"
           : l->rows < 1 || l->values_rows < 1 || l->queries < 1 || l->keys < 1
               ? "a plan of an attention names tile, values, queries and keys"
               : NULL;
  if (l->rows) return "this algorithm has no register tile";
  if (l->values_rows || l->queries || l->keys) return "queries and keys are of attentions";
  if (l->vectors && !(thin && (p->lanes & LANES_PIXELS))) return "vectors are of lanes over pixels";
  if (l->width && thin && !(p->lanes & LANES_CHANNELS)) return "width is of lanes over channels";
  return (l->width < 1) == (l->vectors < 1) ? "one of width and vectors is named" : NULL;
}

static const char *loops_malformed(const Plan *p, const PlanLoops *l) {
  const bool blocks = plan_has_blocks(p);
  if (p->algorithm != ALG_TILED && p->algorithm != ALG_WINOGRAD) return own_loops_malformed(p, l);
  if (l->rows < 1 || l->vectors < 1) return "impossible tile";
  if (l->width || l->values_rows || l->queries || l->keys) return "tiles have no strips";
  if (!blocks && (l->lines || l->part || l->high > 1))
    return "blocks of tiles are of kernels of tiles";
  if (l->part < 0 || l->high < 0 || l->outside < 0 || l->panels < 0) return "impossible block";
  if (!l->part && (l->steps || l->outside || l->panels > 1 || l->high > 1 || l->lines || l->serial))
    return "a plan that names blocks of tiles names the rows of one";
  if (l->gathered && !l->steps) return "what is gathered is a block of steps";
  if (l->matrix && (l->outside || l->rows % l->matrix))
    return "a tile of matrix registers is of whole ones, with all loops of k inside";
  return NULL;
}

const char *plan_malformed(const Plan *p) {
  if (!plan_name(p)) return "no such algorithm";
  const bool thin = p->algorithm == ALG_THIN, tiled = p->algorithm == ALG_TILED;
  const bool pixels = p->algorithm == ALG_SPARSE && p->lanes == LANES_PIXELS;
  if ((thin && !p->lanes) || (!thin && !tiled && !pixels && p->lanes) || p->lanes < 0 ||
      p->lanes > 3)
    return "lanes belong to thin convolutions";
  if (p->block < 0 || (p->block && p->algorithm != ALG_WINOGRAD)) return "blocks are of Winograd";
  if (p->planes < 0 || (p->planes && !p->block)) return "planes are of blocks";
  if (p->skips && p->algorithm != ALG_TILED) return "only tiles skip taps";
  for (int i = 0; i < p->n_loops; i++)
    if (loops_malformed(p, &p->loops[i])) return loops_malformed(p, &p->loops[i]);
  if (strip_malformed(p)) return strip_malformed(p);
  if (p->spatial < 0 || p->spatial > PLAN_SPATIAL) return "halo of too many dimensions";
  for (int s = 0; s < p->spatial; s++)
    if (p->halo_lo[s] < 0 || p->halo_hi[s] < 0) return "halo below zero";
  return NULL;
}
