/* Starting the tools that burin needs: the linker, and a compiler for target cuda:host. */
#pragma once

/* Runs the first of `names` that is found on the path, with argv (whose first word is set to it), and
 * waits. in, out, log: its descriptors 0, 1, 2; in -1: nothing to read, log -1: the caller's. Its
 * status, 128 and the signal that ended it, or -errno when it could not be started; -ENOENT or 127:
 * there is none. */
int spawn_tool(const char *const *names, int n, char **argv, int in, int out, int log);
