/* Tiles and a model of what they take. A block goes through its k step by step, then stores;
 * what bounds a step is the slowest of the multiply-adds of the SM, its reads
 * of shared memory, and what it gets from the L2 cache. Memory is waited for where the stages in flight
 * are done before it answers. Blocks that an SM holds at one time hide each other's waiting; the last
 * wave of blocks may leave SMs without one. Shapes: the search lists of CUTLASS, Triton and Inductor for
 * mma.sync. */
#include "passes/gpu/tiles.h"

#include <math.h>

enum { WARP = 32, FOUR = 4, LEAST_STAGES = 2, MOST_TILES = 14 };
enum { CALL = 3000 };   /* cycles of one more kernel in a row of them */
enum { LATENCY = 600 }; /* from memory to shared memory */
enum { BARRIER = 80 };  /* that all warps meet, and multiply again */
enum { L2_BYTES = 32 }; /* a cycle of each SM */
enum { MOST_REGISTERS = 255 };

typedef struct Shape {
  int rows, columns, k, rows_own, columns_own;
} Shape;

/* clang-format off */
static const Shape tiles[TILE_KINDS][MOST_TILES] = {
    [TILE_F32] = {{128, 128, 8, 8, 8}, {128, 64, 16, 8, 8}, {64, 128, 16, 8, 8}, {64, 64, 16, 4, 4},
                  {64, 32, 16, 4, 4}, {32, 64, 16, 4, 4}, {32, 32, 32, 4, 4}, {16, 64, 16, 4, 4}},
    [TILE_TF32] = {{128, 128, 32, 64, 64}, {128, 128, 16, 64, 64}, {128, 64, 32, 64, 32}, {64, 128, 32, 32, 64},
                   {64, 64, 32, 32, 32}, {64, 32, 32, 32, 16}, {32, 64, 32, 16, 32}, {32, 32, 32, 16, 16}},
    [TILE_HALF] = {{128, 256, 64, 64, 64}, {256, 128, 64, 64, 64}, {128, 256, 32, 64, 64}, {256, 128, 32, 64, 64},
                   {128, 128, 64, 64, 64}, {128, 128, 32, 64, 64}, {128, 64, 64, 64, 32}, {64, 128, 64, 32, 64},
                   {128, 64, 32, 64, 32}, {64, 128, 32, 32, 64}, {64, 64, 64, 32, 32}, {64, 32, 64, 32, 16},
                   {32, 64, 64, 16, 32}, {32, 32, 64, 16, 16}},
    [TILE_BYTES] = {{128, 256, 128, 64, 64}, {256, 128, 128, 64, 64}, {128, 256, 64, 64, 64}, {256, 128, 64, 64, 64},
                    {128, 128, 128, 64, 64}, {128, 128, 64, 64, 64}, {128, 64, 128, 64, 32}, {64, 128, 128, 32, 64},
                    {128, 64, 64, 64, 32}, {64, 128, 64, 32, 64}, {64, 64, 128, 32, 32}, {64, 32, 128, 32, 16},
                    {32, 64, 128, 16, 32}, {32, 32, 128, 16, 16}},
};
/* clang-format on */

int gpu_tile_bytes(TileKind kind) {
  static const int bytes[TILE_KINDS] = {4, 4, 2, 1};
  return bytes[kind];
}

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
  return LEAST_STAGES * elements * gpu_tile_bytes(kind);
}

