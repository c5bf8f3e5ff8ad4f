/* Models compiled for this machine and run in this process. */
#pragma once
#include "driver/driver.h"
#include "runtime/abi.h"

typedef struct Library {
  void *handle;
  int fd; /* of the file in memory that it was loaded from; -1: none */
  const BurinModel *model;
} Library;

/* Compiles m for the session's target, whose code this machine must run. False: it cannot be made,
 * loaded or run here; errors that a user should see are in the session's diagnostics. */
bool library_make(Session *s, const Module *m, const char *name, Library *out);
void library_close(Library *l); /* also of one that was not made */
/* Memory for one call, aligned, from an arena that dies behind it. */
void *library_memory(Arena *a, uint64_t bytes);

/* Edits the graph that ONNX_PASSES leave. False: reported. */
typedef bool (*GraphEdit)(Session *s, void *user);
/* In a session of its own: reads `file`, edits its graph, compiles that. edit NULL: nothing. Exit
 * status; errors are printed. */
int library_compile(const Options *o, const char *file, GraphEdit edit, void *user, Library *out);
/* The same, with the graph edited as it was read: no pass has run. */
int library_compile_read(const Options *o, const char *file, GraphEdit edit, void *user,
                         Library *out);
