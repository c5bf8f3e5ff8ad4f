/* LLVM modules → objects: target machine, a short pass pipeline, emission. Called by several
 * threads, each with a module and context of its own. */
#include <llvm-c/Analysis.h>
#include <llvm-c/BitReader.h>
#include <llvm-c/BitWriter.h>
#include <llvm-c/Error.h>
#include <llvm-c/Linker.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/llvm/emit.h"

void machine_init(void) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeX86AsmParser();
  LLVMInitializeAArch64TargetInfo();
  LLVMInitializeAArch64Target();
  LLVMInitializeAArch64TargetMC();
  LLVMInitializeAArch64AsmPrinter();
  LLVMInitializeAArch64AsmParser();
  LLVMInitializeARMTargetInfo();
  LLVMInitializeARMTarget();
  LLVMInitializeARMTargetMC();
  LLVMInitializeARMAsmPrinter();
  LLVMInitializeARMAsmParser();
}

static LLVMTargetMachineRef machine_new(const Target *t, int opt_level, char **error) {
  LLVMTargetRef target;
  char *message = NULL;
  if (LLVMGetTargetFromTriple(t->triple, &target, &message)) {
    *error = strdup(message);
    LLVMDisposeMessage(message);
    return NULL;
  }
  const LLVMCodeGenOptLevel level =
      opt_level >= 1 ? LLVMCodeGenLevelAggressive : LLVMCodeGenLevelNone;
  return LLVMCreateTargetMachine(target, t->triple, t->cpu, t->llvm_features, level, LLVMRelocPIC,
                                 LLVMCodeModelSmall);
}

/* Our loops are unrolled and vectorized already; what is left is scalar cleaning and hoisting. */
static const char *pipeline(int opt_level) {
  if (opt_level == 0) return "function(sroa)";
  return "function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,"
         "loop-mssa(licm),early-cse<memssa>,instcombine<no-verify-fixpoint>,loop-mssa(licm),"
         "simplifycfg)";
}

static bool optimise(LLVMModuleRef mod, LLVMTargetMachineRef tm, int opt_level, char **error) {
  LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
  LLVMErrorRef e = LLVMRunPasses(mod, pipeline(opt_level), tm, options);
  LLVMDisposePassBuilderOptions(options);
  if (!e) return true;
  char *const message = LLVMGetErrorMessage(e);
  *error = strdup(message);
  LLVMDisposeErrorMessage(message);
  return false;
}

/* ---- stack: LLVM warns of frames above a limit, here of all ---- */
enum { CALL_BYTES = 64 }; /* return address, saved registers, alignment */

static void note_frame(LLVMDiagnosticInfoRef info, void *user) {
  static const char before[] = "stack frame size (";
  int64_t *sum = user;
  if (LLVMGetDiagInfoSeverity(info) != LLVMDSWarning) return;
  char *const text = LLVMGetDiagInfoDescription(info);
  const char *const at = strstr(text, before);
  if (at) *sum += strtoll(at + sizeof before - 1, NULL, 10);
  LLVMDisposeMessage(text);
}

static void watch_frames(LLVMModuleRef mod, int64_t *sum) {
  static const char key[] = "warn-stack-size";
  const LLVMContextRef ctx = LLVMGetModuleContext(mod);
  *sum = 0;
  for (LLVMValueRef f = LLVMGetFirstFunction(mod); f; f = LLVMGetNextFunction(f)) {
    if (LLVMIsDeclaration(f)) continue;
    *sum += CALL_BYTES;
    LLVMAddAttributeAtIndex(f, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                            LLVMCreateStringAttribute(ctx, key, sizeof key - 1, "0", 1));
  }
  LLVMContextSetDiagnosticHandler(ctx, note_frame, sum);
}

static bool emit_file(LLVMTargetMachineRef tm, LLVMModuleRef mod, LLVMCodeGenFileType kind,
                      LLVMMemoryBufferRef *out, char **error) {
  char *message = NULL;
  if (!LLVMTargetMachineEmitToMemoryBuffer(tm, mod, kind, &message, out)) return true;
  *error = strdup(message);
  LLVMDisposeMessage(message);
  return false;
}

/* The kernel that a function of the module belongs to; -1: none. */
static int kernel_of(const Unit *u, const char *function) {
  const size_t n = strlen(u->p->name);
  if (strncmp(function, u->p->name, n) != 0 || function[n] != '_') return -1;
  for (int k = u->first; k < u->first + u->n; k++) {
    const char *const name = u->p->m->kernels.data[k]->name, *const at = function + n + 1;
    if (strncmp(at, name, strlen(name)) != 0) continue;
    if (at[strlen(name)] == 0 || strcmp(at + strlen(name), ".body") == 0) return k;
  }
  return -1;
}

