/* Quantization as the command line asks for it: calibrating, choosing, reporting. */
#pragma once
#include "driver/quant/pictures.h"
#include "driver/quant/runner.h"
#include "passes/ptq/ptq.h"

/* --quantize and its options on the session's loaded model, which becomes its quantized form.
 * compile: for the program that reads images. Status: EXIT_OK, or why not (reported). */
int quantize_graph(Session *s, CompileFn compile);
