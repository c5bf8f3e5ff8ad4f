/* Names, text and form of plans. */
#include "ir/graph/plan.h"

const AlgorithmName algorithm_names[] = {{"tiled", ALG_TILED, 0},
                                         {"winograd2", ALG_WINOGRAD, 2},
                                         {"winograd4", ALG_WINOGRAD, 4},
                                         {"winograd6", ALG_WINOGRAD, 6},
                                         {"thin", ALG_THIN, 0},
                                         {"depthwise", ALG_DEPTHWISE, 0},
                                         {"attention", ALG_ATTENTION, 0},
                                         {"maxpool", ALG_MAXPOOL, 0},
                                         {NULL, ALG_TILED, 0}};

const char *plan_name(const Plan *p) {
  const AlgorithmName *a = algorithm_names;
  while (a->name && (a->algorithm != p->algorithm || a->winograd != p->winograd)) a++;
  return a->name;
}

void plan_print(const Plan *p, StrBuf *b) {
  static const char *const lanes[] = {"", " lanes=pixels", " lanes=channels", " lanes=any"};
  const char *name = plan_name(p);
  sb_printf(b, "{plan=%s%s", name ? name : "?", lanes[p->lanes & 3]);
  if (p->block) sb_printf(b, " block=%d", p->block);
  if (p->tile_rows) sb_printf(b, " tile=%dx%d", p->tile_rows, p->tile_vectors);
  if (p->skips) sb_printf(b, " skips");
  if (p->chain) sb_printf(b, " chain=%d rows=%d parts=%d", p->chain, p->rows, p->parts);
  if (p->chained) sb_printf(b, " chained");
  for (int s = 0; s < p->spatial; s++)
    sb_printf(b, "%s%lld:%lld", s ? "," : " halo=[", (long long)p->halo_lo[s],
              (long long)p->halo_hi[s]);
  sb_printf(b, p->spatial ? "]}" : "}");
}

static const char *strip_malformed(const Plan *p) {
  enum { LONGEST = 6, MOST_ROWS = 16, MOST_PARTS = 64 };
  const bool strips =
      p->algorithm == ALG_TILED || p->algorithm == ALG_DEPTHWISE || p->algorithm == ALG_MAXPOOL;
  if ((p->chain || p->chained) && !strips) return "this algorithm is not one for strips";
  if (p->algorithm == ALG_MAXPOOL && !p->chain) return "a MaxPool is planned as the end of a chain";
  if (!p->chain) return p->rows || p->parts ? "rows and parts are of chains" : NULL;
  if (p->chained) return "a chain's last convolution is not inside another";
  if (p->chain < 2 || p->chain > LONGEST || p->rows < 1 || p->rows > MOST_ROWS || p->parts < 1 ||
      p->parts > MOST_PARTS)
    return "impossible chain";
  return NULL;
}

const char *plan_malformed(const Plan *p) {
  if (!plan_name(p)) return "no such algorithm";
  if ((p->algorithm == ALG_THIN) != (p->lanes != 0) || p->lanes < 0 || p->lanes > 3)
    return "lanes belong to thin convolutions";
  if (p->block < 0 || (p->block && p->algorithm != ALG_WINOGRAD)) return "blocks are of Winograd";
  if (p->skips && p->algorithm != ALG_TILED) return "only tiles skip taps";
  if (p->tile_rows < 0 || (p->tile_rows > 0) != (p->tile_vectors > 0)) return "impossible tile";
  if (p->tile_rows && p->algorithm != ALG_TILED && p->algorithm != ALG_WINOGRAD)
    return "this algorithm has no register tile";
  if (strip_malformed(p)) return strip_malformed(p);
  if (p->spatial < 0 || p->spatial > PLAN_SPATIAL) return "halo of too many dimensions";
  for (int s = 0; s < p->spatial; s++)
    if (p->halo_lo[s] < 0 || p->halo_hi[s] < 0) return "halo below zero";
  return NULL;
}
