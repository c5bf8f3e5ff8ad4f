/* Register tiles of contractions and what they cost. */
#pragma once
#include "passes/choose/contract_types.h"
#include "passes/cost/machine_model.h"
#include "targets/target.h"

enum { MAX_TILE_ROWS = 14, MAX_TILE_VECTORS = 8, MAX_TILES = 128 };
typedef struct Tile {
  int rows, vectors; /* register tile: rows × (vectors × lanes) */
} Tile;
typedef struct TileCost {
  Tile tile;
  double cycles;
} TileCost;
/* The machine, for one thread and multiply-adds of such types. */
MachineModel contract_machine(const Target *t, const ContractTypes *types);
/* The tiles that the registers allow, with estimated cycles; returns their number. */
int contract_tiles(const Target *t, const ContractTypes *types, double rows_h, double rows_w,
                   bool flat, double n, double k, TileCost *out);
double contract_tile_cycles(const Target *t, const ContractTypes *types, Tile tile, double rows_h,
                            double rows_w, bool flat, double n, double k);
int contract_cheapest(const TileCost *tiles, int n); /* position */
/* The cheapest of them */
Tile contract_choose_tile(const Target *t, double rows_h, double rows_w, bool flat, double n,
                          double k);
