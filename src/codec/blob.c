/*
 * blob.c - the header of a blob, written and read.  What the payload must hold is the affair of each form.
 */
#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "exponents.h"
#include "forms.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for the size of a state on the stack */
#include <xxhash.h>

enum {
    VERSION = 3,       /* the newest: exponents of columns */
    VERSION_STEPS = 2, /* steps of their own */
    VERSION_PLAIN = 1, /* all steps follow from the bounds */
    HEADER_NBYTES = MB_BLOB_FRAME_NBYTES,
    ENTRY_NBYTES = 48,
    N_MATRICES_MAX = 65535,
    NAME_NBYTES_MAX = 65535,
    HEADER_NBYTES_MAX = 1 << 24,
};
static const uint8_t magic[4] = {'M', 'O', 'E', 'B'};
static const uint64_t N_WEIGHTS_MAX = (uint64_t)1 << 44; /* of a matrix: sizes below cannot overflow */

size_t mb_blob_header_nbytes(const struct mb_blob_matrix *matrices, size_t n_matrices)
{
    if (n_matrices == 0 || n_matrices > N_MATRICES_MAX)
        return 0;
    size_t nbytes = HEADER_NBYTES + ENTRY_NBYTES * n_matrices;
    for (size_t i = 0; i < n_matrices; i++) {
        if (matrices[i].name_nbytes == 0 || matrices[i].name_nbytes > NAME_NBYTES_MAX)
            return 0;
        nbytes += matrices[i].name_nbytes;
    }
    nbytes = mb_round_up(nbytes, 8);
    return nbytes <= HEADER_NBYTES_MAX ? nbytes : 0;
}

static void write_entry(const struct mb_blob_matrix *matrix, uint8_t *out)
{
    mb_store_u64(out, matrix->n_rows);
    mb_store_u32(out + 8, (uint32_t)matrix->n_cols);
    out[12] = (uint8_t)matrix->dtype;
    out[13] = (uint8_t)matrix->form;
    mb_store_u16(out + 14, (uint16_t)matrix->name_nbytes);
    memcpy(out + 16, &matrix->eps, 8);
    memcpy(out + 24, &matrix->step, 4);
    mb_store_u32(out + 28, (uint32_t)matrix->exponents_nbytes);
    mb_store_u64(out + 32, matrix->data_nbytes);
    mb_store_u64(out + 40, matrix->directory_nbytes);
}

/* The lowest that can say it. */
static unsigned version_of(const struct mb_blob_matrix *matrix)
{
    if (matrix->exponents_nbytes > 0)
        return VERSION;
    return matrix->step == mb_step_of_eps(matrix->eps) ? VERSION_PLAIN : VERSION_STEPS;
}

void mb_blob_write_header(const struct mb_blob_matrix *matrices, size_t n_matrices, uint64_t payload_xxh3,
                          uint8_t *out)
{
    size_t header_nbytes = mb_blob_header_nbytes(matrices, n_matrices);
    uint64_t nbytes = header_nbytes;
    unsigned version = VERSION_PLAIN;
    memset(out, 0, header_nbytes);
    uint8_t *name = out + HEADER_NBYTES + ENTRY_NBYTES * n_matrices;
    for (size_t i = 0; i < n_matrices; i++) {
        write_entry(&matrices[i], out + HEADER_NBYTES + ENTRY_NBYTES * i);
        memcpy(name, matrices[i].name, matrices[i].name_nbytes);
        name += matrices[i].name_nbytes;
        version = version_of(&matrices[i]) > version ? version_of(&matrices[i]) : version;
        nbytes += matrices[i].data_nbytes + matrices[i].directory_nbytes + matrices[i].exponents_nbytes;
    }
    memcpy(out, magic, sizeof magic);
    mb_store_u16(out + 4, (uint16_t)version);
    mb_store_u16(out + 6, (uint16_t)n_matrices);
    mb_store_u32(out + 8, (uint32_t)header_nbytes);
    mb_store_u64(out + 16, nbytes);
    mb_store_u64(out + 24, payload_xxh3);
    mb_store_u64(out + 32, XXH3_64bits(out, header_nbytes));
}

/* ---------------------------------------------------------------- reading */

static bool all_zero(const uint8_t *bytes, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static uint64_t header_xxh3(const uint8_t *bytes, size_t header_nbytes)
{
    static const uint8_t zeros[8];
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, bytes, 32);
    XXH3_64bits_update(&state, zeros, 8);
    XXH3_64bits_update(&state, bytes + 40, header_nbytes - 40);
    return XXH3_64bits_digest(&state);
}