static bool verify(LLVMUnit *u) {
  char *message = NULL;
  if (!LLVMVerifyModule(u->ir.mod, LLVMReturnStatusAction, &message)) {
    LLVMDisposeMessage(message);
    return true;
  }
  u->error = strdup(message);
  LLVMDisposeMessage(message);
  for (LLVMValueRef f = LLVMGetFirstFunction(u->ir.mod); f; f = LLVMGetNextFunction(f)) {
    size_t length;
    if (LLVMIsDeclaration(f) || !LLVMVerifyFunction(f, LLVMReturnStatusAction)) continue;
    u->unit.failed = kernel_of(&u->unit, LLVMGetValueName2(f, &length));
    break;
  }
  return false;
}

static void set_layout(LLVMModuleRef mod, LLVMTargetMachineRef tm) {
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(tm);
  LLVMSetModuleDataLayout(mod, layout);
  LLVMDisposeTargetData(layout);
}

static bool with_machine(LLVMUnit *u, LLVMTargetMachineRef tm) {
  const LLVMModuleRef mod = u->ir.mod;
  const unsigned emit = u->unit.p->o->emit;
  const double start = clock_thread_seconds();
  set_layout(mod, tm);
  if (!verify(u) || !optimise(mod, tm, u->unit.opt_level, &u->error)) return false;
  const double optimised = clock_thread_seconds();
  u->unit.seconds[STAGE_OPTIMISE] = optimised - start;
  if (emit & (EMIT_ASM | EMIT_LLVM)) u->bitcode = LLVMWriteBitcodeToMemoryBuffer(mod);
  const unsigned objects = EMIT_EXE | EMIT_OBJ | EMIT_STATIC | EMIT_SHARED | EMIT_HEADER;
  if (!(emit & objects)) return true;
  watch_frames(mod, &u->unit.stack);
  const bool ok = emit_file(tm, mod, LLVMObjectFile, &u->object, &u->error);
  u->unit.seconds[STAGE_EMIT] = clock_thread_seconds() - optimised;
  return ok;
}

bool machine_emit(LLVMUnit *u) {
  LLVMTargetMachineRef tm = machine_new(u->unit.p->t, u->unit.opt_level, &u->error);
  if (!tm) return false;
  const bool ok = with_machine(u, tm);
  LLVMDisposeTargetMachine(tm);
  return ok;
}

/* ---- texts: the units' modules are linked into one, so that an assembler or opt reads it ---- */
static const char *join(LLVMContextRef ctx, LLVMModuleRef all, Unit *const *units, int n,
                        Unit **at) {
  for (int i = 0; i < n; i++) {
    LLVMModuleRef mod;
    *at = units[i];
    if (LLVMParseBitcodeInContext2(ctx, ((const LLVMUnit *)units[i])->bitcode, &mod))
      return "a unit's bitcode cannot be read";
    if (LLVMLinkModules2(all, mod)) return "the units' modules cannot be linked"; /* takes mod */
  }
  *at = NULL;
  return NULL;
}

static const char *print_module(const Program *p, LLVMModuleRef mod, LLVMTargetMachineRef tm,
                                EmitKind kind, FILE *f) {
  if (kind == EMIT_LLVM) {
    char *const text = LLVMPrintModuleToString(mod);
    fputs(text, f);
    LLVMDisposeMessage(text);
    return NULL;
  }
  LLVMMemoryBufferRef out;
  char *error = NULL;
  if (!emit_file(tm, mod, LLVMAssemblyFile, &out, &error)) {
    const char *const kept = arena_strdup(p->arena, error);
    free(error);
    return kept;
  }
  fwrite(LLVMGetBufferStart(out), LLVMGetBufferSize(out), 1, f);
  LLVMDisposeMemoryBuffer(out);
  return NULL;
}

const char *machine_write(const Program *p, Unit *const *units, int n, EmitKind kind, FILE *f,
                          Unit **at) {
  char *message = NULL;
  LLVMTargetMachineRef tm = machine_new(p->t, units[0]->opt_level, &message);
  if (!tm) {
    free(message);
    return "no target machine";
  }
  const LLVMContextRef ctx = LLVMContextCreate();
  const LLVMModuleRef all = LLVMModuleCreateWithNameInContext(p->name, ctx);
  LLVMSetTarget(all, p->t->triple);
  set_layout(all, tm);
  const char *error = join(ctx, all, units, n, at);
  if (!error) error = print_module(p, all, tm, kind, f);
  LLVMDisposeModule(all);
  LLVMContextDispose(ctx);
  LLVMDisposeTargetMachine(tm);
  return error;
}
