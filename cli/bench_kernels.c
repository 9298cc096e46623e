/*
 * bench_kernels.c - "bench kernels": how fast this machine multiplies from the coded form, and encodes.
 *
 * Inside the window: the kernel call alone, on one thread, in its processor time (so that other programs'
 * turns do not count).  Outside: making weights, encoding them, filling memory, page faults.  All instruction
 * sets and the plain read of memory take turns, so that what disturbs the machine disturbs all of them;
 * figures are medians. "cache": the same 1408 x 2048 matrix again and again (or one of as many weights, with
 * other columns).  "dram": copies of it that fill a gigabyte.
 */
#include "base/error.h"
#include "cli.h"
#include "machine.h"
#include <jansson.h>
#include <math.h>
#include <moebius/codec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { N_WEIGHTS = 1408 * 2048, N_COLS_MAX = 8192 };
enum { N_ENCODED_WEIGHTS = 256 * 2048, N_TOKENS = 512, N_REPEATS_MAX = 101, N_ROWS_MAX = 256, N_ISAS = 8 };
enum { N_FORMS = 3 }; /* as stored, and the two of struct mb_resident_form */
/* Scalar code would take seconds for more. */
enum { N_TOKENS_SCALAR = 8 };

static const size_t token_counts[] = {1, 2, 4, 8, 16, 64, N_TOKENS};
static const double sigma_bounds[] = {0.5, 0.25, 0.167, 0.122};
static const char *const isas[N_ISAS] = {"scalar", "avx2", "avxvnni", "avx512",
                                         "zen4",   "neon", "dotprod", "i8mm"};

static struct {
    enum cli_format format;
    int n_repeats, memory_mb, n_cols;
} args;

static const struct cli_option options[] = {
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON, "table (default) or JSON"),
    CLI_ROW_INT('r', "repetitions", "N", args.n_repeats, 1, N_REPEATS_MAX,
                "times that everything is measured (default 5)"),
    CLI_ROW_INT(0, "columns", "N", args.n_cols, 1, N_COLS_MAX,
                "columns of the matrix, which has 2.9 M weights (default 2048)"),
    CLI_ROW_INT(0, "dram-mb", "N", args.memory_mb, 16, 1e6,
                "coded weights to read from memory, in MB (default 1000)"),
};

static const struct cli_command command = {
    .name = "bench kernels",
    .args = "[options]",
    .summary = "Time the codec's kernels on one thread, beside scalar code and a plain read of memory.",
    .details =
        "Gaussian weights (bf16, 1408 x 2048, or as many with other columns), bounds as eps/sigma. fused: y "
        "= W x from the coded "
        "form. matmul:\n"
        "the same for 1 to 512 vectors (weights/s counts every vector, and takes two products of bytes). "
        "matmul-fast:\n"
        "with fast activations (one product of bytes). encode: choice of widths and check included.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
};

/* ---------------------------------------------------------------- what is measured */

enum kind { FUSED, MATMUL, MATMUL_FAST, ENCODE, READ };
static const char *const kind_names[] = {"fused", "matmul", "matmul-fast", "encode", "read"};

struct row {
    enum kind kind;
    const struct mb_kernels *kernels; /* NULL: the plain read */
    size_t form;                      /* 0: as stored; else of memory alone, with form - 1 more bits */
    double sigma_bound;
    bool is_dram;
    size_t n_tokens;               /* of a matmul */
    double bits_per_weight;        /* everything included */
    double n_weights, nbytes;      /* of a call */
    size_t n_calls;                /* in a window */
    double seconds[N_REPEATS_MAX]; /* of a call */
};

/* Copies of a matrix in one form that fill their part of the memory. */
struct copies {
    uint8_t *memory;
    struct mb_coded_matrix *at; /* [n] */
    size_t nbytes, n, next;     /* nbytes: of each */
};

struct bench {
    size_t n_matrix_rows, n_cols, n_encoded_rows, directory_nbytes; /* the last at most */
    uint16_t *weights;                                              /* bf16 */
    double sum_abs;
    struct mb_coding coding;
    uint8_t *records, *directory, *encoded;
    size_t records_nbytes;
    struct mb_group *groups, *encoded_groups;
    void *view_memory;
    struct mb_coded_matrix w;
    void *map;
    uint8_t *memory;
    size_t map_nbytes;
    struct copies copies[N_FORMS]; /* of what a view needs, directory and records; n is 0: no such form */
    float *x, *y;
    int8_t *planes;
    struct mb_activation activations[N_TOKENS], fast_activations[N_TOKENS];
    void *scratch;
    volatile uint64_t sink; /* what was read is used */
    struct row rows[N_ROWS_MAX];
    size_t n_rows;
};

