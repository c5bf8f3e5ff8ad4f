/* LLVM modules → objects: target machine, a short pass pipeline, emission. Called by several
 * threads, each with a module and context of its own. */
#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
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

static bool with_machine(LLVMModuleRef mod, LLVMTargetMachineRef tm, int opt_level, unsigned emit,
                         MachineCode *out, char **error) {
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(tm);
  LLVMSetModuleDataLayout(mod, layout);
  LLVMDisposeTargetData(layout);
  char *message = NULL;
  if (LLVMVerifyModule(mod, LLVMReturnStatusAction, &message)) {
    *error = strdup(message);
    LLVMDisposeMessage(message);
    return false;
  }
  LLVMDisposeMessage(message);
  if (!optimise(mod, tm, opt_level, error)) return false;
  if (emit & EMIT_LLVM) out->llvm = LLVMPrintModuleToString(mod);
  if (emit & EMIT_ASM) { /* emission changes the module */
    LLVMModuleRef copy = LLVMCloneModule(mod);
    const bool ok = emit_file(tm, copy, LLVMAssemblyFile, &out->assembly, error);
    LLVMDisposeModule(copy);
    if (!ok) return false;
  }
  const unsigned objects = EMIT_EXE | EMIT_OBJ | EMIT_STATIC | EMIT_SHARED | EMIT_HEADER;
  if (!(emit & objects)) return true;
  watch_frames(mod, &out->stack);
  return emit_file(tm, mod, LLVMObjectFile, &out->object, error);
}

bool machine_emit(LLVMModuleRef mod, const Target *t, int opt_level, unsigned emit,
                  MachineCode *out, char **error) {
  *out = (MachineCode){0};
  LLVMTargetMachineRef tm = machine_new(t, opt_level, error);
  if (!tm) return false;
  const bool ok = with_machine(mod, tm, opt_level, emit, out, error);
  LLVMDisposeTargetMachine(tm);
  return ok;
}
