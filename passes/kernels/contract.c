/* What the descriptions of tiled contractions (conv.c, matmul.c, winograd.c) share. */
#include "passes/kernels/contract.h"

#include <string.h>

#include "passes/choose/choice.h"
#include "passes/kernels/contract_parts.h"
#include "passes/tiles/matrix.h"

void contract_init(Contract *c, Lower *l, const Value *root, const Value *anchor, const Place *to,
                   const ContractTypes *types) {
  memset(c, 0, sizeof *c);
  c->l = l;
  c->p = l->p;
  c->root = root;
  c->anchor = anchor;
  c->to = to;
  c->types = types;
  c->lanes = target_lanes(l->c->target, 32); /* as code is generated: f64 in pairs of registers */
  c->scale = 1.0;
  c->live_share = 1.0;
  c->panel = contract_panel_type(types, l->c->target);
  c->b_buffer = c->gathered = c->gather_to = -1;
  c->unpacked = -1;
}

void contract_begin(Contract *c, Lower *l, const Value *root, const Value *anchor, const Place *to,
                    const ContractTypes *types, const char *suffix) {
  contract_init(c, l, root, anchor, to, types);
  kb_begin(&c->b, l, root, suffix);
}

const ContractTypes *contract_by_element(Lower *l, const ContractTypes *types) {
  ContractTypes *const t = arena_dup(l->m->arena, types, sizeof *types);
  t->k_step = 1;
  t->mac = EX_fma;
  t->panel = t->acc;
  t->split_a = t->across = false;
  return t;
}

ContractShape contract_shape(const Contract *c) {
  ContractShape s = {.types = c->types,
                     .n_outer = c->n_outer,
                     .flat = c->flat,
                     .rows_h = c->rows_h,
                     .rows_w = c->rows_w,
                     .n = c->n,
                     .n_k = c->n_k,
                     .skips = c->skips};
  memcpy(s.outer, c->outer_extent, sizeof s.outer);
  memcpy(s.k, c->k_extent, sizeof s.k);
  return s;
}

void contract_tile(Contract *c) {
  const ContractShape s = contract_shape(c);
  PlanLoops *l = &c->plan;
  *l = plan_loops(c->anchor->def->plan, c->phase);
  if (!l->rows) *l = contract_choose_loops(c->l->c, &s, *l, false);
  if (l->key) choice_note(c->l->m->arena, &c->b.keys, l->key);
  c->tile = (Tile){l->rows, l->vectors};
  c->squares = contract_is_squares(c->l->c, &s, l);
}

/* Those that choose_tiles planned for the order in memory that it expected. Where a value lies otherwise,
 * or the plan has none, others serve, and a warning says so. */
void contract_plan_blocks(Contract *c) {
  enum { FEW_ROWS = 8 }; /* there are registers for as many with any width of a matrix tile */
  const ContractShape s = contract_shape(c);
  PlanLoops *l = &c->plan;
  if (l->part && l->lines != c->flat && (!l->matrix || c->squares || contract_matrix_fits(c)))
    return;
  if (l->matrix && l->rows > FEW_ROWS) l->rows = FEW_ROWS;
  diag_warning(c->l->m->diag, c->anchor->def->loc,
               "plan %s: values lie otherwise than the plan expects: other blocks are chosen",
               plan_name(c->anchor->def->plan));
  *l = contract_choose_loops(c->l->c, &s, (PlanLoops){l->rows, l->vectors, .key = l->key}, true);
  c->tile.rows = l->rows;
}

const Place *contract_copy(Lower *l, const Value *x, DType type, const Layout *layout,
                           Step **steps) {
  Value *copy = ARENA_NEW(l->m->arena, Value);
  *copy = *x;
  copy->dtype = type;
  copy->layout = *layout;
  Place *pl = ARENA_NEW(l->m->arena, Place);
  pl->stride = ARENA_ARRAY(l->m->arena, const Expr *, x->rank + 1);
  const Expr *count;
  strides_of(l->m, copy, pl->stride, &pl->base, &count);
  pl->offset = ex_i64(l->p, 0);
  pl->fill = layout->fill;
  pl->buffer = module_add_memory(l->mod, type, count, "padded")->id;
  bool halo = false;
  for (int d = 0; d < x->rank && layout->halo_lo; d++) {
    pl->halo_lo[d] = layout->halo_lo[d];
    pl->halo_hi[d] = layout->halo_hi[d];
    halo = halo || pl->halo_lo[d] || pl->halo_hi[d];
  }
  if (halo) step_append(steps, lower_halo(l, copy, pl));
  step_append(steps, lower_read(l, x, pl));
  return pl;
}

