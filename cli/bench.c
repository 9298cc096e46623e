/*
 * bench.c - the verb "bench": what is to be timed decides which file does it.
 */
#include "cli.h"
#include <stdio.h>
#include <string.h>

int cli_bench(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "kernels") == 0)
        return cli_bench_kernels(argc - 1, argv + 1);
    bool help = argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    fputs("usage: moebius bench kernels [options]\n\nmoebius bench kernels --help tells more.\n",
          help ? stdout : stderr);
    return help ? 0 : 2;
}