static size_t n_groups_of(const struct bench *bench)
{
    return bench->n_matrix_rows / mb_group_rows(bench->n_cols);
}

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double uniform(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (double)((*state >> 11) + 1) * 0x1p-53;
}

static double normal(uint64_t *state)
{
    double radius = sqrt(-2 * log(uniform(state)));
    return radius * cos(6.283185307179586 * uniform(state));
}

static uint16_t bf16_of(double v)
{
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void free_bench(struct bench *bench)
{
    free(bench->weights);
    free(bench->records);
    free(bench->directory);
    free(bench->encoded);
    free(bench->groups);
    free(bench->encoded_groups);
    free(bench->view_memory);
    for (size_t i = 0; i < N_FORMS; i++)
        free(bench->copies[i].at);
    free(bench->x);
    free(bench->y);
    free(bench->planes);
    free(bench->scratch);
    if (bench->map != NULL)
        munmap(bench->map, bench->map_nbytes);
    free(bench);
}

static size_t copies_nbytes(void)
{
    return (size_t)args.memory_mb * 1000000;
}

/* Enough for all tables. */
static size_t scratch_nbytes(size_t n_cols)
{
    size_t most = 0;
    for (size_t i = 0; i < N_ISAS; i++) {
        const struct mb_kernels *kernels = mb_kernels_by_isa(isas[i]);
        size_t nbytes = kernels == NULL ? 0 : kernels->matmul_scratch_nbytes(n_cols);
        most = nbytes > most ? nbytes : most;
    }
    return most;
}

static bool allocate(struct bench *bench)
{
    size_t bound = mb_encode_bound(MB_BF16, bench->n_matrix_rows, bench->n_cols) + MB_SLACK_NBYTES;
    const size_t plane_nbytes = mb_activation_plane_nbytes(bench->n_cols);
    const struct mb_blob_matrix shape = {
        .form = MB_FORM_PATCHED, .n_rows = bench->n_matrix_rows, .n_cols = bench->n_cols};
    bench->weights = malloc(bench->n_matrix_rows * bench->n_cols * sizeof *bench->weights);
    bench->records = malloc(bound);
    bench->directory = calloc(1, bench->directory_nbytes + MB_SLACK_NBYTES);
    bench->encoded = malloc(mb_encode_bound(MB_BF16, bench->n_encoded_rows, bench->n_cols));
    bench->groups = calloc(bench->n_matrix_rows, sizeof *bench->groups);
    bench->encoded_groups = calloc(bench->n_encoded_rows, sizeof *bench->encoded_groups);
    bench->view_memory = malloc(mb_coded_view_nbytes(&shape));
    bench->x = malloc(N_TOKENS * bench->n_cols * sizeof *bench->x);
    bench->y = malloc(N_TOKENS * bench->n_matrix_rows * sizeof *bench->y);
    bench->planes =
        aligned_alloc(64, N_TOKENS * (4 * plane_nbytes + mb_activation_fast_nbytes(bench->n_cols) +
                                      2 * mb_activation_wide_nbytes(bench->n_cols)) +
                              MB_SLACK_NBYTES);
    bench->scratch = aligned_alloc(64, (scratch_nbytes(bench->n_cols) + 63) / 64 * 64);
    return cli_map_memory(copies_nbytes() + MB_SLACK_NBYTES, &bench->map, &bench->map_nbytes,
                          &bench->memory) &&
           bench->weights != NULL && bench->records != NULL && bench->directory != NULL &&
           bench->encoded != NULL && bench->groups != NULL && bench->encoded_groups != NULL &&
           bench->view_memory != NULL && bench->x != NULL && bench->y != NULL && bench->planes != NULL &&
           bench->scratch != NULL;
}

/* A table that has a form of its own for matrices in memory, or NULL. */
static const struct mb_kernels *resident_table(void)
{
    for (size_t i = 0; i < N_ISAS; i++) {
        const struct mb_kernels *kernels = mb_kernels_by_isa(isas[i]);
        if (kernels != NULL && kernels->resident != NULL)
            return kernels;
    }
    return NULL;
}

static void fill(struct bench *bench)
{
    /* All tables make the same activations, but one adds what its own form needs. */
    const size_t plane_nbytes = mb_activation_plane_nbytes(bench->n_cols);
    const struct mb_kernels *maker = resident_table() != NULL ? resident_table() : mb_kernels();
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < bench->n_matrix_rows * bench->n_cols; i++)
        bench->weights[i] = bf16_of(normal(&state));
    for (size_t i = 0; i < N_TOKENS * bench->n_cols; i++)
        bench->x[i] = (float)normal(&state);
    const size_t wide_nbytes = mb_activation_wide_nbytes(bench->n_cols);
    const size_t fast_nbytes = mb_activation_fast_nbytes(bench->n_cols);
    int8_t *bytes = bench->planes + 4 * N_TOKENS * plane_nbytes, *wide = bytes + N_TOKENS * fast_nbytes;
    for (size_t t = 0; t < N_TOKENS; t++, wide += 2 * wide_nbytes, bytes += fast_nbytes) {
        const float *x = bench->x + t * bench->n_cols;
        int8_t *hi = bench->planes + t * 2 * plane_nbytes, *fast_hi = hi + 2 * N_TOKENS * plane_nbytes;
        maker->activation(x, bench->n_cols, hi, hi + plane_nbytes, wide, &bench->activations[t]);
        maker->activation_fast(x, bench->n_cols, bytes, fast_hi, fast_hi + plane_nbytes, wide + wide_nbytes,
                               &bench->fast_activations[t]);
    }
}

