/* Numbers of the machine and what is measured about all of them; see machine_model.h. */
#include "passes/cost/machine_model.h"

enum { LINE = 64, CHAIN = 4 }; /* bytes of a cache line; cycles of a multiply-add in a chain */

/* Loads a cycle of all machines so far; four cycles of latency, and operands that come late. */
static const double loads_per_cycle = 2, fma_latency = 5.5;

MachineModel machine_model(const Target *t, DType sums, int threads) {
  const int parts = dtype_rows[sums].bits / 32; /* registers of a vector of sums */
  return (MachineModel){.lanes = target_lanes(t, 32),
                        .fmas = (double)t->fma_per_cycle / parts,
                        .loads = loads_per_cycle / parts,
                        .latency = fma_latency,
                        .registers = t->vector_regs / parts,
                        .a_steps = t->lane_operand && sums == DT_F32 ? target_lanes(t, 32) : 1,
                        .in_order = t->in_order,
                        .l1 = (double)t->l1_bytes,
                        .l2 = (double)t->l2_bytes,
                        .l3 = (double)t->l3_bytes,
                        .threads = threads};
}

/* ---- arithmetic ---- */

double model_fmas(const MachineModel *m, double n) { return n / m->fmas; }
double model_loads(const MachineModel *m, double n) { return n / m->loads; }
double model_macs(const MachineModel *m, double n) { return n / (m->lanes * m->fmas); }

double model_chains(const MachineModel *m, double n, double chain) {
  const double all = model_fmas(m, n), least = CHAIN * chain;
  return all > least ? all : least;
}

/* ---- memory ---- */

CacheLevel model_level(const MachineModel *m, double size) {
  if (size <= m->l1 / 2) return CACHE_L1;
  if (size <= m->l2) return CACHE_L2;
  return size <= m->l3 ? CACHE_L3 : CACHE_BEYOND;
}

double model_trip(CacheLevel level) {
  static const double cycles[] = {
      [CACHE_L1] = 0, [CACHE_L2] = 0.05, [CACHE_L3] = 0.27, [CACHE_BEYOND] = 0.6};
  return cycles[level];
}

double model_touch(const MachineModel *m, double bytes) {
  return bytes * model_trip(model_level(m, bytes)) / 2;
}

/* Lines of a panel are fetched ahead; of values some come late. */
double model_read_panel(double bytes) { return bytes / 40; }
double model_read_near(double bytes) { return bytes / 32; }
double model_read_far(double bytes) { return bytes / 3; }

double model_read_weights(const MachineModel *m, double bytes) {
  return bytes > m->l2 / 2 ? model_read_far(bytes) : model_read_near(bytes);
}

double model_weights_again(const MachineModel *m, double bytes) {
  return model_level(m, bytes) == CACHE_L1 ? 0 : bytes / 128;
}

/* Whole rows follow each other in memory, and the processor fetches ahead of them; for the lines of
 * pieces it waits. */
double model_store_tile(const MachineModel *m, int rows, int vectors, bool pieces) {
  const int lines = (vectors * (int)m->lanes * 4 + LINE - 1) / LINE;
  return pieces ? 6.0 * rows * lines : 1.5 * rows * vectors;
}