enum mb_status mb_blob_read_frame(const uint8_t *bytes, uint64_t nbytes, struct mb_blob_frame *frame,
                                  struct mb_error *err)
{
    if (nbytes < HEADER_NBYTES || memcmp(bytes, magic, sizeof magic) != 0)
        return mb_fail(err, MB_BAD_DATA, "byte 0: not a Moebius blob");
    unsigned version = mb_load_u16(bytes + 4);
    if (version < VERSION_PLAIN || version > VERSION)
        return mb_fail(err, version > VERSION ? MB_UNSUPPORTED : MB_BAD_DATA,
                       "byte 4: blob of format version %u, this program reads versions %d to %d", version,
                       VERSION_PLAIN, VERSION);
    *frame = (struct mb_blob_frame){mb_load_u16(bytes + 6), mb_load_u32(bytes + 8), mb_load_u64(bytes + 16)};
    if (frame->n_matrices == 0)
        return mb_fail(err, MB_BAD_DATA, "byte 6: a blob without matrices");
    if (frame->header_nbytes % 8 != 0 || frame->header_nbytes > HEADER_NBYTES_MAX ||
        frame->header_nbytes < HEADER_NBYTES + ENTRY_NBYTES * frame->n_matrices ||
        frame->header_nbytes > nbytes)
        return mb_fail(err, MB_BAD_DATA, "byte 8: impossible header size %zu", frame->header_nbytes);
    if (mb_load_u32(bytes + 12) != 0)
        return mb_fail(err, MB_BAD_DATA, "byte 12: not zero");
    if (frame->nbytes < frame->header_nbytes || frame->nbytes > nbytes)
        return mb_fail(err, MB_BAD_DATA, "byte 16: blob of %" PRIu64 " bytes in a tensor of %" PRIu64,
                       frame->nbytes, nbytes);
    return MB_OK;
}

static uint64_t wanted_xxh3(const uint8_t *bytes)
{
    return mb_load_u64(bytes + 24);
}

static enum mb_status check_payload(const uint8_t *bytes, uint64_t nbytes, const struct mb_blob_frame *frame,
                                    struct mb_error *err)
{
    if (XXH3_64bits(bytes + frame->header_nbytes, frame->nbytes - frame->header_nbytes) != wanted_xxh3(bytes))
        return mb_fail(err, MB_BAD_DATA, "byte 24: the payload's checksum does not match");
    if (!all_zero(bytes + frame->nbytes, nbytes - frame->nbytes))
        return mb_fail(err, MB_BAD_DATA, "byte %" PRIu64 ": padding after the blob is not zero",
                       frame->nbytes);
    return MB_OK;
}

/* No finer than the limit: else a bound of any size could come with any step, and would say nothing. */
static bool step_is_sound(const struct mb_blob_matrix *info, unsigned version)
{
    float most = mb_step_of_eps(info->eps);
    if (version == VERSION_PLAIN || info->step == most)
        return info->step == most && !signbit(info->step);
    return info->step > 0 && info->step < most && info->eps <= MB_RHO_MAX * (double)info->step;
}

static bool exponents_are_sound(const struct mb_blob_matrix *info, unsigned version)
{
    return info->exponents_nbytes == 0 || (version == VERSION && info->exponents_nbytes == info->n_cols &&
                                           mb_step_takes_exponents(info->step));
}

static bool entry_is_sound(const struct mb_blob_matrix *info, unsigned version, const uint8_t *entry)
{
    uint64_t n_weights;
    return info->n_rows >= 1 && info->n_cols >= 1 && info->n_cols <= MB_COLS_MAX &&
           mb_mul_u64(info->n_rows, info->n_cols, &n_weights) && n_weights <= N_WEIGHTS_MAX &&
           entry[12] <= MB_BF16 && isfinite(info->eps) && !signbit(info->eps) &&
           step_is_sound(info, version) && exponents_are_sound(info, version);
}

/* Printable UTF-8 without control characters is enough of a name; its bytes are only compared. */
static bool name_is_sound(const uint8_t *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return n > 0;
}

static bool name_is_new(const struct mb_blob_matrix *info, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (info[k].name_nbytes == info[i].name_nbytes &&
            memcmp(info[k].name, info[i].name, info[i].name_nbytes) == 0)
            return false;
    return true;
}

