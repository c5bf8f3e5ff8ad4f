/* Block tiles of attention as one kernel on GPUs, and what it takes beside two products with a
 * softmax between them. */
#pragma once
#include "passes/gpu/tiles.h"

/* Sizes as they are guessed. */
typedef struct GpuAttention {
  TileKind kind; /* of both products */
  double heads;
  double rows; /* queries and keys of one head */
  double keys;
  int64_t dk; /* elements of a key, and of a value */
  int64_t dv;
} GpuAttention;

/* A warp has `fragments` times 16 queries, with all keys of a step. */
typedef struct AttentionTile {
  int warps;
  int fragments;
  int keys;
} AttentionTile;

/* Elements of a key, or value, with zeros behind it, as the products take them. */
int64_t gpu_attention_padded(TileKind kind, int64_t size, bool value);
/* Elements from line to line in shared memory: of each the lines of 16 bytes that are read together
 * lie in different banks. */
int64_t gpu_attention_pitch(TileKind kind, int64_t size, bool value);
/* Lanes that share a query. */
int gpu_attention_across(TileKind kind);

enum { MOST_ATTENTION_TILES = 16 };
/* Those that the device can hold; 0: none. */
int gpu_attention_tiles(const Gpu *g, const GpuAttention *a,
                        AttentionTile out[MOST_ATTENTION_TILES]);
/* Cycles on the device: of the one kernel; of two products, and what scores and softmax take. */
double gpu_attention_cycles(const Gpu *g, const GpuAttention *a, const AttentionTile *t);
double gpu_attention_apart(const Gpu *g, const GpuAttention *a);
