/* Tiles and a model of attention as one kernel, in the manner of tiles.c: what bounds a step of keys
 * is the slowest of its multiply-adds, its exponentials, its reads of shared memory and what it gets
 * from the L2 cache, and something of the others, which a warp does one after the other. */
#include "passes/gpu/attention_tiles.h"

#include <math.h>

enum { LANES = 32, ROWS = 16, LINE = 16 };                        /* lines of bytes */
enum { CALL = 3000, LATENCY = 600, BARRIER = 80, L2_BYTES = 32 }; /* as in tiles.c */
enum { SOFTMAX_OPS = 28 }; /* of a score: mask, maximum, exponential, sum, rounding */

static double least(double a, double b) { return a < b ? a : b; }
static double most(double a, double b) { return a > b ? a : b; }

int gpu_attention_across(TileKind kind) { return kind == TILE_F32 ? 8 : 4; }

int64_t gpu_attention_padded(TileKind kind, int64_t size, bool value) {
  const int64_t of_key[TILE_KINDS] = {4, 8, 16, 32}, of_value[TILE_KINDS] = {32, 8, 8, 8};
  const int64_t unit = value ? of_value[kind] : of_key[kind];
  return (size + unit - 1) / unit * unit;
}

int64_t gpu_attention_pitch(TileKind kind, int64_t size, bool value) {
  const int64_t unit = value && kind == TILE_TF32 ? 8 : LINE / gpu_tile_bytes(kind);
  const int64_t lines = (gpu_attention_padded(kind, size, value) + unit - 1) / unit;
  return (lines + (lines % 2 == 0)) * unit;
}

static double rows_of(const AttentionTile *t) { return (double)t->warps * t->fragments * ROWS; }

static double shared_of(const GpuAttention *a, const AttentionTile *t) {
  enum { STAGES = 2 };
  const double bytes = gpu_tile_bytes(a->kind), rows = rows_of(t);
  const double key = (double)gpu_attention_pitch(a->kind, a->dk, false);
  const double value = (double)gpu_attention_pitch(a->kind, a->dv, true);
  const double weights = (double)gpu_attention_pitch(a->kind, t->keys, false);
  return bytes * (rows * (key + weights) + STAGES * t->keys * (key + value)) +
         4 * rows * gpu_attention_across(a->kind);
}

/* Of a thread: scores, results, what is kept of each row, operands, addresses. */
static double registers_of(const GpuAttention *a, const AttentionTile *t) {
  enum { OTHERS = 48, HELD = 16 }; /* of two operands, of tf32 for certain */
  const double value = (double)gpu_attention_padded(a->kind, a->dv, true);
  const double own = (double)t->fragments * ROWS / LANES;
  const double operands = a->kind == TILE_F32 ? 4 * (4.0 * t->fragments + 4)
                                              : most(t->keys, value) / 4 + 4.0 * t->fragments;
  const double of_rows = 2.0 * t->fragments * ROWS * gpu_attention_across(a->kind) / LANES;
  const double held = a->kind == TILE_TF32 ? HELD : 0;
  return own * (t->keys + value) + of_rows + operands + held + OTHERS;
}

static double resident(const Gpu *g, const GpuAttention *a, const AttentionTile *t) {
  enum { OF_BLOCK = 1024, MOST_REGISTERS = 232 };
  const double threads = (double)t->warps * LANES, regs = registers_of(a, t);
  const double shared = shared_of(a, t);
  if (shared > (double)g->block_bytes || regs > MOST_REGISTERS) return 0;
  const double by_memory =
      least((double)g->shared_bytes / (shared + OF_BLOCK), (double)g->registers / (regs * threads));
  return floor(least(by_memory, least((double)g->threads / threads, g->blocks)));
}

int gpu_attention_tiles(const Gpu *g, const GpuAttention *a,
                        AttentionTile out[MOST_ATTENTION_TILES]) {
  static const AttentionTile all[] = {{4, 1, 64}, {4, 2, 64}, {8, 1, 64},  {8, 2, 64},
                                      {4, 1, 32}, {4, 2, 32}, {2, 1, 64},  {2, 1, 32},
                                      {1, 1, 64}, {1, 1, 32}, {4, 1, 128}, {4, 2, 128}};
  int n = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (resident(g, a, &all[i]) >= 1) out[n++] = all[i];
  return n;
}

/* Bytes of shared memory that the warps of a block read and write for a step. Plain threads read 16
 * bytes each, of which half meet others of their warp. */