static struct mb_blob_matrix read_entry(const uint8_t *entry, const uint8_t *name)
{
    struct mb_blob_matrix info = {
        .name = (const char *)name,
        .name_nbytes = mb_load_u16(entry + 14),
        .dtype = (enum mb_dtype)entry[12],
        .form = (enum mb_form_id)entry[13],
        .n_rows = mb_load_u64(entry),
        .n_cols = mb_load_u32(entry + 8),
        .data_nbytes = mb_load_u64(entry + 32),
        .directory_nbytes = mb_load_u64(entry + 40),
        .exponents_nbytes = mb_load_u32(entry + 28),
    };
    memcpy(&info.eps, entry + 16, 8);
    memcpy(&info.step, entry + 24, 4);
    return info;
}

static enum mb_status fail_in_matrix(const struct mb_blob_matrix *info, enum mb_status status,
                                     struct mb_error *err)
{
    return mb_fail_in(err, status, "matrix %.*s", (int)(info->name_nbytes < 200 ? info->name_nbytes : 200),
                      info->name);
}

/* Entries and names, and that sizes add up to the blob's end. */
static enum mb_status read_entries(const uint8_t *bytes, const struct mb_blob_frame *frame,
                                   struct mb_blob_matrix *infos, struct mb_error *err)
{
    size_t name_pos = HEADER_NBYTES + ENTRY_NBYTES * frame->n_matrices;
    uint64_t pos = frame->header_nbytes;
    unsigned version = mb_load_u16(bytes + 4);
    for (size_t i = 0; i < frame->n_matrices; i++) {
        size_t entry_pos = HEADER_NBYTES + ENTRY_NBYTES * i;
        struct mb_blob_matrix *info = &infos[i];
        *info = read_entry(bytes + entry_pos, bytes + name_pos);
        if (info->name_nbytes > frame->header_nbytes - name_pos ||
            !name_is_sound(bytes + name_pos, info->name_nbytes) || !name_is_new(infos, i))
            return mb_fail(err, MB_BAD_DATA, "byte %zu: matrix %zu has no usable name of its own", name_pos,
                           i);
        const struct mb_form *form = mb_form_find(info->form);
        if (form == NULL) { /* what the rest of the entry means is that form's affair */
            enum mb_status status =
                mb_fail(err, MB_UNSUPPORTED, "form %u is not known to this version", bytes[entry_pos + 13]);
            status = fail_in_matrix(info, status, err);
            return mb_fail_in(err, status, "byte %zu: matrix %zu of the blob", entry_pos, i);
        }
        if (!entry_is_sound(info, version, bytes + entry_pos))
            return mb_fail(err, MB_BAD_DATA,
                           "byte %zu: matrix %zu has an impossible shape, type, bound, step or exponents",
                           entry_pos, i);
        name_pos += info->name_nbytes;
        uint64_t directory_pos;
        if (!mb_add_u64(pos, info->data_nbytes, &directory_pos) ||
            !mb_add_u64(directory_pos, info->directory_nbytes, &pos) ||
            !mb_add_u64(pos, info->exponents_nbytes, &pos) || pos > frame->nbytes)
            return mb_fail(err, MB_BAD_DATA, "byte %zu: matrix %zu reaches past the blob's end",
                           entry_pos + 32, i);
        if (info->directory_nbytes < form->directory_nbytes_min(info->n_rows, info->n_cols))
            return mb_fail(err, MB_BAD_DATA, "byte %" PRIu64 ": the directory of matrix %zu is too short",
                           directory_pos, i);
    }
    if (frame->header_nbytes - name_pos >= 8 || !all_zero(bytes + name_pos, frame->header_nbytes - name_pos))
        return mb_fail(err, MB_BAD_DATA, "byte %zu: names do not fill the header", name_pos);
    if (pos != frame->nbytes)
        return mb_fail(err, MB_BAD_DATA, "byte %" PRIu64 ": bytes after the last matrix", pos);
    return MB_OK;
}

enum mb_status mb_blob_read_header(const uint8_t *bytes, const struct mb_blob_frame *frame,
                                   struct mb_blob_matrix *infos, struct mb_error *err)
{
    if (header_xxh3(bytes, frame->header_nbytes) != mb_load_u64(bytes + 32))
        return mb_fail(err, MB_BAD_DATA, "byte 32: the header's checksum does not match");
    return read_entries(bytes, frame, infos, err);
}

/* ---------------------------------------------------------------- opening */

/* Tables lie in this order: infos, matrices, what the views need. Each begins at a multiple of 8. */
_Static_assert(sizeof(struct mb_blob_matrix) % 8 == 0 && sizeof(struct mb_coded_matrix) % 8 == 0,
               "a table would not be aligned");

