/*
 * multiply.c - multiply one expert of a coded folder by a vector, from its coded form, and print the bound.
 *
 *     multiply CODED EXPERT      for example: multiply reference-coded model.layers.1.mlp.experts.0
 *
 * An expert is y = down (silu(gate x) * (up x)).  Its three matrices are in one blob, the tensor
 * "EXPERT.moebius".
 */
#include <math.h>
#include <moebius/moebius.h>
#include <stdio.h>
#include <stdlib.h>

static void stop(const char *message)
{
    fprintf(stderr, "multiply: %s\n", message);
    exit(1);
}

/* Memory for kernels: they want it at multiples of 64, and some readable bytes after it. */
static void *allocate(size_t nbytes)
{
    void *p = aligned_alloc(64, (nbytes + MB_SLACK_NBYTES + 63) / 64 * 64);
    if (p == NULL)
        stop("out of memory");
    return p;
}

/* y[n_rows] = W x, for x[n_cols]. */
static void multiply(const struct mb_coded_matrix *w, const float *x, float *y)
{
    const struct mb_kernels *kernels = mb_kernels(); /* the fastest that this CPU has */
    size_t plane_nbytes = mb_activation_plane_nbytes(w->n_cols);
    int8_t *hi = allocate(plane_nbytes), *lo = allocate(plane_nbytes);
    void *wide = allocate(mb_activation_wide_nbytes(w->n_cols));
    struct mb_activation activation;
    kernels->activation(x, w->n_cols, hi, lo, wide, &activation);
    kernels->matvec(w, 0, w->n_rows, &activation, y);
    free(hi);
    free(lo);
    free(wide);
}

static void run_expert(const struct mb_blob *blob)
{
    if (blob->n_matrices != 3)
        stop("the blob does not hold the three matrices of an expert");
    const struct mb_coded_matrix *gate = &blob->matrix[0], *up = &blob->matrix[1], *down = &blob->matrix[2];
    float *x = allocate(gate->n_cols * sizeof *x), *y = allocate(down->n_rows * sizeof *y);
    float *hidden = allocate(gate->n_rows * sizeof *hidden), *scale = allocate(up->n_rows * sizeof *scale);
    for (size_t i = 0; i < gate->n_cols; i++)
        x[i] = sinf((float)i);

    multiply(gate, x, hidden);
    multiply(up, x, scale);
    for (size_t i = 0; i < down->n_cols; i++)
        hidden[i] = hidden[i] / (1 + expf(-hidden[i])) * scale[i];
    multiply(down, hidden, y);

    printf("y = %g %g %g %g ... (%zu values)\n", y[0], y[1], y[2], y[3], (size_t)down->n_rows);
    free(x);
    free(y);
    free(hidden);
    free(scale);
}

int main(int argc, char **argv)
{
    char name[512];
    struct mb_error err;
    struct mb_checkpoint *ckpt;
    struct mb_blob blob;
    if (argc != 3)
        stop("usage: multiply CODED EXPERT");
    snprintf(name, sizeof name, "%s.moebius", argv[2]);

    if (mb_checkpoint_open(argv[1], &ckpt, &err) != MB_OK)
        stop(err.msg);
    const struct mb_tensor *tensor = mb_checkpoint_find(ckpt, name);
    if (tensor == NULL)
        stop("the folder has no expert of that name");
    uint8_t *bytes = allocate(tensor->nbytes);
    if (mb_checkpoint_read(ckpt, tensor, 0, bytes, tensor->nbytes, &err) != MB_OK ||
        mb_blob_open(bytes, tensor->nbytes, &blob, &err) != MB_OK)
        stop(err.msg);

    for (size_t i = 0; i < blob.n_matrices; i++)
        printf("%.*s: %zu x %zu, no weight further than %g from the original\n",
               (int)blob.info[i].name_nbytes, blob.info[i].name, (size_t)blob.info[i].n_rows,
               blob.info[i].n_cols, blob.info[i].eps);
    run_expert(&blob);

    mb_blob_close(&blob);
    free(bytes);
    mb_checkpoint_close(ckpt);
    return 0;
}
