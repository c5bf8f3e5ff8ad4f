/* Tiles and a model of what they take. A block goes through its k step by step; what bounds a step
 * is the slowest of the multiply-adds of the SM, its reads of shared memory, and what it gets from
 * the L2 cache. Blocks that an SM holds at one time hide each other's waiting; the last wave of blocks
 * may leave SMs without one. Shapes: the search lists of CUTLASS, Triton and Inductor for mma.sync. */
#include "passes/gpu/tiles.h"

#include <math.h>

enum { WARP = 32, FOUR = 4, HALVES = 2, MOST_TILES = 9 };

/* clang-format off */
static const GpuTile tiles[TILE_KINDS][MOST_TILES] = {
    [TILE_F32] = {{128, 128, 8, 8, 8}, {128, 64, 16, 8, 8}, {64, 128, 16, 8, 8}, {64, 64, 16, 4, 4},
                  {64, 32, 16, 4, 4}, {32, 64, 16, 4, 4}, {32, 32, 32, 4, 4}, {16, 64, 16, 4, 4}},
    [TILE_HALF] = {{128, 256, 32, 64, 64}, {256, 128, 32, 64, 64}, {128, 128, 32, 64, 64}, {128, 64, 32, 64, 32},
                   {64, 128, 32, 32, 64}, {64, 64, 64, 32, 32}, {64, 32, 64, 32, 16}, {32, 64, 64, 16, 32},
                   {32, 32, 64, 16, 16}},
    [TILE_BYTES] = {{128, 256, 64, 64, 64}, {256, 128, 64, 64, 64}, {128, 128, 64, 64, 64}, {128, 64, 64, 64, 32},
                    {64, 128, 64, 32, 64}, {64, 64, 128, 32, 32}, {64, 32, 128, 32, 16}, {32, 64, 128, 16, 32},
                    {32, 32, 128, 16, 16}},
};
/* clang-format on */

int gpu_tile_bytes(TileKind kind) { return kind == TILE_F32 ? 4 : kind == TILE_HALF ? 2 : 1; }

int gpu_tile_pad(TileKind kind) { return 16 / gpu_tile_bytes(kind); }

static int sums(TileKind kind, const GpuTile *t) {
  return t->rows_own * t->columns_own / (kind == TILE_F32 ? 1 : WARP);
}

int gpu_tile_warps(TileKind kind, const GpuTile *t) {
  return t->rows * t->columns / (sums(kind, t) * WARP);
}

int64_t gpu_tile_shared(TileKind kind, const GpuTile *t) {
  const int pad = gpu_tile_pad(kind);
  const int64_t elements = kind == TILE_F32 ? (int64_t)t->k * (t->rows + pad + t->columns + pad)
                                            : (int64_t)(t->rows + t->columns) * (t->k + pad);
  return HALVES * elements * gpu_tile_bytes(kind);
}

/* Of a thread: sums, two sets of operands, what it brings, addresses. */
static int registers(TileKind kind, const GpuTile *t) {
  const int own =
      kind == TILE_F32 ? t->rows_own + t->columns_own : (t->rows_own + t->columns_own) / FOUR;
  const int threads = gpu_tile_warps(kind, t) * WARP;
  const int brought = (t->rows + t->columns) * t->k * gpu_tile_bytes(kind) / (threads * FOUR);
  return sums(kind, t) + 2 * own + brought + 32;
}

static double least(double a, double b) { return a < b ? a : b; }
static double most(double a, double b) { return a > b ? a : b; }

/* Blocks that an SM holds at one time. */
static double resident(const Gpu *g, TileKind kind, const GpuTile *t) {
  const int threads = gpu_tile_warps(kind, t) * WARP;
  const double shared = (double)g->shared_bytes / ((double)gpu_tile_shared(kind, t) + 1024);
  const double regs = (double)g->registers / (registers(kind, t) * threads);
  return floor(least(least(shared, regs), least((double)g->threads / threads, g->blocks)));
}

/* Of one step of one block, alone on its SM. */
static double step_cycles(const Gpu *g, const GpuProduct *p, const GpuTile *t) {
  enum { SHARED_BYTES = 128, L2_BYTES = 48 }; /* a cycle */
  static const double share[TILE_KINDS] = {0.9, 0.85, 0.8};
  const double rate = p->kind == TILE_F32    ? g->f32_per_cycle
                      : p->kind == TILE_HALF ? g->f16_per_cycle
                                             : g->i8_per_cycle;
  const double bytes = gpu_tile_bytes(p->kind), warps = gpu_tile_warps(p->kind, t);
  /* a warp of plain threads is 4 by 8 of them */
  const double of_warp =
      p->kind == TILE_F32 ? 4.0 * t->rows_own + 8.0 * t->columns_own : t->rows_own + t->columns_own;
  const double multiply = (double)t->rows * t->columns * t->k / (rate * share[p->kind]);
  const double shared = (of_warp * warps + t->rows + t->columns) * t->k * bytes / SHARED_BYTES;
  const double global = (double)(t->rows + t->columns) * t->k * bytes / L2_BYTES;
  return most(most(multiply, shared), global);
}

double gpu_tile_cycles(const Gpu *g, const GpuProduct *p, const GpuTile *t) {
  enum {
    LATENCY = 500,
    CALL = 3000
  }; /* from memory to shared memory, and barriers; begin and end */
  const double held = resident(g, p->kind, t);
  if (held < 1) return INFINITY;
  const double blocks = p->outer * ceil(p->rows / t->rows) * ceil(p->columns / t->columns);
  const double steps = ceil(p->k / t->k), of_sm = ceil(blocks / g->sms);
  const double together = least(of_sm, held), rounds = ceil(of_sm / held);
  const double work = of_sm * steps * step_cycles(g, p, t);
  const double waiting = rounds * steps * LATENCY / most(together, 1);
  return most(work, waiting) + least(work, waiting) / 4 + CALL;
}

GpuTile gpu_tile(const Gpu *g, const GpuProduct *p) {
  const GpuTile *best = &tiles[p->kind][0];
  double cycles = INFINITY;
  for (int i = 0; i < MOST_TILES && tiles[p->kind][i].rows; i++) {
    const double c = gpu_tile_cycles(g, p, &tiles[p->kind][i]);
    if (c >= cycles) continue;
    cycles = c;
    best = &tiles[p->kind][i];
  }
  return *best;
}
