/* Emission of the entry: what its files share. The entry is NAME_program (checks, then the steps),
 * in a wrapper. */
#pragma once
#include "codegen/host/entry.h"
#include "codegen/llvm/emit.h"

typedef struct Entry {
  Emit *c;
  const Program *p;
  Val in, out, dims, arena;    /* arguments of invoke */
  Val opts;                    /* the options as given; behind EN_OPTIONS completed, never NULL */
  Val own_in, wrong, given;    /* defaults: inputs with them, what burin_rt_inputs said */
  Val fine;                    /* of the input at hand: its default need not have the run's sizes */
  Val scratch, scratch_stride; /* behind the arena: one per thread */
  Val bufs;                    /* pointer array for kernels */
  bool *assigned;              /* run-time symbols that have their value, in textual order */
  int call;                    /* profile position */
  Val frame;                   /* of parts */
  int *parts;                  /* made so far */
  Val run;                     /* what the run has of its device; NULL: there is none */
} Entry;

static inline Val ki32(Emit *c, int64_t v) { return k_int(c, c->i32, v); }
static inline Val ki64(Emit *c, int64_t v) { return k_int(c, c->i64, v); }
static inline Val at(Emit *c, Type t, Val p, Val index) {
  return LLVMBuildGEP2(c->b, t, p, &index, 1, "");
}
static inline Val at_k(Emit *c, Type t, Val p, int64_t k) {
  return k ? at(c, t, p, ki64(c, k)) : p;
}
static inline Val field(Emit *c, Type t, Val p, int k) {
  return LLVMBuildStructGEP2(c->b, t, p, (unsigned)k, "");
}
static inline Val load(Emit *c, Type t, Val p) { return LLVMBuildLoad2(c->b, t, p, ""); }
static inline Val wide(Emit *c, const Expr *e) { return emit_wide(c, expr_lower_math(c->pool, e)); }

/* ---- entry_info.c: constants, and the descriptor ---- */
Val const_text(Emit *c, const char *s);              /* its address; NULL of NULL */
Val const_array(Emit *c, Type t, Val *items, int n); /* likewise; NULL of no items */
Val weights_pointer(Emit *c, const Program *p);      /* NULL: there are none */
typedef struct EntryFns {
  Val invoke, arena_size, output_dims;
} EntryFns;
void emit_defaults(Emit *c, const Program *p); /* before anything that reads them */
void emit_info(Emit *c, const Program *p, const EntryFns *fns);

/* ---- entry_frame.c: functions, symbols, sizes, checks ---- */
Val begin_function(Emit *c, const char *name, Type type, bool exported);
Val declare(Emit *c, const char *name, Type result, int n, Type const *args,
            Type *type);                       /* hidden, once */
void fail_unless(Emit *c, Val ok, int status); /* returns status otherwise */
void sym_store(Emit *c, int id, Val v);
void sym_array(Emit *c, const Program *p, Val dims);
Val emit_arena_size(Emit *c, const Program *p);
Val emit_output_dims(Emit *c, const Program *p);
Type options_type(Emit *c);
Val options_heap(Entry *e); /* BurinOptions.heap */
Val fits(Emit *c, const Expr *bytes);        /* a size that this target can address */
Val fits_arithmetic(Emit *c, const Expr *e); /* a size that 64 bits hold; NULL: it always is one */

/* ---- entry_checks.c: what a run refuses ---- */
/* Goes on when ok; else returns the check's status (or another), having noted it and up to three
 * values. */
void require(Entry *e, Val ok, int check, int n, Val const *values);
void require_status(Entry *e, Val ok, Val status, int check, int n, Val const *values);
void require_assume(Entry *e, const DimAssume *a);
/* What stands before the steps. Returns how many items it took: 1, or several pointers. */
int entry_check(Entry *e, const EntryItem *item);

/* ---- entry_device.c: kernels that a device runs ---- */
void device_steps(Entry *e); /* the whole run */
void device_launch(Entry *e, const Step *s, int position);
void device_note_work(Entry *e, const Step *s, int position);
void emit_device_profile(Emit *c, const Program *p); /* the function that notes it */
void device_copy(Entry *e, Val to, Val from, Val bytes);
Val device_read(Entry *e, Val from, int bytes); /* where they are now; at most 8 */
Val device_call(Entry *e, const Step *s, int position, Val fn, Val ins, Val outs, Val words);
/* The same function on the device: program_call_on_device. */
Val device_function(Entry *e, const Step *s, int position, Val ins, Val outs, Val words);
Val device_weights(Entry *e);
/* What hosts make and end devices with; behind the run. */
void emit_device_functions(Emit *c, const Program *p);

/* ---- entry_steps.c: calls and control ---- */
Val buffer_address(Entry *e, int id);
void require_call(Entry *e, const Step *s, Val status); /* of a runtime function */
/* `key`, the worst index of the check s, is allowed. */
void require_index(Entry *e, const Step *s, Val key);
void emit_profile_functions(Emit *c);
/* Adds `flops` to opts->kernel_flops[k] when the caller wants it. */
void note_flops(Emit *c, Val opts, Val k, Val flops);
void emit_steps(Entry *e, const Step *s, const Step *end); /* s up to end, in place */
void pass_on_failure(Emit *c, Val status);                 /* returns it unless it is BURIN_OK */

/* long lists in functions of their own */
void emit_program_steps(Entry *e, const Step *s);
void emit_step_list(Entry *e, const Step *s); /* of a condition or loop */
Val call_steps(Entry *e, const Step *s);      /* in a function of their own; its status */