static bool begin_copies(struct copies *copies, uint8_t *memory, size_t memory_nbytes, size_t copy_nbytes)
{
    free(copies->at);
    *copies = (struct copies){.memory = memory, .nbytes = (copy_nbytes + 63) / 64 * 64};
    copies->n = memory_nbytes / copies->nbytes;
    copies->at = calloc(copies->n, sizeof *copies->at);
    return copies->at != NULL;
}

static bool copy_stored(struct bench *bench, const struct mb_blob_matrix *info, size_t memory_nbytes)
{
    const size_t view_nbytes = mb_coded_view_nbytes(info);
    struct copies *copies = &bench->copies[0];
    if (!begin_copies(copies, bench->memory, memory_nbytes,
                      view_nbytes + bench->directory_nbytes + bench->records_nbytes))
        return false;
    for (size_t i = 0; i < copies->n; i++) {
        uint8_t *memory = copies->memory + i * copies->nbytes, *directory = memory + view_nbytes;
        uint8_t *records = directory + bench->directory_nbytes;
        memcpy(directory, bench->directory, bench->directory_nbytes);
        memcpy(records, bench->records, bench->records_nbytes);
        copies->at[i] = mb_coded_view(info, records, directory, memory);
    }
    return true;
}

/* One is made; the others are copies of it. */
static bool copy_resident(struct bench *bench, size_t form, const struct mb_resident_form *resident,
                          size_t memory_nbytes)
{
    void *made = malloc(resident->nbytes_max(&bench->w));
    struct copies *copies = &bench->copies[form];
    if (made == NULL)
        return false;
    uint64_t nbytes = resident->make(&bench->w, (unsigned)form - 1, made);
    bool ok = begin_copies(copies, bench->memory + form * memory_nbytes, memory_nbytes, nbytes);
    for (size_t i = 0; ok && i < copies->n; i++) {
        void *place = memcpy(copies->memory + i * copies->nbytes, made, nbytes);
        copies->at[i] = resident->view(&bench->w, place, nbytes);
    }
    free(made);
    return ok;
}

/* Nothing of a copy is in the cache, as in a model's next matrix. */
static enum mb_status make_copies(struct bench *bench, const struct mb_blob_matrix *info)
{
    const struct mb_kernels *table = resident_table();
    size_t memory_nbytes = copies_nbytes() / (table == NULL ? 1 : N_FORMS) / 64 * 64;
    bool ok = copy_stored(bench, info, memory_nbytes);
    for (size_t form = 1; ok && table != NULL && form < N_FORMS; form++)
        ok = copy_resident(bench, form, table->resident, memory_nbytes);
    return ok ? MB_OK : MB_NO_MEMORY;
}

