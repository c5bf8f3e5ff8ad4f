/* Matrix loops (ir/loop/matrix.h) as AMX instructions, with registers that are named here: LLVM does not
 * allocate them. Four registers of sums, two for each operand. All of a kernel have the same shape,
 * which is set where it begins; kernels that need others are made of plain loops. And as instructions for
 * two rows and two columns in vectors (ARM's i8mm), which are registers like all others. */
#include "codegen/llvm/emit.h"
#include "ir/loop/matrix.h"

enum { TILES = 8, SUMS = 4, FIRST_A = 4, FIRST_B = 6, MOST_ROWS = 16, COLUMNS = 16, LINE = 64 };

struct MatrixRegs {
  int rows;
  int k;
  int taken; /* registers of sums, by the locals in scope */
  int *of;   /* by local: its register, or -1 */
};

/* ---- registers ---- */

/* Whether all operations fit the registers, and their shape. */
typedef struct Survey {
  const Emit *c;
  struct MatrixRegs *r;
  bool fits;
} Survey;

static void survey_op(Survey *v, const Stmt *s) {
  struct MatrixRegs *const r = v->r;
  MatrixOp op;
  if (matrix_op(v->c->pool, v->c->kernel, s, &op)) {
    v->fits = false;
    return;
  }
  const bool product = op.kind == MATRIX_MULTIPLY;
  if (!r->rows) r->rows = op.rows;
  if (product && !r->k) r->k = op.k;
  if ((product && !target_has(v->c->t, op.floats ? FEATURE_AMX_BF16 : FEATURE_AMX_INT8)) ||
      op.rows != r->rows || op.rows > MOST_ROWS || op.cols != COLUMNS ||
      (product && (op.k != r->k || op.k > MOST_ROWS)))
    v->fits = false;
}

static bool takes_register(const Emit *c, const Stmt *s) {
  return s->kind == ST_LOCAL && c->kernel->locals.data[s->access.id].memory == MEM_MATRIX;
}

/* What is in scope already keeps its register. */
static void take(struct MatrixRegs *r, int local) {
  if (r->of[local] < 0) r->of[local] = r->taken++;
}

static void give_back(struct MatrixRegs *r, int locals, int taken) {
  for (int i = 0; i < locals; i++)
    if (r->of[i] >= taken) r->of[i] = -1;
  r->taken = taken;
}

static void survey(Survey *v, const Stmt *s) {
  const int taken = v->r->taken;
  for (; s && v->fits; s = s->next) {
    if (takes_register(v->c, s)) take(v->r, s->access.id);
    if (v->r->taken > SUMS) v->fits = false;
    if (s->kind == ST_FOR && s->loop.kind == FOR_MATRIX) {
      survey_op(v, s);
      continue;
    }
    survey(v, stmt_body(s));
    survey(v, stmt_otherwise(s));
  }
  give_back(v->r, v->c->kernel->locals.n, taken);
}

/* Palette 1: bytes of a row at 16, rows at 48. */
static Val configuration(Emit *c, const struct MatrixRegs *r) {
  char data[LINE] = {1};
  for (int i = 0; i < TILES; i++) {
    const bool a = i >= FIRST_A && i < FIRST_B, b = i >= FIRST_B;
    data[16 + 2 * i] = (char)(a ? 4 * r->k : LINE);
    data[48 + i] = (char)(b ? r->k : r->rows);
  }
  const Val bytes = LLVMConstStringInContext2(c->ctx, data, LINE, 1);
  const Val g = LLVMAddGlobal(c->mod, LLVMTypeOf(bytes),
                              arena_printf(c->arena, "%s_%s.tiles", c->name, c->kernel->name));
  LLVMSetInitializer(g, bytes);
  LLVMSetGlobalConstant(g, 1);
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  LLVMSetAlignment(g, LINE);
  return g;
}

