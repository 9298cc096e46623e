/*
 * linear.c - see linear.h.
 */
#include "linear.h"
#include "base/clock.h"
#include <assert.h>

/* About 5 us of a fast core: long beside the cost of taking a piece, short beside a layer. */
enum { PIECE_WEIGHTS = 1 << 17 };

size_t mb_piece_rows(uint64_t n_rows, size_t n_cols)
{
    size_t rows = PIECE_WEIGHTS / n_cols, tile_rows = mb_tile_rows(n_cols);
    rows = rows < tile_rows ? tile_rows : rows / tile_rows * tile_rows;
    return rows > n_rows ? (size_t)n_rows : rows;
}

size_t mb_n_pieces(uint64_t n_rows, size_t n_cols)
{
    size_t rows = mb_piece_rows(n_rows, n_cols);
    return ((size_t)n_rows + rows - 1) / rows;
}

void mb_activate(const struct mb_kernels *kernels, unsigned forms, const float *x, size_t n,
                 const struct mb_activations *to, size_t i)
{
    size_t at = 2 * i * to->plane_nbytes;
    if ((forms & MB_EXACT_FORM) != 0)
        kernels->activation(x, n, to->planes + at, to->planes + at + to->plane_nbytes,
                            to->wide + i * to->wide_nbytes, &to->at[i]);
    if ((forms & MB_FAST_FORM) != 0)
        kernels->activation_fast(x, n, to->bytes + i * to->bytes_nbytes, to->fast_planes + at,
                                 to->fast_planes + at + to->plane_nbytes, to->fast_wide + i * to->wide_nbytes,
                                 &to->fast[i]);
}

unsigned mb_form_of(const struct mb_stage *stage, const struct mb_matrix *matrix)
{
    return !matrix->is_coded                                 ? 0
           : matrix->bits_per_weight <= stage->fast_bits_max ? MB_FAST_FORM
                                                             : MB_EXACT_FORM;
}

static void add_bias(const float *bias, size_t n_rows, size_t n_tokens, float *y, size_t y_stride,
                     const struct mb_float_ops *ops)
{
    for (size_t t = 0; t < n_tokens; t++)
        ops->add(bias, n_rows, y + t * y_stride);
}

void mb_linear_rows(const struct mb_stage *stage, const struct mb_linear *w, size_t row, size_t n_rows,
                    const struct mb_vectors *in, size_t n_tokens, float *y, size_t y_stride, void *scratch)
{
    const struct mb_matrix *m = w->matrix;
    bool is_fast = in->fast != NULL && mb_form_of(stage, m) == MB_FAST_FORM;
    const struct mb_activation *x = is_fast ? in->fast : in->activation;
    if (m->is_coded && n_tokens == 1)
        stage->kernels->matvec(&m->coded, row, n_rows, x, y);
    else if (m->is_coded)
        stage->kernels->matmul(&m->coded, row, n_rows, x, n_tokens, y, y_stride, scratch);
    else
        stage->ops->dense(m->dtype, (const uint8_t *)m->dense + row * m->n_cols * mb_dtype_nbytes(m->dtype),
                          m->n_cols, n_rows, m->n_cols, in->x, in->stride, n_tokens, y, y_stride);
    if (w->bias != NULL)
        add_bias(w->bias + row, n_rows, n_tokens, y, y_stride, stage->ops);
}

void mb_stage_begin(struct mb_stage *stage)
{
    stage->n_products = stage->n_pieces = 0;
}

static void add(struct mb_stage *stage, const struct mb_product *product)
{
    const struct mb_matrix *m = product->w->matrix;
    size_t rows = mb_piece_rows(m->n_rows, m->n_cols), n_pieces = mb_n_pieces(m->n_rows, m->n_cols);
    assert(stage->n_products < stage->n_products_max && stage->n_pieces + n_pieces <= stage->n_pieces_max);
    struct mb_product *p = &stage->products[stage->n_products];
    mb_stage_show(stage, product->w, &product->in, product->n_tokens);
    if (product->up != NULL)
        mb_stage_show(stage, product->up, &product->in, product->n_tokens);
    *p = *product;
    atomic_store_explicit(&p->n_pieces_left, (uint32_t)n_pieces, memory_order_relaxed);
    for (size_t row = 0; row < m->n_rows; row += rows)
        stage->pieces[stage->n_pieces++] =
            (struct mb_piece){(uint32_t)stage->n_products, (uint32_t)row,
                              (uint32_t)(m->n_rows - row < rows ? m->n_rows - row : rows)};
    stage->n_products++;
}