/* The matrix at a bound, and copies of it. */
static enum mb_status code(struct bench *bench, double sigma_bound)
{
    bench->coding = (struct mb_coding){
        MB_BF16, MB_FORM_PATCHED, bench->n_cols, sigma_bound, mb_step_of_eps(sigma_bound), NULL};
    enum mb_status status =
        mb_encode_rows(&bench->coding, bench->weights, bench->n_matrix_rows, bench->records,
                       mb_encode_bound(MB_BF16, bench->n_matrix_rows, bench->n_cols), &bench->records_nbytes,
                       bench->groups, NULL);
    if (status != MB_OK)
        return status;
    mb_directory_write(MB_FORM_PATCHED, bench->groups, n_groups_of(bench), bench->directory);
    const struct mb_blob_matrix info = {
        .dtype = MB_BF16,
        .form = MB_FORM_PATCHED,
        .n_rows = bench->n_matrix_rows,
        .n_cols = bench->n_cols,
        .eps = sigma_bound,
        .step = bench->coding.step,
        .data_nbytes = bench->records_nbytes,
        .directory_nbytes = mb_directory_nbytes(MB_FORM_PATCHED, bench->groups, n_groups_of(bench)),
    };
    bench->w = mb_coded_view(&info, bench->records, bench->directory, bench->view_memory);
    return make_copies(bench, &info);
}

/* ---------------------------------------------------------------- calls */

static void call(struct bench *bench, const struct row *row)
{
    struct copies *copies = &bench->copies[row->form];
    const struct mb_coded_matrix *w = row->is_dram     ? &copies->at[copies->next]
                                      : row->form == 0 ? &bench->w
                                                       : &copies->at[0];
    const uint8_t *copy = copies->memory + copies->next * copies->nbytes;
    size_t nbytes;
    if (row->is_dram)
        copies->next = (copies->next + 1) % copies->n;
    switch (row->kind) {
    case FUSED:
        row->kernels->matvec(w, 0, bench->n_matrix_rows, &bench->activations[0], bench->y);
        break;
    case MATMUL:
    case MATMUL_FAST:
        row->kernels->matmul(w, 0, bench->n_matrix_rows,
                             row->kind == MATMUL ? bench->activations : bench->fast_activations,
                             row->n_tokens, bench->y, bench->n_matrix_rows, bench->scratch);
        break;
    case ENCODE:
        row->kernels->encode_rows(&bench->coding, bench->weights, bench->n_encoded_rows, bench->encoded,
                                  mb_encode_bound(MB_BF16, bench->n_encoded_rows, bench->n_cols), &nbytes,
                                  bench->encoded_groups, NULL);
        break;
    case READ:
        bench->sink += cli_read_bytes(copy, copies->nbytes);
        break;
    }
}

static double time_calls(struct bench *bench, const struct row *row)
{
    double begun = thread_seconds();
    for (size_t i = 0; i < row->n_calls; i++)
        call(bench, row);
    return (thread_seconds() - begun) / (double)row->n_calls;
}

/* A window is 20 ms from cache; from memory all copies, or 200 ms. */
static void calibrate(struct bench *bench, struct row *row)
{
    row->n_calls = 1;
    time_calls(bench, row);
    double n_calls = (row->is_dram ? 0.2 : 0.02) / time_calls(bench, row);
    if (row->is_dram && n_calls > (double)bench->copies[row->form].n)
        n_calls = (double)bench->copies[row->form].n;
    row->n_calls = n_calls < 1 ? 1 : (size_t)n_calls;
}

static void add_row(struct bench *bench, enum kind kind, const struct mb_kernels *kernels, size_t form,
                    bool is_dram, size_t n_tokens)
{
    double n_weights = (double)bench->n_matrix_rows * (double)bench->n_cols;
    double coded = form > 0
                       ? (double)mb_coded_nbytes(&bench->copies[form].at[0])
                       : (double)(bench->records_nbytes +
                                  mb_directory_nbytes(MB_FORM_PATCHED, bench->groups, n_groups_of(bench)));
    struct row row = {
        .kind = kind, .kernels = kernels, .form = form, .is_dram = is_dram, .n_tokens = n_tokens};
    row.sigma_bound = bench->coding.eps;
    row.bits_per_weight = kind == READ ? 0 : 8 * coded / n_weights;
    row.n_weights = kind == READ     ? 0
                    : kind == ENCODE ? (double)bench->n_encoded_rows * (double)bench->n_cols
                    : n_tokens > 0   ? n_weights * (double)n_tokens
                                     : n_weights;
    row.nbytes = kind == READ     ? (double)bench->copies[0].nbytes
                 : kind == ENCODE ? (double)bench->n_encoded_rows * (double)bench->n_cols * 2
                                  : coded;
    bench->rows[bench->n_rows++] = row;
}

struct measured {
    struct cli_progress progress;
    uint64_t n_rounds_done, n_rounds;
};

