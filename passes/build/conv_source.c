/* From where a convolution reads its input: where that lies, or a copy. Layout's place of it is enough to
 * know (form/choose_tiles.c), lowering has the place itself (kernels/conv.c). */
#include "passes/build/kernel.h"
#include "passes/tiles/contract_loops.h"

static bool has_halo(const Place *pl, const Plan *plan, const ConvInfo *conv) {
  if (pl->fill != conv->pad_value) return false;
  for (int s = 0; s < conv->spatial; s++)
    if (pl->halo_lo[2 + s] < plan->halo_lo[s] || pl->halo_hi[2 + s] < plan->halo_hi[s])
      return false;
  return true;
}

static bool reads_border(const Plan *plan) {
  for (int s = 0; s < plan->spatial; s++)
    if (plan->halo_lo[s] > 0 || plan->halo_hi[s] > 0) return true;
  return false;
}

/* Transforms of a Winograd form read elements one by one, whatever float they are. */
static bool reads_groups(const Node *n) {
  return node_contract_types(n)->k_step > 1 && n->plan->algorithm != ALG_WINOGRAD;
}

int conv_channel_rest(const Target *t, const Node *n, const ConvInfo *conv) {
  const ContractTypes *types = node_contract_types(n);
  if (!reads_groups(n) || n->plan->algorithm == ALG_DEPTHWISE) return 0;
  const int64_t merged = conv_merged_groups(t, conv, n->in[1]->cdata);
  return (int)(-(conv->c_in / conv->group * merged) & (types->k_step - 1));
}

/* Taps of other types are converted once; channels far apart, or pixels, are brought together once. Groups
 * of channels are read as they are, but lie together, and are whole. */
bool conv_reads_in_place(const Target *t, const Node *n, const ConvInfo *conv, const Place *own) {
  const Plan *const plan = n->plan;
  const ContractTypes *types = node_contract_types(n);
  const bool groups = reads_groups(n);
  if (n->in[0]->dtype != contract_a_type(types) && plan->algorithm != ALG_WINOGRAD) return false;
  if (conv_channel_rest(t, n, conv)) return false;
  if (!own) return !reads_border(plan) && !plan->skips && !groups;
  const bool spread =
      !expr_is_i64(own->stride[1], 1) &&
      (groups || (conv->c_in / conv->group >= 16 && conv->c_out / conv->group >= 16));
  const bool regroup = conv->c_in <= 4 && (plan->lanes & LANES_PIXELS) &&
                       !expr_is_i64(own->stride[1 + conv->spatial], 1);
  return !spread && !regroup && (!reads_border(plan) || has_halo(own, plan, conv));
}

/* Few channels, or lanes over pixels: rows stay contiguous for the copy and for taps. */
bool conv_copy_keeps_order(const Node *n, const ConvInfo *conv, const Place *own) {
  const bool by_pixel = n->plan->lanes & LANES_PIXELS;
  int64_t channels;
  const bool few = expr_is_const(n->in[0]->dims[1], &channels) && channels <= 4;
  if (reads_groups(n) || contract_joins(node_contract_types(n))) return false;
  return (few && ((own && own->dense) || by_pixel)) ||
         (by_pixel && own && expr_is_i64(own->stride[1 + conv->spatial], 1));
}