int contract_weights(Lower *l, const ConstData *d) {
  Buffer *b = module_add_buffer(l->mod, BUF_WEIGHT, d->dtype, ex_i64(l->p, d->count), NULL);
  b->data = d;
  return b->id;
}

DType contract_packed_type(const Contract *c) {
  return c->types->k_step > 1 ? c->types->b : c->panel;
}

bool contract_pack_const(Contract *c, const ConstData *w, const PackShape *s) {
  PackShape shape = *s;
  if (c->squares) shape.k_step *= 2;
  const ConstData *d = pack_panels(c->l->m, w, &shape);
  if (!d)
    return diag_error(c->l->m->diag, c->anchor->def->loc, ERR_OVERFLOW, "weights are too large");
  const int64_t groups = d->count / c->types->k_step;
  if (c->types->k_step > 1 && !c->types->across)
    d = const_new(c->l->m, d->name, c->panel, 1, &groups, d->data);
  c->b_buffer = contract_weights(c->l, d);
  return true;
}

const Expr *contract_cast(const Contract *c, const Expr *e) {
  return ex_cast(c->p, c->types->acc, e);
}

const Expr *contract_operand_a(const Contract *c, const Expr *e) {
  return c->types->split_a ? contract_cast(c, e) : contract_operand_b(c, e);
}

const Expr *contract_operand_b(const Contract *c, const Expr *e) {
  if (c->types->k_step == 1) return contract_cast(c, e);
  if (!dtype_is_float((DType)e->dtype)) return ex_cast(c->p, DT_I32, e);
  return ex_cast(c->p, DT_I32, ex_bits(c->p, DT_U16, e));
}

void contract_last_k(Contract *c, const char *stem, const Expr *count) {
  const Expr *steps = ex_ceildiv(c->p, count, c->types->k_step);
  c->k_elements = count;
  c->k_extent[c->n_k] = steps;
  c->k[c->n_k++] = ex_var(c->p, stem, steps);
}

const Expr *contract_element(const Contract *c, const Expr *i) {
  const Expr *step = c->k[c->n_k - 1];
  return ex_add(c->p, ex_mul(c->p, step, ex_i64(c->p, c->types->k_step)), i);
}

const Expr *group_elements(ExprPool *p, DType type, int n, const Expr *const *element) {
  const int bits = dtype_rows[type].bits;
  const Expr *group = NULL;
  for (int i = 0; i < n; i++) {
    const Expr *e = element[i];
    if (dtype_rows[type].cls == DC_SINT && i + 1 < n)
      e = ex_and(p, e, ex_int(p, DT_I32, (INT64_C(1) << bits) - 1));
    if (i) e = ex_op(p, EX_shl, e, ex_int(p, DT_I32, (int64_t)i * bits), NULL);
    group = group ? ex_op(p, EX_or, group, e, NULL) : e;
  }
  return group;
}

const Expr *contract_group(const Contract *c, DType type, const Expr *const *element) {
  const int n = c->types->k_step;
  return n == 1 ? element[0] : group_elements(c->p, type, n, element);
}

void contract_outer(Contract *c, const Expr *extent) { c->outer_extent[c->n_outer++] = extent; }

Step *lower_contraction(Lower *l, const Value *root, const Value *anchor, const Place *to) {
  ConvInfo conv;
  MatMulInfo product;
  Attention at;
  if (anchor->def->plan->algorithm == ALG_SPARSE) return lower_sparse(l, root, anchor, to);
  if (conv_info(anchor->def, &conv)) return lower_conv(l, root, anchor, to, &conv);
  if (matmul_info(anchor->def, &product)) return lower_matmul(l, root, anchor, to, &product);
  if (attention_of(anchor->def, &at)) return lower_attention(l, root, anchor, to, &at);
  diag_internal(l->m->diag, anchor->def->loc, "lower: no template for this contraction");
  return NULL;
}