static void show(struct measured *measured, double sigma_bound)
{
    char what[32];
    snprintf(what, sizeof what, "%.3g sigma", sigma_bound);
    cli_progress_show(&measured->progress, what, measured->n_rounds_done++, measured->n_rounds);
}

/* Adds the rows of one bound and measures them in turns. */
static void measure_bound(struct bench *bench, bool with_matmul, struct measured *measured)
{
    size_t first = bench->n_rows;
    for (size_t i = 0; i < N_ISAS; i++) {
        const struct mb_kernels *kernels = mb_kernels_by_isa(isas[i]);
        if (kernels == NULL)
            continue;
        for (size_t form = 0; form < (kernels->resident == NULL ? 1 : N_FORMS); form++) {
            add_row(bench, FUSED, kernels, form, false, 0);
            add_row(bench, FUSED, kernels, form, true, 0);
        }
        for (size_t form = 0; with_matmul && form < (kernels->resident == NULL ? 1 : N_FORMS); form++)
            for (size_t k = 0; k < sizeof token_counts / sizeof *token_counts; k++)
                if (kernels != mb_kernels_by_isa("scalar") || token_counts[k] <= N_TOKENS_SCALAR) {
                    add_row(bench, MATMUL, kernels, form, false, token_counts[k]);
                    add_row(bench, MATMUL_FAST, kernels, form, false, token_counts[k]);
                }
        add_row(bench, ENCODE, kernels, 0, false, 0);
    }
    add_row(bench, READ, NULL, 0, true, 0);
    for (size_t i = first; i < bench->n_rows; i++)
        calibrate(bench, &bench->rows[i]);
    for (int k = 0; k < args.n_repeats; k++) {
        show(measured, bench->coding.eps);
        for (size_t i = first; i < bench->n_rows; i++) {
            struct row *row = &bench->rows[i];
            if (!row->is_dram) /* the last window threw its matrix out of the cache */
                call(bench, row);
            row->seconds[k] = time_calls(bench, row);
        }
    }
}

/* ---------------------------------------------------------------- output */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sort_times(struct bench *bench)
{
    for (size_t i = 0; i < bench->n_rows; i++)
        qsort(bench->rows[i].seconds, (size_t)args.n_repeats, sizeof(double), compare_doubles);
}

static double median(const struct row *row)
{
    size_t n = (size_t)args.n_repeats;
    return (row->seconds[n / 2] + row->seconds[(n - 1) / 2]) / 2;
}

/* The plain read that took turns with a row. */
static const struct row *read_beside(const struct bench *bench, const struct row *row)
{
    for (size_t i = 0; i < bench->n_rows; i++)
        if (bench->rows[i].kind == READ && bench->rows[i].sigma_bound == row->sigma_bound)
            return &bench->rows[i];
    return row;
}

static double share_of_read(const struct bench *bench, const struct row *row)
{
    const struct row *read = read_beside(bench, row);
    return row->nbytes / median(row) / (read->nbytes / median(read));
}

static void number_cell(struct cli_table *table, bool is_given, int digits, double value)
{
    if (is_given)
        cli_table_cell(table, "%.*f", digits, value);
    else
        cli_table_cell(table, "%s", "");
}

static const char *const form_names[N_FORMS] = {"stored", "compact", "fast"};

static void print_table(const struct bench *bench)
{
    char cpu[128];
    cli_cpu_name(cpu);
    printf("%s, commit %s, 1 thread, %d repetitions: medians (best)\n\n", cpu, cli_commit, args.n_repeats);
    static const char *const heads[] = {"kernel", "isa",    "form",        "eps/sigma",
                                        "source", "tokens", "bits/weight", "G weights/s",
                                        "best",   "GB/s",   "% of read"};
    struct cli_table *table = cli_table_new("lllrlrrrrrr", heads);
    for (size_t i = 0; i < bench->n_rows; i++) {
        const struct row *row = &bench->rows[i];
        cli_table_cell(table, "%s", kind_names[row->kind]);
        cli_table_cell(table, "%s", row->kernels == NULL ? "" : row->kernels->isa);
        cli_table_cell(table, "%s", row->kernels == NULL ? "" : form_names[row->form]);
        cli_table_cell(table, "%.3g", row->sigma_bound);
        cli_table_cell(table, "%s", row->is_dram ? "dram" : "cache");
        number_cell(table, row->n_tokens > 0, 0, (double)row->n_tokens);
        number_cell(table, row->kind != READ, 3, row->bits_per_weight);
        number_cell(table, row->kind != READ, 2, row->n_weights / median(row) * 1e-9);
        number_cell(table, row->kind != READ, 2, row->n_weights / row->seconds[0] * 1e-9);
        number_cell(table, true, 2, row->nbytes / median(row) * 1e-9);
        number_cell(table, row->is_dram, 0, 100 * share_of_read(bench, row));
    }
    cli_table_print(table);
}

