/* Element types of tiled contractions (passes/kernels/contract.h): one row for each pair of
 * operand types that the template takes, with what it packs, adds up in and steps by. A new type
 * is a row of contract_types.c; nothing else names types. Behind a row of grouped floats come
 * one for targets without its instruction, which gives the same bits (where the plan has no matrix
 * registers), and one that takes the same operands one by one: of convolutions whose groups are
 * not whole. */
#pragma once
#include "ir/op/op.h"
#include "targets/target.h"

enum { MAX_K_STEP = 16 };

typedef struct ContractTypes {
  const char *name;
  DType a, b; /* elements of the operands, as the node has them */
  /* Elements of packed panels of B; k_step > 1: an i32, which holds a group. A small float is
   * converted to the type of the sums where it is used, or a block of a panel before many rows are. */
  DType panel;
  DType acc;   /* sums, and what the epilogue begins with; a compute type */
  int k_step;  /* elements of k that one multiply-add takes: they are grouped on both sides */
  ExprOp mac;  /* mac(a, b, sum): the scalar row that does it */
  bool mac_ba; /* mac(b, a, sum) */
  /* Elements of A are read in the type of the sums, one by one; those of B are taken from groups, the
   * last one first. */
  bool split_a;
  /* A sum gathers over a row of k_step bytes, which follow each other in A and in panels of bytes. */
  bool across;
  /* Sums of a block of k are integers, which are scaled and then added (of bytes and stored weights). */
  bool scaled;
} ContractTypes;

/* The first row; NULL: the template does not take this pair. */
const ContractTypes *contract_types(DType a, DType b);
/* Of a Conv, ConvTranspose, MatMul or Gemm, by inputs 0 and 1. */
const ContractTypes *node_contract_types(const Node *n);
/* Of the products in a Winograd form of such a Conv. */
const ContractTypes *winograd_types(const Target *t, const Node *n);
/* What a multiply-add takes of the time of one of floats; of rows of bytes that is known where they are. */
double contract_step_cost(const ContractTypes *types, const Target *t);
/* Elements of panels that are packed at compile time; of those that a kernel packs. */
DType contract_panel_type(const ContractTypes *types, const Target *t);
DType contract_computed_panel(const ContractTypes *types);
/* Has the target an instruction for four products of bytes of these types, whichever comes first? */
bool contract_has_dot4(const Target *t, DType x, DType w);
/* Has the target matrix registers for such products? */
bool contract_has_matrix(const ContractTypes *types, const Target *t);
/* Has it an instruction for two rows and two columns of such bytes, eight of k at once? */
bool contract_has_squares(const ContractTypes *types, const Target *t);
/* … and take sums of k elements, several steps at once. */
bool contract_matrix_takes(const ContractTypes *types, const Target *t, const Expr *k);
/* Elements of panels that a column takes of a step of k. */
int contract_panel_step(const ContractTypes *types);
/* As what A is stored where it is copied for a contraction. */
DType contract_a_type(const ContractTypes *types);
/* Whether channels and taps of the last dimension are one loop of k where they lie together. */
bool contract_joins(const ContractTypes *types);
/* Cells behind `elements` of the last k that its groups reach. */
int contract_group_rest(const ContractTypes *types, const Expr *elements);