uint64_t mb_blob_tables_nbytes(const struct mb_blob_matrix *infos, size_t n_matrices)
{
    uint64_t nbytes = n_matrices * (sizeof(struct mb_blob_matrix) + sizeof(struct mb_coded_matrix));
    for (size_t i = 0; i < n_matrices; i++)
        nbytes += mb_coded_view_nbytes(&infos[i]);
    return nbytes;
}

static enum mb_status check_exponents(const struct mb_blob_matrix *info, const int8_t *exponents,
                                      uint64_t pos, struct mb_error *err)
{
    const char *fault = info->exponents_nbytes == 0 ? NULL : mb_exponents_fault(exponents, info->n_cols);
    return fault == NULL ? MB_OK : mb_fail(err, MB_BAD_DATA, "byte %" PRIu64 ": %s", pos, fault);
}

/* The next matrix of a blob whose views are made, each checked by its form. */
struct next_view {
    size_t i;
    uint64_t pos; /* of its records in the blob */
    uint8_t *memory;
};

static uint64_t payload_nbytes(const struct mb_blob_matrix *info)
{
    return info->data_nbytes + info->directory_nbytes + info->exponents_nbytes;
}

static enum mb_status make_view(const uint8_t *bytes, const struct mb_blob *blob, struct next_view *next,
                                struct mb_error *err)
{
    const struct mb_blob_matrix *info = &blob->info[next->i];
    const uint8_t *data = bytes + next->pos, *directory = data + info->data_nbytes;
    uint64_t end = next->pos + info->data_nbytes + info->directory_nbytes;
    enum mb_status status = check_exponents(info, (const int8_t *)bytes + end, end, err);
    if (status == MB_OK)
        status = mb_form_find(info->form)
                     ->check(info, data, directory, next->pos, next->memory, &blob->matrix[next->i], err);
    if (status != MB_OK)
        return fail_in_matrix(info, status, err);
    next->i++;
    next->pos += payload_nbytes(info);
    next->memory += mb_coded_view_nbytes(info);
    return MB_OK;
}

/* Frame and header, tables in 'memory', and where views begin. */
static enum mb_status open_header(const uint8_t *bytes, uint64_t nbytes, void *memory, uint64_t memory_nbytes,
                                  struct mb_blob_frame *frame, struct mb_blob *blob, struct next_view *next,
                                  struct mb_error *err)
{
    *blob = (struct mb_blob){.info = memory};
    MB_TRY(mb_blob_read_frame(bytes, nbytes, frame, err));
    if (memory_nbytes / sizeof *blob->info < frame->n_matrices)
        return mb_fail(err, MB_NO_SPACE, "the memory for the tables of a blob is too small");
    MB_TRY(mb_blob_read_header(bytes, frame, blob->info, err));
    blob->tables_nbytes = mb_blob_tables_nbytes(blob->info, frame->n_matrices);
    if (memory_nbytes < blob->tables_nbytes)
        return mb_fail(err, MB_NO_SPACE, "the memory for the tables of a blob is too small");
    blob->n_matrices = frame->n_matrices;
    blob->nbytes = frame->nbytes;
    blob->matrix = (struct mb_coded_matrix *)(void *)(blob->info + frame->n_matrices);
    *next = (struct next_view){.pos = frame->header_nbytes,
                               .memory = (uint8_t *)(blob->matrix + frame->n_matrices)};
    return MB_OK;
}

enum mb_status mb_blob_open_in(const uint8_t *bytes, uint64_t nbytes, void *memory, uint64_t memory_nbytes,
                               struct mb_blob *blob, struct mb_error *err)
{
    struct mb_blob_frame frame;
    struct mb_blob made;
    struct next_view next;
    *blob = (struct mb_blob){0};
    MB_TRY(open_header(bytes, nbytes, memory, memory_nbytes, &frame, &made, &next, err));
    MB_TRY(check_payload(bytes, nbytes, &frame, err));
    while (next.i < made.n_matrices)
        MB_TRY(make_view(bytes, &made, &next, err));
    *blob = made;
    return MB_OK;
}

/* Allocates the tables. The caller frees *memory, after a failure too. */
static enum mb_status open_blob(const uint8_t *bytes, uint64_t nbytes, void **memory, struct mb_blob *blob,
                                struct mb_error *err)
{
    struct mb_blob_frame frame;
    MB_TRY(mb_blob_read_frame(bytes, nbytes, &frame, err));
    *memory = calloc(frame.n_matrices, sizeof(struct mb_blob_matrix));
    if (*memory == NULL)
        return mb_fail_memory(err, "the tables of a blob");
    MB_TRY(mb_blob_read_header(bytes, &frame, *memory, err));
    uint64_t memory_nbytes = mb_blob_tables_nbytes(*memory, frame.n_matrices);
    void *grown = realloc(*memory, memory_nbytes); /* no more than the directories' bytes times 6 */
    if (grown == NULL)
        return mb_fail_memory(err, "the tables of a blob");
    *memory = grown;
    return mb_blob_open_in(bytes, nbytes, grown, memory_nbytes, blob, err);
}