static json_t *row_as_json(const struct bench *bench, const struct row *row)
{
    json_t *json =
        json_pack("{s:s, s:s?, s:f, s:s, s:f, s:f}", "kernel", kind_names[row->kind], "isa",
                  row->kernels == NULL ? NULL : row->kernels->isa, "eps_over_sigma", row->sigma_bound,
                  "source", row->is_dram ? "dram" : "cache", "gbytes_per_s", row->nbytes / median(row) * 1e-9,
                  "gbytes_per_s_best", row->nbytes / row->seconds[0] * 1e-9);
    if (row->kind != READ) {
        json_object_set_new(json, "form", json_string(form_names[row->form]));
        json_object_set_new(json, "gweights_per_s", json_real(row->n_weights / median(row) * 1e-9));
        json_object_set_new(json, "gweights_per_s_best", json_real(row->n_weights / row->seconds[0] * 1e-9));
        json_object_set_new(json, "bits_per_weight", json_real(row->bits_per_weight));
    }
    if (row->is_dram)
        json_object_set_new(json, "share_of_memory_read", json_real(share_of_read(bench, row)));
    if (row->n_tokens > 0)
        json_object_set_new(json, "n_tokens", json_integer((json_int_t)row->n_tokens));
    return json;
}

static void print_json(const struct bench *bench)
{
    char cpu[128];
    cli_cpu_name(cpu);
    json_t *rows = json_array();
    for (size_t i = 0; i < bench->n_rows; i++)
        json_array_append_new(rows, row_as_json(bench, &bench->rows[i]));
    json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:o}", "cpu", cpu, "commit", cli_commit, "n_threads", 1,
                             "n_repetitions", args.n_repeats, "rows", rows);
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(root);
}

static int fail_memory(void)
{
    struct mb_error err;
    mb_error_set(&err, MB_NO_MEMORY, "no memory for %d MB of coded weights: give a smaller --dram-mb",
                 args.memory_mb);
    return cli_fail(&err);
}

/* Whole row groups, as the encoder takes them. */
static size_t rows_of(size_t n_weights, size_t n_cols)
{
    size_t group_rows = mb_group_rows(n_cols);
    return n_weights / n_cols / group_rows * group_rows;
}

/* All rows, bound by bound. */
static enum mb_status measure(struct bench *bench)
{
    size_t n_bounds = sizeof sigma_bounds / sizeof *sigma_bounds;
    struct measured measured = {.n_rounds = n_bounds * (size_t)args.n_repeats};
    enum mb_status status = MB_OK;
    cli_progress_begin(&measured.progress, "rounds");
    for (size_t i = 0; i < n_bounds && status == MB_OK; i++) {
        status = code(bench, sigma_bounds[i]);
        if (status == MB_OK)
            measure_bound(bench, i + 1 == n_bounds, &measured);
    }
    cli_progress_end(&measured.progress);
    return status;
}

static int run(struct bench *bench)
{
    bench->n_cols = (size_t)args.n_cols;
    bench->n_matrix_rows = rows_of(N_WEIGHTS, bench->n_cols);
    bench->n_encoded_rows = rows_of(N_ENCODED_WEIGHTS, bench->n_cols);
    bench->directory_nbytes = 5 * bench->n_matrix_rows;
    if (!allocate(bench))
        return fail_memory();
    fill(bench);
    enum mb_status status = measure(bench);
    if (status == MB_NO_MEMORY)
        return fail_memory();
    if (status != MB_OK) { /* these weights are finite and the buffers large enough: our fault */
        fprintf(stderr, "moebius: the encoder failed on benchmark weights (%d)\n", (int)status);
        return mb_status_exit_code(status);
    }
    sort_times(bench);
    (args.format == CLI_JSON ? print_json : print_table)(bench);
    return 0;
}

int cli_bench_kernels(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    args.format = CLI_MD;
    args.n_repeats = 5;
    args.memory_mb = 1000;
    args.n_cols = 2048;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    struct bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL)
        return mb_status_exit_code(MB_NO_MEMORY);
    exit_status = run(bench);
    free_bench(bench);
    return exit_status;
}
