/* Files that are written whole or not at all, by the compiler and by compiled programs. What a path
 * leads to is followed: a device, FIFO or descriptor is written to, a symbolic link keeps its
 * place, a regular file is replaced by one of the same mode. Until the commit nothing has a name,
 * where the file system can do that. Freestanding; functions return 0 or -errno. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OUTFILE_PATH = 4096 };

typedef struct FileId { /* two paths lead to one file when all three agree */
  uint64_t inode;
  uint32_t major, minor;
} FileId;

typedef enum OutFileKind {
  OUTFILE_CLOSED,
  OUTFILE_NEW,   /* nothing is at its path */
  OUTFILE_OLD,   /* a regular file is */
  OUTFILE_STREAM /* written through: stdout, a device, a FIFO, a descriptor's path */
} OutFileKind;

typedef struct OutFile {
  OutFileKind kind;
  int fd;      /* holds the contents until the commit; written by outfile_write or by others */
  int through; /* streams: a descriptor of ours that is meant, or -1: open the path */
  FileId id;   /* of what is there */
  volatile bool named;          /* `temporary` may exist */
  bool swapped;                 /* commit: the old file is under the temporary's name */
  char path[OUTFILE_PATH];      /* links followed */
  char temporary[OUTFILE_PATH]; /* beside it */
} OutFile;

/* Errors besides the system's: the path is one of `inputs`. */
enum { OUTFILE_E_INPUT = 4001 };

/* Regular file? Its identity; FIFOs, directories and the rest give -EINVAL (-EISDIR). */
long outfile_identify(const char *path, FileId *id);
bool outfile_same(const OutFile *a, const OutFile *b); /* would one replace the other? */
/* "-" is the standard output. `executable`: what is made may be run. */
long outfile_open(OutFile *f, const char *path, bool executable, const FileId *inputs, int n);
long outfile_write(OutFile *f, const void *data, size_t bytes);
/* Publishes all n files, or none; all are closed then. On failure *failed is the one that failed.
 */
long outfile_commit(OutFile *const *files, int n, int *failed);
void outfile_abort(OutFile *f);
/* What an error means, or NULL: its number has to do. */
const char *outfile_reason(long error);
/* Signals that end programs wait in between: for owners of named temporaries without a handler. */
uint64_t outfile_hold_signals(void);
void outfile_restore_signals(uint64_t old);