void matrix_begin(Emit *c) {
  if (!target_has(c->t, FEATURE_AMX_INT8) && !target_has(c->t, FEATURE_AMX_BF16)) return;
  struct MatrixRegs *const r = ARENA_NEW(c->arena, struct MatrixRegs);
  Survey v = {c, r, true};
  const int n = c->kernel->locals.n;
  r->of = ARENA_ARRAY(c->arena, int, n + 1);
  for (int i = 0; i < n; i++) r->of[i] = -1;
  survey(&v, c->kernel->body);
  if (!r->rows || !v.fits) return;
  if (!r->k) r->k = 1;
  c->matrix = r;
  Val at = configuration(c, r);
  intrinsic(c, "llvm.x86.ldtilecfg", 0, NULL, 1, &at);
}

void matrix_declare(Emit *c, const Stmt *s) {
  if (c->matrix && takes_register(c, s)) take(c->matrix, s->access.id);
}

int matrix_taken(const Emit *c) { return c->matrix ? c->matrix->taken : 0; }

void matrix_release(Emit *c, int taken) {
  if (c->matrix) give_back(c->matrix, c->kernel->locals.n, taken);
}

void matrix_end(Emit *c) {
  if (c->matrix) intrinsic(c, "llvm.x86.tilerelease", 0, NULL, 0, NULL);
}

/* ---- operations ---- */

/* What the registers of an operand hold while nothing but products follow each other. */
typedef struct Held {
  int first; /* register */
  int next;  /* of two, the one to fill */
  MatrixPlace place[2];
  bool full[2];
} Held;

static Val reg(Emit *c, int i) { return k_int(c, c->i8, i); }

static Val pitch_bytes(Emit *c, const Expr *pitch, int bytes) {
  return LLVMBuildMul(c->b, emit_wide(c, pitch), k_int(c, c->i64, bytes), "");
}

static int load_operand(Emit *c, Held *h, const MatrixPlace *x) {
  for (int i = 0; i < 2; i++)
    if (h->full[i] && h->place[i].id == x->id && h->place[i].base == x->base &&
        h->place[i].pitch == x->pitch)
      return h->first + i;
  const int i = h->next;
  h->next = 1 - i;
  h->place[i] = *x;
  h->full[i] = true;
  const Mem m = emit_param_mem(c, x->id);
  const Val p = mem_address(c, &m, x->base, NULL, 0);
  intrinsic(c, "llvm.x86.tileloadd64", 0, NULL, 3,
            (Val[]){reg(c, h->first + i), p, pitch_bytes(c, x->pitch, dtype_bytes(m.dtype))});
  return h->first + i;
}

static void multiply(Emit *c, const MatrixOp *op, Held *a, Held *b) {
  static const char *const names[2][2] = {{"llvm.x86.tdpbuud", "llvm.x86.tdpbusd"},
                                          {"llvm.x86.tdpbsud", "llvm.x86.tdpbssd"}};
  const int x = load_operand(c, a, &op->a), y = load_operand(c, b, &op->b);
  intrinsic(c, op->floats ? "llvm.x86.tdpbf16ps" : names[op->a_signed][op->b_signed], 0, NULL, 3,
            (Val[]){reg(c, c->matrix->of[op->sum]), reg(c, x), reg(c, y)});
}

static void copy(Emit *c, const MatrixOp *op) {
  const Mem m = emit_stack_mem(c, op->a.id);
  const Val p = mem_address(c, &m, op->a.base, NULL, 0);
  intrinsic(c, "llvm.x86.tilestored64", 0, NULL, 3,
            (Val[]){reg(c, c->matrix->of[op->sum]), p,
                    pitch_bytes(c, op->a.pitch, dtype_bytes(m.dtype))});
}

const Stmt *emit_matrix(Emit *c, const Stmt *s) {
  Held a = {.first = FIRST_A}, b = {.first = FIRST_B};
  const Stmt *last = s;
  for (; s && s->kind == ST_FOR && s->loop.kind == FOR_MATRIX && !c->error; s = s->next) {
    MatrixOp op;
    if (matrix_op(c->pool, c->kernel, s, &op)) c->error = "matrix loops that are none";
    last = s;
    if (c->error) break;
    if (op.kind == MATRIX_MULTIPLY) {
      multiply(c, &op, &a, &b);
      continue;
    }
    if (op.kind == MATRIX_COPY) copy(c, &op);
    if (op.kind == MATRIX_FILL) {
      Val t = reg(c, c->matrix->of[op.sum]);
      intrinsic(c, "llvm.x86.tilezero", 0, NULL, 1, &t);
    }
  }
  return last;
}

