/*
 * linear.h - products of one or many matrices with one or many vectors, split over all threads.
 *
 * A *product* is y = W x (+ bias) for some vectors, or, with two matrices, y = silu(W x) * (U x): an MLP's
 * gate and up half.  A *stage* is a list of products that do not depend on one another; its rows are cut into
 * pieces that all threads take in turn, so that no thread waits while another has a queue.
 */
#ifndef MB_MODEL_LINEAR_H
#define MB_MODEL_LINEAR_H

#include "base/pool.h"
#include "float_ops.h"
#include <moebius/weights.h>
#include <stdatomic.h>

/* Which matrix of the model one is. */
struct mb_matrix_place {
    int id;               /* enum mb_weight_id */
    size_t layer, expert; /* as far as it has them */
};

struct mb_linear {
    const struct mb_matrix *matrix;
    float *bias; /* [n_rows] or NULL */
    struct mb_matrix_place place;
};

/*
 * Vectors of one length: floats, and what coded products see of them (activation is NULL in models without
 * coded matrices).  Rows of x are 'stride' apart.  'fast': the same as fast activations; NULL: no product
 * takes these.
 */
struct mb_vectors {
    const float *x;
    size_t stride;
    const struct mb_activation *activation, *fast;
};

/* The forms that the readers of a vector take. */
enum { MB_EXACT_FORM = 1, MB_FAST_FORM = 2 };

/* Where products with coded matrices find their vectors: each as exact and as fast activation, as needed. */
struct mb_activations {
    struct mb_activation *at, *fast; /* [n] fast: NULL where they are always exact */
    int8_t *planes, *fast_planes;    /* [n][2][plane_nbytes] */
    uint8_t *wide, *fast_wide;       /* [n][wide_nbytes] touched for vectors with outliers alone */
    int8_t *bytes;                   /* [n][bytes_nbytes] of the fast ones */
    size_t plane_nbytes, wide_nbytes, bytes_nbytes;
};

/* Activations of n vectors of n_values, in 'memory' of so many bytes: 64-byte aligned, or NULL to be set. */
static inline size_t mb_activations_nbytes(size_t n, size_t n_values)
{
    return n * (2 * mb_activation_plane_nbytes(n_values) + mb_activation_wide_nbytes(n_values));
}

static inline struct mb_activations mb_activations_in(struct mb_activation *at, void *memory, size_t n,
                                                      size_t n_values)
{
    struct mb_activations a = {.at = at,
                               .planes = memory,
                               .plane_nbytes = mb_activation_plane_nbytes(n_values),
                               .wide_nbytes = mb_activation_wide_nbytes(n_values)};
    a.wide = memory == NULL ? NULL : (uint8_t *)memory + 2 * n * a.plane_nbytes;
    return a;
}

struct mb_product {
    const struct mb_linear *w, *up; /* up: NULL, or of the same shape as w */
    struct mb_vectors in;
    size_t n_tokens;
    float *y;                         /* y[t * rows of w + r] */
    const struct mb_activations *out; /* NULL, or filled with the finished vectors of y */
    size_t out_first;
    unsigned out_forms;
    const struct mb_linear *reader; /* the matrix that reads 'out' */
    _Atomic uint32_t n_pieces_left;
};

struct mb_piece {
    uint32_t product, row, n_rows;
};

/* What a thread needs for itself. */
struct mb_thread_scratch {
    void *coded;      /* of matmul and matvec_transposed, 64-byte aligned */
    float *up;        /* [tokens of a pass][rows of a piece], or rows of an 'up' if that is more */
    float *attention; /* of attention, see attention.h */
    int8_t *planes;   /* of activations that are made within attention */
    const struct mb_matrix *last_w; /* the matrix of the last product, and the row after that product */
    size_t last_row;
};

/* Sees vectors that a product with a matrix is about to read. */
typedef void (*mb_watch_fn)(void *ctx, const struct mb_linear *w, const struct mb_vectors *in,
                            size_t n_tokens);

struct mb_stage {
    const struct mb_kernels *kernels;
    double fast_bits_max; /* coded matrices of at most so many bits a weight take fast activations */
    const struct mb_float_ops *ops;
    struct mb_pool *pool;
    struct mb_thread_scratch *scratch; /* [threads] */
    struct mb_product *products;
    struct mb_piece *pieces;
    size_t n_products, n_products_max, n_pieces, n_pieces_max;
    size_t n_vectors_max; /* of a product */
    struct mb_timeline timeline;
    mb_watch_fn watch; /* NULL: nobody looks */
    void *watch_ctx;
};

/* Rows of a piece: about 128 Ki weights, and whole tiles of the coded form, whatever form the matrix has. */
size_t mb_piece_rows(uint64_t n_rows, size_t n_cols);

/* Pieces of a product with a matrix of this shape. */
size_t mb_n_pieces(uint64_t n_rows, size_t n_cols);

void mb_stage_begin(struct mb_stage *stage);

/* Shows vectors that a matrix reads to who watches; for products that no stage has. */
static inline void mb_stage_show(const struct mb_stage *stage, const struct mb_linear *w,
                                 const struct mb_vectors *in, size_t n_tokens)
{
    if (stage->watch != NULL)
        stage->watch(stage->watch_ctx, w, in, n_tokens);
}

/* Adds y[t * rows of w + r] = W x_t (+ bias) for n_tokens vectors. */
void mb_add_product(struct mb_stage *stage, const struct mb_linear *w, struct mb_vectors in, size_t n_tokens,
                    float *y);

/*
 * Adds y = silu(W x) * (U x) in the same form; finished vectors also go to 'out' as 'down' reads them: in
 * out_forms, from index out_first on, and x_j 2^-e_j in place of x_j where its columns have exponents.
 */
void mb_add_gate_up(struct mb_stage *stage, const struct mb_linear *gate, const struct mb_linear *up,
                    const struct mb_linear *down, struct mb_vectors in, size_t n_tokens, float *y,
                    const struct mb_activations *out, unsigned out_forms, size_t out_first);

void mb_stage_run(struct mb_stage *stage);

/* Rows [row, row + n_rows) of one product on the calling thread, bias included: y[t * y_stride + i] is row +
 * i. */
void mb_linear_rows(const struct mb_stage *stage, const struct mb_linear *w, size_t row, size_t n_rows,
                    const struct mb_vectors *in, size_t n_tokens, float *y, size_t y_stride, void *scratch);

/* Tells the timeline, whose fn is not NULL, of rows of a product that a thread has finished (timeline.c). */
void mb_show_product(const struct mb_timeline *timeline, const struct mb_product *product, int thread,
                     uint64_t begun_ns);

/* Fills entry i of 'to' from x[n], in the forms that are wanted. */
void mb_activate(const struct mb_kernels *kernels, unsigned forms, const float *x, size_t n,
                 const struct mb_activations *to, size_t i);

/* The form that a matrix takes; 0: it is not coded. */
unsigned mb_form_of(const struct mb_stage *stage, const struct mb_matrix *matrix);

#endif