/* Of a thread: sums, operands, what it brings, addresses. */
static int registers(TileKind kind, const GpuTile *t) {
  const int own =
      kind == TILE_F32 ? t->rows_own + t->columns_own : (t->rows_own + t->columns_own) / FOUR;
  const int threads = gpu_tile_warps(kind, t) * WARP;
  const int brought = (t->rows + t->columns) * t->k * gpu_tile_bytes(kind) / (threads * FOUR);
  return sums(kind, t) + own + brought + 32;
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

/* Of the multiply-adds that an SM can do, what is left by reads of operands: a thread, or warp, uses
 * each so often as it has lines of the other. */
static double share(TileKind kind, const GpuTile *t) {
  const double uses = (double)t->rows_own * t->columns_own / (t->rows_own + t->columns_own);
  const double reads = kind == TILE_F32 ? 0.5 : 4;
  return uses / (uses + reads);
}

/* Of one step of one block, alone on its SM. */
static double step_cycles(const Gpu *g, const GpuProduct *p, const GpuTile *t) {
  enum { SHARED_BYTES = 128 }; /* a cycle */
  const double rate[TILE_KINDS] = {g->f32_per_cycle, g->f16_per_cycle / 2.0, g->f16_per_cycle,
                                   g->i8_per_cycle};
  const double bytes = gpu_tile_bytes(p->kind), warps = gpu_tile_warps(p->kind, t);
  /* a warp of plain threads is 4 by 8 of them */
  const double of_warp =
      p->kind == TILE_F32 ? 4.0 * t->rows_own + 8.0 * t->columns_own : t->rows_own + t->columns_own;
  const double multiply = (double)t->rows * t->columns * t->k / (rate[p->kind] * share(p->kind, t));
  const double shared = (of_warp * warps + t->rows + t->columns) * t->k * bytes / SHARED_BYTES;
  const double global = (double)(t->rows + t->columns) * t->k * bytes / L2_BYTES;
  return most(most(multiply, shared), global);
}

/* Sums of parts are read and added up, by a kernel of its own. */
static double join_cycles(const Gpu *g, const GpuProduct *p, const GpuTile *t) {
  enum { SUM_BYTES = 4 };
  if (t->splits < 2) return 0;
  const double sums = p->outer * p->rows * p->columns * (t->splits + 1);
  return sums * SUM_BYTES / ((double)L2_BYTES * g->sms) + CALL;
}

/* A block's result, through shared memory and out. */
static double end_cycles(const GpuProduct *p, const GpuTile *t) {
  const int bytes = t->splits > 1 ? 4 : gpu_tile_bytes(p->kind);
  return (double)t->rows * t->columns * bytes / L2_BYTES + BARRIER;
}

static double count_blocks(const GpuProduct *p, const GpuTile *t) {
  return most(t->splits, 1) * p->outer * ceil(p->rows / t->rows) * ceil(p->columns / t->columns);
}

int gpu_tile_stages(const Gpu *g, const GpuProduct *p, const GpuTile *t) {
  enum { MOST_STAGES = 4, OF_BLOCK = 1024 };
  const double of_sm = most(ceil(count_blocks(p, t) / g->sms), 1);
  const double held = least(most(resident(g, p->kind, t), 1), of_sm);
  const double room = least((double)g->shared_bytes / held - OF_BLOCK, (double)g->block_bytes);
  const double fit = floor(room * LEAST_STAGES / (double)gpu_tile_shared(p->kind, t));
  return (int)most(least(fit, MOST_STAGES), LEAST_STAGES);
}

/* What a step takes however little there is to do: the fragments of one k are added to the sums of the
 * one before. */
static double chain_cycles(const GpuProduct *p, const GpuTile *t) {
  enum { MMA = 35, MMA_BYTES = 32 }; /* cycles until its sums are there, bytes of k that it takes */
  return p->kind == TILE_F32 ? 0 : (double)MMA * t->k * gpu_tile_bytes(p->kind) / MMA_BYTES;
}

double gpu_tile_cycles(const Gpu *g, const GpuProduct *p, const GpuTile *t) {
  const double held = resident(g, p->kind, t), splits = most(t->splits, 1);
  const double steps = ceil(ceil(p->k / t->k) / splits), step = step_cycles(g, p, t);
  const double of_sm = ceil(count_blocks(p, t) / g->sms), rounds = ceil(of_sm / held);
  const double together = most(least(of_sm, held), 1);
  const double ahead = p->late ? gpu_tile_stages(g, p, t) - 1 : 1;
  const double least_step = most(LATENCY / ahead, chain_cycles(p, t));
  const double waiting = most(least_step - together * step, 0) + BARRIER / together;
  return of_sm * (steps * step + end_cycles(p, t)) + rounds * (steps * waiting + LATENCY);
}

double gpu_tile_all_cycles(const Gpu *g, const GpuProduct *p, const GpuTile *t) {
  return gpu_tile_cycles(g, p, t) + join_cycles(g, p, t);
}

int gpu_tiles(const Gpu *g, const GpuProduct *p, GpuTile out[MOST_CHOICES]) {
  enum { LEAST_STEPS = 4, MOST_SPLITS = 32 };
  int n = 0;
  for (int i = 0; i < MOST_TILES && tiles[p->kind][i].rows; i++) {
    const Shape *const s = &tiles[p->kind][i];
    const double steps = ceil(p->k / s->k);
    for (int splits = 1; splits <= MOST_SPLITS && n < MOST_CHOICES; splits *= 2) {
      const GpuTile t = {s->rows, s->columns, s->k, s->rows_own, s->columns_own, splits};
      const bool some = splits == 1 || (p->splits && steps >= splits * LEAST_STEPS);
      if (some && resident(g, p->kind, &t) >= 1 && registers(p->kind, &t) <= MOST_REGISTERS)
        out[n++] = t;
    }
  }
  return n;
}
