/*
 * resident.c - makes matrices in scratch memory, and packs them.
 *
 * How long a matrix gets is known only when it has been made.  So each thread makes it in memory of its own,
 * takes as many bytes of a chunk, and copies it there.  Chunks are large, so that pages of 2 MiB pay.
 */
#include "resident.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_NBYTES = 64 << 20, LINE_NBYTES = 64 };

struct chunk {
    struct chunk *before;
    uint64_t nbytes, n_used;
    uint8_t *bytes;
};

struct scratch {
    uint8_t *bytes;
    uint64_t nbytes;
};

struct thread_memory {
    struct scratch read, made;
};

struct mb_resident {
    const struct mb_resident_form *form;
    unsigned n_more_bits;
    int n_threads;
    struct thread_memory *threads; /* [n_threads] */
    pthread_mutex_t lock;          /* of the chunks */
    struct chunk *chunks;          /* the last one first */
    uint64_t nbytes;               /* that matrices take */
};

enum mb_status mb_resident_create(const struct mb_resident_form *form, unsigned n_more_bits, int n_threads,
                                  struct mb_resident **resident, struct mb_error *err)
{
    struct mb_resident *made = calloc(1, sizeof *made);
    if (made == NULL)
        return mb_fail_memory(err, "the weights of the model");
    made->form = form;
    made->n_more_bits = n_more_bits;
    made->n_threads = n_threads;
    made->threads = calloc((size_t)n_threads, sizeof *made->threads);
    pthread_mutex_init(&made->lock, NULL);
    if (made->threads == NULL) {
        mb_resident_free(made);
        return mb_fail_memory(err, "the weights of the model");
    }
    *resident = made;
    return MB_OK;
}

void mb_resident_end(struct mb_resident *resident)
{
    for (int i = 0; i < resident->n_threads && resident->threads != NULL; i++) {
        mb_pages_free(resident->threads[i].read.bytes, resident->threads[i].read.nbytes);
        mb_pages_free(resident->threads[i].made.bytes, resident->threads[i].made.nbytes);
    }
    free(resident->threads);
    resident->threads = NULL;
}

void mb_resident_free(struct mb_resident *resident)
{
    if (resident == NULL)
        return;
    mb_resident_end(resident);
    for (struct chunk *chunk = resident->chunks, *before; chunk != NULL; chunk = before) {
        before = chunk->before;
        mb_pages_free(chunk->bytes, chunk->nbytes);
        free(chunk);
    }
    pthread_mutex_destroy(&resident->lock);
    free(resident);
}

/* Pages that are touched only as far as they are used. */
static uint8_t *grow(struct scratch *scratch, uint64_t nbytes)
{
    if (nbytes <= scratch->nbytes)
        return scratch->bytes;
    mb_pages_free(scratch->bytes, scratch->nbytes);
    *scratch = (struct scratch){mb_sparse_alloc(nbytes), 0};
    if (scratch->bytes != NULL)
        scratch->nbytes = nbytes;
    return scratch->bytes;
}

uint8_t *mb_resident_scratch(struct mb_resident *resident, int thread, uint64_t nbytes)
{
    return grow(&resident->threads[thread].read, nbytes);
}

static bool add_chunk(struct mb_resident *resident, uint64_t nbytes)
{
    struct chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL)
        return false;
    *chunk = (struct chunk){resident->chunks, nbytes, 0, mb_pages_alloc(nbytes)};
    if (chunk->bytes == NULL) {
        free(chunk);
        return false;
    }
    resident->chunks = chunk;
    return true;
}

/* Bytes of the last chunk, or of a new one. */
static uint8_t *take(struct mb_resident *resident, uint64_t nbytes)
{
    uint8_t *bytes = NULL;
    nbytes = mb_round_up(nbytes, LINE_NBYTES);
    pthread_mutex_lock(&resident->lock);
    const struct chunk *last = resident->chunks;
    if ((last != NULL && nbytes <= last->nbytes - last->n_used) || add_chunk(resident, CHUNK_NBYTES)) {
        bytes = resident->chunks->bytes + resident->chunks->n_used;
        resident->chunks->n_used += nbytes;
        resident->nbytes += nbytes;
    }
    pthread_mutex_unlock(&resident->lock);
    return bytes;
}

static uint64_t exponents_nbytes(const struct mb_coded_matrix *matrix)
{
    return matrix->col_exponents == NULL ? 0 : matrix->n_cols;
}

/* The form does not know of exponents: they come after it. */
static uint64_t make(const struct mb_resident *resident, const struct mb_coded_matrix *matrix, uint8_t *place)
{
    uint64_t nbytes = resident->form->make(matrix, resident->n_more_bits, place);
    if (matrix->col_exponents != NULL)
        memcpy(place + nbytes, matrix->col_exponents, matrix->n_cols);
    return nbytes + exponents_nbytes(matrix);
}

/* A large matrix is made where it stays: in pages of its own, of which it touches only what it needs. */
static uint8_t *make_in_place(struct mb_resident *resident, const struct mb_coded_matrix *matrix,
                              uint64_t nbytes_max, uint64_t *nbytes)
{
    uint8_t *place = NULL;
    pthread_mutex_lock(&resident->lock);
    if (add_chunk(resident, nbytes_max))
        place = resident->chunks->bytes;
    resident->chunks->n_used = place != NULL ? nbytes_max : resident->chunks->n_used;
    pthread_mutex_unlock(&resident->lock);
    if (place == NULL)
        return NULL;
    *nbytes = make(resident, matrix, place);
    pthread_mutex_lock(&resident->lock);
    resident->nbytes += *nbytes;
    pthread_mutex_unlock(&resident->lock);
    return place;
}

static uint8_t *make_and_pack(struct mb_resident *resident, int thread, const struct mb_coded_matrix *matrix,
                              uint64_t nbytes_max, uint64_t *nbytes)
{
    uint8_t *made = grow(&resident->threads[thread].made, nbytes_max);
    if (made == NULL)
        return NULL;
    *nbytes = make(resident, matrix, made);
    uint8_t *place = take(resident, *nbytes);
    if (place != NULL)
        memcpy(place, made, *nbytes);
    return place;
}

enum mb_status mb_resident_add(struct mb_resident *resident, int thread, struct mb_coded_matrix *matrix,
                               struct mb_error *err)
{
    uint64_t nbytes_max = resident->form->nbytes_max(matrix) + exponents_nbytes(matrix), nbytes;
    const uint8_t *place = nbytes_max > CHUNK_NBYTES
                               ? make_in_place(resident, matrix, nbytes_max, &nbytes)
                               : make_and_pack(resident, thread, matrix, nbytes_max, &nbytes);
    if (place == NULL)
        return mb_fail_memory(err, "the weights of the model");
    nbytes -= exponents_nbytes(matrix);
    *matrix = resident->form->view(matrix, place, nbytes);
    if (matrix->col_exponents != NULL)
        matrix->col_exponents = (const int8_t *)place + nbytes;
    return MB_OK;
}

uint64_t mb_resident_nbytes(const struct mb_resident *resident)
{
    return resident->nbytes;
}