void mb_add_product(struct mb_stage *stage, const struct mb_linear *w, struct mb_vectors in, size_t n_tokens,
                    float *y)
{
    add(stage, &(struct mb_product){.w = w, .in = in, .n_tokens = n_tokens, .y = y});
}

void mb_add_gate_up(struct mb_stage *stage, const struct mb_linear *gate, const struct mb_linear *up,
                    const struct mb_linear *down, struct mb_vectors in, size_t n_tokens, float *y,
                    const struct mb_activations *out, unsigned out_forms, size_t out_first)
{
    add(stage, &(struct mb_product){.w = gate,
                                    .up = up,
                                    .in = in,
                                    .n_tokens = n_tokens,
                                    .y = y,
                                    .out = out,
                                    .out_first = out_first,
                                    .out_forms = out_forms,
                                    .reader = down});
}

/*
 * All rows are finished: makes them the integers that products of the next stage read.  y stays as it is:
 * plain matrices and watchers read that.
 */
static void finish_product(const struct mb_stage *stage, const struct mb_product *p,
                           struct mb_thread_scratch *scratch)
{
    const struct mb_matrix *reader = p->reader->matrix;
    const int8_t *exponents = reader->is_coded ? reader->coded.col_exponents : NULL;
    size_t n = (size_t)p->w->matrix->n_rows;
    for (size_t t = 0; t < p->n_tokens; t++) {
        const float *x = p->y + t * n;
        if (exponents != NULL) {
            mb_unscale_columns(exponents, x, n, scratch->up);
            x = scratch->up;
        }
        mb_activate(stage->kernels, p->out_forms, x, n, p->out, p->out_first + t);
    }
}

/* The hardware prefetches rows that follow those of the last product; others are prefetched here. */
static void prefetch_unless_next(const struct mb_linear *w, size_t row, bool is_next)
{
    if (!is_next && w->matrix->is_coded)
        mb_prefetch_rows(&w->matrix->coded, row);
}

/* Neighbouring pieces of one product, of n_rows rows in all. */
static void run_pieces(const struct mb_stage *stage, const struct mb_piece *piece, size_t n_pieces,
                       size_t n_rows, int thread)
{
    struct mb_thread_scratch *scratch = &stage->scratch[thread];
    const uint64_t begun_ns = stage->timeline.fn != NULL ? mb_now_ns() : 0;
    struct mb_product *p = &stage->products[piece->product];
    bool is_next = scratch->last_w == p->w->matrix && scratch->last_row == piece->row;
    scratch->last_w = p->w->matrix;
    scratch->last_row = piece->row + n_rows;
    size_t y_stride = (size_t)p->w->matrix->n_rows;
    float *y = p->y + piece->row;
    prefetch_unless_next(p->w, piece->row, is_next);
    mb_linear_rows(stage, p->w, piece->row, n_rows, &p->in, p->n_tokens, y, y_stride, scratch->coded);
    if (p->up != NULL) {
        prefetch_unless_next(p->up, piece->row, is_next);
        mb_linear_rows(stage, p->up, piece->row, n_rows, &p->in, p->n_tokens, scratch->up, n_rows,
                       scratch->coded);
        for (size_t t = 0; t < p->n_tokens; t++)
            stage->ops->silu_mul(y + t * y_stride, scratch->up + t * n_rows, n_rows);
    }
    if (p->out != NULL && atomic_fetch_sub(&p->n_pieces_left, (uint32_t)n_pieces) == n_pieces)
        finish_product(stage, p, scratch);
    if (stage->timeline.fn != NULL)
        mb_show_product(&stage->timeline, p, thread, begun_ns);
}

/* A call costs as much as some rows, so pieces of one product go together while scratch->up has room. */
static void run_span(void *ctx, size_t first, size_t n, int thread)
{
    const struct mb_stage *stage = ctx;
    for (size_t end = first + n; first < end;) {
        const struct mb_piece *piece = &stage->pieces[first];
        size_t n_max = stage->n_vectors_max / stage->products[piece->product].n_tokens, n_pieces = 0,
               n_rows = 0;
        while (first < end && n_pieces < n_max && stage->pieces[first].product == piece->product) {
            n_rows += stage->pieces[first++].n_rows;
            n_pieces++;
        }
        run_pieces(stage, piece, n_pieces, n_rows, thread);
    }
}

void mb_stage_run(struct mb_stage *stage)
{
    mb_pool_run_spans(stage->pool, stage->n_pieces, run_span, stage);
}
