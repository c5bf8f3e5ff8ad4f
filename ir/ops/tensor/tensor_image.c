/* ImageDecoder: a runtime function, since the sizes stand in the data. */
#include "ir/op/tensor_util.h"
#include "runtime/image/image.h"
#include "runtime/ops/ops.h"

static const char *const forms[] = {"RGB", "BGR", "Grayscale", NULL};

/* The declared size, or what inference found before, or --bound, bounds it. */
static const Expr *image_dim(Model *m, Node *n, int d, const char *stem) {
  const Value *v = n->out[0];
  const Expr *bound = tu_declared(n, 0, d);
  if (!bound && v->rank > d && v->dims[d] && v->dims[d]->op == EX_SYM)
    bound = expr_symbol(m->pool, v->dims[d]->id)->bound;
  return op_runtime_dim(m, n, 0, d, stem, bound);
}

bool infer_image_decoder(Model *m, Node *n) {
  int form;
  if (!op_need_dtype(m, n, 0, DT_U8) || !op_need_rank(m, n, 0, 1, 1) ||
      !op_choice(m, n, "pixel_format", "RGB", forms, &form))
    return false;
  const Expr *dims[3] = {image_dim(m, n, 0, "height"), image_dim(m, n, 1, "width"),
                         ex_i64(m->pool, form == 2 ? 1 : 3)};
  return op_out(m, n, 0, DT_U8, 3, dims);
}

static int pack_image(const Node *n, int64_t *w, int max) {
  int form = 0;
  if (!op_choice(n->graph->model, n, "pixel_format", "RGB", forms, &form)) return -1;
  w[0] = form;
  return 1;
}

/* image_scratch, and 4 bytes of each pixel. */
static const Expr *scratch_image(Model *m, const Node *n) {
  ExprPool *p = m->pool;
  const Expr *const *d = n->out[0]->dims;
  const Expr *edge = ex_i64(p, IMAGE_EDGE);
  const Expr *area = ex_mul(p, ex_add(p, d[0], edge), ex_add(p, d[1], edge));
  return ex_add(p, n->in[0]->dims[0], ex_mul(p, area, ex_i64(p, IMAGE_PIXEL + 4)));
}
const ExternRow ext_image_decoder = {
    "rt_image_decoder",
    (void *)rt_image_decoder,
    pack_image,
    .scratch = scratch_image,
    .host_only = true,
    .fails =
        "the picture is damaged, larger than its bound, or of a format that is not decoded "
        "(PNG, JPEG, BMP, PNM and plain TIFF are)"};