/* ---- two rows and two columns ---- */
enum { EIGHT = 8, SQUARE = 4 };

/* n elements from base + more on. */
static Val elements_at(Emit *c, const MatrixPlace *x, const Expr *more, int n) {
  const DType t = c->kernel->params.data[x->id].dtype;
  return emit_load_row(c, ex_load(c->pool, t, x->id, ex_add(c->pool, x->base, more), NULL), n);
}

/* The bytes of A's steps [q, q + n) in each row, by eights. */
typedef struct Rows {
  Val row[2];
  int q;
  int n;
} Rows;

static Rows rows_at(Emit *c, const MatrixOp *op, int q) {
  Rows r = {.q = q, .n = op->k - q < SQUARE ? op->k - q : SQUARE};
  const Type t = LLVMVectorType(c->i64, (unsigned)r.n / 2);
  for (int i = 0; i < 2; i++) {
    const Expr *const row = i < op->rows ? op->a.pitch : ex_i64(c->pool, 0);
    const Expr *const more = ex_add(c->pool, ex_mul(c->pool, row, ex_i64(c->pool, i)),
                                    ex_i64(c->pool, (int64_t)q * SQUARE));
    r.row[i] = LLVMBuildBitCast(c->b, elements_at(c, &op->a, more, r.n * SQUARE), t, "");
  }
  return r;
}

/* Steps q and q + 1 of both rows. */
static Val eights_of(Emit *c, const Rows *r, int q) {
  const int at = (q - r->q) / 2;
  const Val v = shuffle_lanes(c, r->row[0], r->row[1], (int[]){at, r->n / 2 + at}, 2);
  return LLVMBuildBitCast(c->b, v, LLVMVectorType(c->i8, 2 * EIGHT), "");
}

static Val columns_at(Emit *c, const MatrixOp *op, int q) {
  const Expr *const more = ex_mul(c->pool, op->b.pitch, ex_i64(c->pool, q / 2));
  return LLVMBuildBitCast(c->b, elements_at(c, &op->b, more, SQUARE),
                          LLVMVectorType(c->i8, 2 * EIGHT), "");
}

static const char *square_instruction(const Emit *c, const MatrixOp *op) {
  static const char *const names[2][2] = {{"llvm.aarch64.neon.ummla", "llvm.aarch64.neon.usmmla"},
                                          {NULL, "llvm.aarch64.neon.smmla"}};
  return target_has(c->t, FEATURE_I8MM) ? names[op->a_signed][op->b_signed] : NULL;
}

bool emit_square(Emit *c, const Stmt *s) {
  MatrixOp op;
  int64_t k = 0;
  if (matrix_op(c->pool, c->kernel, s, &op) || op.kind != MATRIX_MULTIPLY || !op.eights)
    return false;
  const char *const name = square_instruction(c, &op);
  const LocalState *const sums = &c->locals[op.sum];
  if (!name || sums->kind != LK_CHUNKS || c->vl != SQUARE ||
      (op.part && !emit_const(c, op.part, &k)) || k < 0 ||
      k + SQUARE > c->kernel->locals.data[op.sum].count)
    return false;
  const Type t = LLVMVectorType(c->i32, SQUARE), bytes = LLVMVectorType(c->i8, 2 * EIGHT);
  const Val place = sums->slots[k / SQUARE];
  Val sum = LLVMBuildLoad2(c->b, t, place, "");
  Rows rows = {0};
  for (int q = 0; q < op.k; q += 2) {
    if (q % SQUARE == 0) rows = rows_at(c, &op, q);
    sum = intrinsic(c, name, 2, (Type[]){t, bytes}, 3,
                    (Val[]){sum, eights_of(c, &rows, q), columns_at(c, &op, q)});
  }
  LLVMBuildStore(c->b, sum, place);
  return true;
}