enum mb_status mb_blob_open(const uint8_t *bytes, uint64_t nbytes, struct mb_blob *blob, struct mb_error *err)
{
    void *memory = NULL;
    *blob = (struct mb_blob){0};
    enum mb_status status = open_blob(bytes, nbytes, &memory, blob, err);
    if (status == MB_OK)
        blob->owned = memory;
    else
        free(memory);
    return status;
}

void mb_blob_close(struct mb_blob *blob)
{
    free(blob->owned);
    *blob = (struct mb_blob){0};
}

/* ---------------------------------------------------------------- opening while bytes come */

struct mb_blob_check {
    const uint8_t *bytes;
    uint64_t nbytes;
    void *memory;
    uint64_t memory_nbytes;
    bool has_header, is_odd; /* odd: mb_blob_open_in says what is wrong when all is there */
    struct mb_blob_frame frame;
    struct mb_blob blob;
    struct next_view next;
    uint64_t n_hashed; /* up to there in the blob */
    XXH3_state_t *state;
};

struct mb_blob_check *mb_blob_check_new(void)
{
    struct mb_blob_check *check = calloc(1, sizeof *check);
    if (check != NULL && (check->state = XXH3_createState()) == NULL) {
        free(check);
        return NULL;
    }
    return check;
}

void mb_blob_check_free(struct mb_blob_check *check)
{
    if (check == NULL)
        return;
    XXH3_freeState(check->state);
    free(check);
}

void mb_blob_check_begin(struct mb_blob_check *check, const uint8_t *bytes, uint64_t nbytes, void *memory,
                         uint64_t memory_nbytes)
{
    *check = (struct mb_blob_check){.bytes = bytes,
                                    .nbytes = nbytes,
                                    .memory = memory,
                                    .memory_nbytes = memory_nbytes,
                                    .state = check->state};
}

/* false: it is not there yet. */
static bool begin_payload(struct mb_blob_check *check, uint64_t n_there)
{
    struct mb_blob_frame frame;
    if (n_there < MB_BLOB_FRAME_NBYTES)
        return false;
    check->is_odd = mb_blob_read_frame(check->bytes, check->nbytes, &frame, NULL) != MB_OK;
    if (check->is_odd || n_there < frame.header_nbytes)
        return false;
    check->is_odd = open_header(check->bytes, check->nbytes, check->memory, check->memory_nbytes,
                                &check->frame, &check->blob, &check->next, NULL) != MB_OK;
    check->has_header = true;
    check->n_hashed = frame.header_nbytes;
    XXH3_64bits_reset(check->state);
    return !check->is_odd;
}

static void hash_to(struct mb_blob_check *check, uint64_t end)
{
    if (end <= check->n_hashed)
        return;
    XXH3_64bits_update(check->state, check->bytes + check->n_hashed, (size_t)(end - check->n_hashed));
    check->n_hashed = end;
}

/* A matrix is looked at right after it is hashed, while a cache has it. */
void mb_blob_check_add(struct mb_blob_check *check, uint64_t n_there)
{
    if (check->is_odd || (!check->has_header && !begin_payload(check, n_there)))
        return;
    while (check->next.i < check->blob.n_matrices) {
        uint64_t end = check->next.pos + payload_nbytes(&check->blob.info[check->next.i]);
        if (end > n_there)
            break;
        hash_to(check, end);
        if (make_view(check->bytes, &check->blob, &check->next, NULL) != MB_OK) {
            check->is_odd = true;
            return;
        }
    }
    hash_to(check, n_there < check->frame.nbytes ? n_there : check->frame.nbytes);
}

enum mb_status mb_blob_check_end(struct mb_blob_check *check, struct mb_blob *blob, struct mb_error *err)
{
    mb_blob_check_add(check, check->nbytes);
    const uint64_t end = check->frame.nbytes;
    if (check->is_odd || !check->has_header ||
        XXH3_64bits_digest(check->state) != wanted_xxh3(check->bytes) ||
        !all_zero(check->bytes + end, check->nbytes - end))
        return mb_blob_open_in(check->bytes, check->nbytes, check->memory, check->memory_nbytes, blob, err);
    *blob = check->blob;
    return MB_OK;
}
