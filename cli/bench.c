/*
 * bench.c - the verb "bench": what is to be timed decides which file does it.
 */
#include "cli.h"
#include <string.h>

int cli_bench(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "kernels") == 0)
        return cli_bench_kernels(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "codecs") == 0)
        return cli_bench_codecs(argc - 1, argv + 1);
    return cli_bench_model(argc, argv);
}
