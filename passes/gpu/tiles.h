/* Block tiles of matrix products on GPUs, and which one a product takes. */
#pragma once
#include "ir/base/dtype.h"
#include "targets/target.h"

typedef enum TileKind { TILE_F32, TILE_TF32, TILE_HALF, TILE_BYTES, TILE_KINDS } TileKind;

/* rows × columns × k of a block. Without tensor cores each thread has rows_own
 * × columns_own sums, in groups of four; with them a warp has so many, in
 * fragments of mma.sync. */
typedef struct GpuTile {
  int rows;
  int columns;
  int k;
  int rows_own;
  int columns_own;
  int splits; /* parts of k, in blocks of their own; a second kernel adds their
                 sums up */
} GpuTile;

typedef struct GpuProduct {
  TileKind kind;
  double outer; /* products of this size; sizes as they are guessed */
  double rows;
  double columns;
  double k;
  bool splits; /* its k may be taken in parts */
  bool late;   /* copies go into stages by themselves */
} GpuProduct;

/* Warps of a block. */
int gpu_tile_warps(TileKind kind, const GpuTile *t);
/* Bytes of shared memory that a block of two stages takes. */
int64_t gpu_tile_shared(TileKind kind, const GpuTile *t);
/* Stages that a block may have, 2 to 4, without an SM holding fewer blocks than with two. */
int gpu_tile_stages(const Gpu *g, const GpuProduct *p, const GpuTile *t);
/* Elements behind each row of a tile in shared memory, so that lanes meet in no
 * bank. */
int gpu_tile_pad(TileKind kind);
int gpu_tile_bytes(TileKind kind); /* of an element in shared memory */
/* Cycles of the kernel on the device, its launch apart; and with the one that adds up parts of k. */
double gpu_tile_cycles(const Gpu *g, const GpuProduct *p, const GpuTile *t);
double gpu_tile_all_cycles(const Gpu *g, const GpuProduct *p, const GpuTile *t);
/* All tiles that the device can hold, with all parts of k, that come into question. Returns how many, at most MOST_CHOICES. */
enum { MOST_CHOICES = 84 };
int gpu_tiles(const Gpu *g, const GpuProduct *p, GpuTile out[MOST_CHOICES]);
