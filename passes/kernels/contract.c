/* What the descriptions of tiled contractions (conv.c, matmul.c, winograd.c) share. */
#include "passes/kernels/contract.h"

#include <string.h>

#include "passes/choose/choice.h"

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
  c->b_buffer = -1;
}

void contract_begin(Contract *c, Lower *l, const Value *root, const Value *anchor, const Place *to,
                    const ContractTypes *types, const char *suffix) {
  contract_init(c, l, root, anchor, to, types);
  kb_begin(&c->b, l, root, suffix);
}

/* Outer size, rows, columns, contracted dimensions. */
static const char *tile_key(Contract *c) {
  StrBuf b = {.arena = c->l->a};
  double outer = 1;
  for (int i = 0; i < c->n_outer; i++) outer *= expr_extent_guess(c->p, c->outer_extent[i]);
  sb_printf(&b, "tile ");
  if (c->types->acc != DT_F32) sb_printf(&b, "%s ", c->types->name);
  if (outer != 1) sb_printf(&b, "outer=%.0f ", outer);
  sb_printf(&b, "rows=");
  if (!c->flat) sb_printf(&b, "%.0fx", expr_extent_guess(c->p, c->rows_h));
  sb_printf(&b, "%.0f cols=%.0f k=", expr_extent_guess(c->p, c->rows_w),
            expr_extent_guess(c->p, c->n));
  for (int i = 0; i < c->n_k; i++)
    sb_printf(&b, "%s%.0f", i ? "x" : "", expr_extent_guess(c->p, c->k_extent[i]));
  return choice_key(c->l->c, "%s", sb_str(&b));
}

/* The tile that tuning wants, or the model's. */
static int take_tile(Contract *c, const TileCost *tiles, int n, int model) {
  Candidate candidates[MAX_TILES];
  for (int i = 0; i < n; i++)
    candidates[i] =
        (Candidate){arena_printf(c->l->a, "%dx%d", tiles[i].tile.rows, tiles[i].tile.vectors),
                    tiles[i].cycles, tiles[i].tile.vectors, 1};
  const char *key = tile_key(c);
  choice_note(c->l->m->arena, &c->b.keys, key);
  return choice_take(c->l->c, CHOICE_TILE, key, candidates, n, model);
}

/* The tile that the node's plan, read from a text, asks for. */
static int planned_tile(const Contract *c, const TileCost *tiles, int n) {
  const Node *const node = c->anchor->def;
  for (int i = 0; i < n; i++)
    if (tiles[i].tile.rows == node->plan->tile_rows &&
        tiles[i].tile.vectors == node->plan->tile_vectors)
      return i;
  diag_error(c->l->m->diag, node->loc, ERR_VALUE, "plan %s: a tile of %dx%d is not possible here",
             plan_name(node->plan), node->plan->tile_rows, node->plan->tile_vectors);
  return contract_cheapest(tiles, n);
}

void contract_tile(Contract *c) {
  double k = 1;
  for (int i = 0; i < c->n_k; i++) k *= expr_extent_guess(c->p, c->k_extent[i]);
  TileCost tiles[MAX_TILES];
  const int n = contract_tiles(c->l->c->target, c->types, expr_extent_guess(c->p, c->rows_h),
                               expr_extent_guess(c->p, c->rows_w), c->flat,
                               expr_extent_guess(c->p, c->n), k, tiles);
  int best = contract_cheapest(tiles, n);
  if (c->anchor->def->plan->tile_rows)
    best = planned_tile(c, tiles, n);
  else if (choice_matters(c->l->c))
    best = take_tile(c, tiles, n, best);
  c->tile = tiles[best].tile;
}

int contract_group_rest(const ContractTypes *types, const Expr *elements) {
  int64_t n;
  if (!expr_is_const(elements, &n)) return types->k_step - 1;
  return (int)((types->k_step - n % types->k_step) % types->k_step);
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
  pl->buffer = module_add_buffer(l->mod, BUF_ARENA, type, count, "padded")->id;
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
  return c->types->k_step > 1 ? c->types->b : c->types->panel;
}

bool contract_pack_const(Contract *c, const ConstData *w, const PackShape *s) {
  const ConstData *d = pack_panels(c->l->m, w, s);
  if (!d)
    return diag_error(c->l->m->diag, c->anchor->def->loc, ERR_OVERFLOW, "weights are too large");
  const int64_t groups = d->count / c->types->k_step;
  if (c->types->k_step > 1) d = const_new(c->l->m, d->name, c->types->panel, 1, &groups, d->data);
  c->b_buffer = contract_weights(c->l, d);
  return true;
}

const Expr *contract_cast(const Contract *c, const Expr *e) {
  return ex_cast(c->p, c->types->acc, e);
}

void contract_last_k(Contract *c, const char *stem, const Expr *count) {
  const Expr *steps = ex_ceildiv(c->p, count, c->types->k_step);
  c->k_elements = count;
  c->k_extent[c->n_k] = steps;
  c->k[c->n_k++] = ex_var(c->p, stem, steps);
}

const Expr *contract_element(const Contract *c, int i) {
  const Expr *step = c->k[c->n_k - 1];
  return ex_add(c->p, ex_mul(c->p, step, ex_i64(c->p, c->types->k_step)), ex_i64(c->p, i));
}

const Expr *contract_group(const Contract *c, DType type, const Expr *const *element) {
  const int n = c->types->k_step, bits = dtype_rows[type].bits;
  if (n == 1) return element[0];
  const Expr *group = NULL;
  for (int i = 0; i < n; i++) {
    const Expr *e = element[i];
    if (dtype_rows[type].cls == DC_SINT && i + 1 < n)
      e = ex_and(c->p, e, ex_int(c->p, DT_I32, (INT64_C(1) << bits) - 1));
    if (i) e = ex_op(c->p, EX_shl, e, ex_int(c->p, DT_I32, (int64_t)i * bits), NULL);
    group = group ? ex_op(c->p, EX_or, group, e, NULL) : e;
  }
  return group;
}

void contract_outer(Contract *c, const Expr *extent) { c->outer_extent[c->n_outer++] = extent; }

Step *lower_contraction(Lower *l, const Value *root, const Value *anchor, const Place *to) {
  ConvInfo ci;
  MatMulInfo mi;
  Attention at;
  if (conv_info(anchor->def, &ci)) return lower_conv(l, root, anchor, to, &ci);
  if (matmul_info(anchor->def, &mi)) return lower_matmul(l, root, anchor, to, &mi);
  if (attention_of(anchor->def, &at)) return lower_attention(l, root, anchor, to, &at);
  diag_internal(l->m->diag, anchor->def->loc, "lower: no template for this contraction");
  return NULL;
}