static double traffic(const GpuAttention *a, const AttentionTile *t, double key, double value) {
  const double bytes = gpu_tile_bytes(a->kind), own = (double)t->fragments * ROWS;
  const double of_plain =
      16.0 * ((own / 4 + t->keys / 8.0) * key + (own / 4 + value / 8) * t->keys) * LANES / 8;
  const double of_fragments = bytes * (own * key + t->keys * (key + value) + 2 * own * t->keys);
  return t->warps * (a->kind == TILE_F32 ? of_plain : of_fragments);
}

static double step_cycles(const Gpu *g, const GpuAttention *a, const AttentionTile *t) {
  enum { SHARED_BYTES = 128 }; /* a cycle */
  const double rate[TILE_KINDS] = {g->f32_per_cycle, g->f16_per_cycle / 2.0, g->f16_per_cycle,
                                   g->i8_per_cycle};
  const double key = (double)gpu_attention_padded(a->kind, a->dk, false);
  const double value = (double)gpu_attention_padded(a->kind, a->dv, true);
  const double rows = rows_of(t), bytes = gpu_tile_bytes(a->kind);
  const double part[] = {rows * t->keys * (key + value) / rate[a->kind],
                         rows * (t->keys * SOFTMAX_OPS + value) / g->f32_per_cycle,
                         traffic(a, t, key, value) / SHARED_BYTES,
                         t->keys * (key + value) * bytes / L2_BYTES};
  double slowest = 0, sum = 0;
  for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
    slowest = most(slowest, part[i]);
    sum += part[i];
  }
  return slowest + (sum - slowest) / 4;
}

/* What a step takes however little there is to do: products one k after the other, the exchanges and
 * exponentials between them. */
static double chain_cycles(const GpuAttention *a, const AttentionTile *t) {
  enum { MMA = 35, MMA_BYTES = 32, PLAIN = 12, BETWEEN = 300 }; /* of plain threads: of four k */
  const double k = (double)gpu_attention_padded(a->kind, a->dk, false) + t->keys;
  return BETWEEN +
         (a->kind == TILE_F32 ? PLAIN * k / 4 : MMA * k * gpu_tile_bytes(a->kind) / MMA_BYTES);
}

/* As gpu_tile_cycles has it, with the next keys on their way while one step is done. */
double gpu_attention_cycles(const Gpu *g, const GpuAttention *a, const AttentionTile *t) {
  const double blocks = a->heads * ceil(a->rows / rows_of(t)), of_sm = ceil(blocks / g->sms);
  const double held = most(resident(g, a, t), 1), steps = ceil(a->keys / t->keys);
  const double together = least(of_sm, held), rounds = ceil(of_sm / held);
  const double step = step_cycles(g, a, t);
  const double least_step = most(LATENCY, chain_cycles(a, t));
  const double waiting = most(least_step - together * step, 0) + BARRIER / together;
  const double end = rows_of(t) * (double)a->dv * gpu_tile_bytes(a->kind) / L2_BYTES + 2 * BARRIER;
  return of_sm * (steps * step + end) + rounds * (steps * waiting + 2 * LATENCY);
}

static double product_cycles(const Gpu *g, const GpuProduct *p) {
  GpuTile tile[MOST_CHOICES];
  double fewest = 0;
  const int n = gpu_tiles(g, p, tile);
  for (int i = 0; i < n; i++) {
    const double cycles = gpu_tile_cycles(g, p, &tile[i]);
    if (i == 0 || cycles < fewest) fewest = cycles;
  }
  return fewest;
}

double gpu_attention_apart(const Gpu *g, const GpuAttention *a) {
  enum { TRIPS = 2 }; /* read for the softmax, and written; the products count theirs */
  const GpuProduct scores = {a->kind, a->heads, a->rows, a->keys, (double)a->dk, false, true};
  const GpuProduct values = {a->kind, a->heads, a->rows, (double)a->dv, a->keys, false, true};
  const double count = a->heads * a->rows * a->keys, bytes = count * gpu_tile_bytes(a->kind);
  const double memory = (double)g->gb_per_second * 1000 / g->clock_mhz; /* bytes a cycle */
  const double rate = 2 * bytes > (double)g->l2_bytes ? memory : (double)L2_BYTES * g->sms;
  const double softmax = count * SOFTMAX_OPS / ((double)g->f32_per_cycle * g->sms);
  return product_cycles(g, &scores) + product_cycles(g, &values) +
         most(TRIPS * bytes / rate, softmax) + 2 * (CALL + LATENCY);
}
