/*
 * panel_avx2.c - see panel_avx2.h.
 */
#include "panel_avx2.h"
#include "encode.h"
#include <string.h>

/* ---------------------------------------------------------------- rows as indices */

size_t mb_panel_source_nbytes(size_t n_cols)
{
    return mb_group_room(n_cols) + MB_PANEL_ROWS * mb_matmul_row_nbytes(n_cols) +
           (MB_DECODED_SLACK + 63) / 64 * 64;
}

static void next_group(struct mb_panel_source *source)
{
    mb_next_avx2(&source->walk, &source->next.group);
    source->next.row_in_group = 0;
    if (!source->next.group.is_raw && source->walk.w->group_rows > 1)
        mb_indices_avx2(source->walk.w, &source->next.group, source->group);
}

struct mb_panel_source mb_panel_source_at(const struct mb_coded_matrix *w, uint64_t row, int8_t *memory)
{
    struct mb_panel_source source = {.walk = mb_seek_avx2(w, row), .group = memory};
    source.q = memory + mb_group_room(w->n_cols);
    next_group(&source);
    source.next.row_in_group = (size_t)(row - source.next.group.row);
    return source;
}

static void list_outliers(const struct mb_coded_matrix *w, const struct mb_panel_row *row, size_t r,
                          struct mb_panel *panel)
{
    const struct mb_group_view *group = &row->group;
    size_t begin = row->row_in_group * w->n_cols, first;
    size_t n = mb_find_row_outliers(group, begin, w->n_cols, 0, &first);
    if (n == 0)
        return;
    panel->outlier_rows |= 1u << r;
    if (panel->n_outliers + n > MB_PANEL_LIST_MAX) {
        panel->has_all_outliers = false;
        return;
    }
    for (size_t i = first; i < first + n; i++)
        panel->outliers[panel->n_outliers++] = (struct mb_panel_outlier){
            (uint16_t)r, (uint16_t)(mb_load_u16(group->outlier_positions + 2 * i) - begin),
            (double)mb_load_value(w->dtype, group->outlier_values, i)};
}

/* No index of the row is beyond, as its widths say. */
static unsigned most_of(const struct mb_coded_matrix *w, const struct mb_group_view *group)
{
    if (w->form != MB_FORM_CARRY)
        return (unsigned)(mb_inner_max(group->a) + (group->n_escapes > 0 ? mb_tail_half(group->b) : 0));
    return group->a == MB_CARRY_BYTES || group->n_escapes > 0 ? MB_Q_MAX : 1u << (group->a - 1);
}

/* Few indices of the row are beyond. */
static unsigned usual_of(const struct mb_group_view *group)
{
    unsigned width = 64 * (size_t)group->n_escapes < group->n && group->a > 0 ? group->a - 1 : group->a;
    return 1u << width;
}

/* Takes the next rows, and decodes them where that is done by groups. Returns what few indices exceed. */
static unsigned take_rows(struct mb_panel_source *source, size_t n_rows, struct mb_panel *panel)
{
    const struct mb_coded_matrix *w = source->walk.w;
    unsigned usual = 0;
    panel->n_rows = n_rows;
    panel->n_outliers = panel->most = 0;
    panel->raw_rows = panel->outlier_rows = 0;
    panel->has_all_outliers = true;
    for (size_t r = 0; r < n_rows; r++) {
        struct mb_panel_row *next = &source->next;
        const struct mb_group_view *group = &next->group;
        if (next->row_in_group == group->n_rows)
            next_group(source);
        panel->rows[r] = *next;
        if (group->is_raw) {
            panel->raw_rows |= 1u << r;
        } else {
            unsigned row_most = most_of(w, group), row_usual = usual_of(group);
            row_usual = row_usual < row_most ? row_usual : row_most;
            panel->most = row_most > panel->most ? row_most : panel->most;
            usual = row_usual > usual ? row_usual : usual;
            if (w->group_rows > 1)
                memcpy(source->q + r * panel->row_nbytes, source->group + next->row_in_group * w->n_cols,
                       w->n_cols);
        }
        if (group->n_outliers > 0)
            list_outliers(w, next, r, panel);
        next->row_in_group++;
    }
    return usual;
}

/* Rows [first, first + 8) as indices, 0 after their columns, where they are raw, and after the last. */
static const int8_t *decode_half(const struct mb_panel_source *source, size_t first,
                                 const struct mb_panel *panel)
{
    const struct mb_coded_matrix *w = source->walk.w;
    const size_t n_cols = w->n_cols, row_nbytes = panel->row_nbytes;
    int8_t *const half = source->q + (w->group_rows > 1 ? first * row_nbytes : 0);
    for (size_t r = first; r < first + MB_PANEL_HALF; r++) {
        int8_t *q = half + (r - first) * row_nbytes;
        if (r >= panel->n_rows || panel->rows[r].group.is_raw)
            memset(q, 0, n_cols);
        else if (w->group_rows == 1)
            mb_indices_avx2(w, &panel->rows[r].group, q);
        memset(q + n_cols, 0, row_nbytes - n_cols);
    }
    return half;
}

/* ---------------------------------------------------------------- indices side by side */

/* Four steps' halves from 16 columns of eight rows. */
MB_INLINE void transpose(const __m256i rows[4], __m256i steps[4])
{
    __m256i a = _mm256_unpacklo_epi32(rows[0], rows[1]), b = _mm256_unpacklo_epi32(rows[2], rows[3]);
    __m256i c = _mm256_unpackhi_epi32(rows[0], rows[1]), d = _mm256_unpackhi_epi32(rows[2], rows[3]);
    steps[0] = _mm256_unpacklo_epi64(a, b);
    steps[1] = _mm256_unpackhi_epi64(a, b);
    steps[2] = _mm256_unpacklo_epi64(c, d);
    steps[3] = _mm256_unpackhi_epi64(c, d);
}

/* 16 columns of rows k and k + 4 of eight. */
MB_INLINE void load_rows(const int8_t *q, size_t row_nbytes, __m256i rows[4])
{
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++)
        rows[k] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(q + k * row_nbytes))),
            _mm_loadu_si128((const __m128i *)(q + (k + 4) * row_nbytes)), 1);
}

/* Lists what eight rows of 16 columns have beyond the limit. False: too many. */
MB_NOINLINE bool list_excess(const int8_t *q, size_t row_nbytes, int limit, size_t row, size_t column,
                             struct mb_panel *panel)
{
    for (size_t r = 0; r < MB_PANEL_HALF; r++)
        for (size_t c = 0; c < 16; c++) {
            const int8_t *at = q + r * row_nbytes + c;
            int excess = *at > limit ? *at - limit : *at < -limit ? *at + limit : 0;
            if (excess == 0)
                continue;
            if (panel->n_excess == MB_PANEL_LIST_MAX)
                return false;
            panel->excess[panel->n_excess++] =
                (struct mb_panel_excess){(uint16_t)(row + r), (uint16_t)(column + c), excess};
        }
    return true;
}

/* What place_rows does with indices beyond the limit. */
enum beyond { NONE_ARE, ARE_LISTED, ARE_NEXT_PART };

/* Eight rows, to steps from 'out' on, and the second part of these. False: too many would be listed. */
MB_INLINE bool place_rows(const int8_t *q, size_t row_nbytes, size_t row, enum beyond beyond,
                          struct mb_panel *panel, uint8_t *out)
{
    const int limit = (int)panel->offset;
    const __m256i most = _mm256_set1_epi8((char)limit), least = _mm256_set1_epi8((char)-limit);
    for (size_t c = 0; c < row_nbytes; c += 16, out += 4 * MB_PANEL_STEP_NBYTES) {
        __m256i rows[4], rest[4], steps[4], off = _mm256_setzero_si256();
        load_rows(q + c, row_nbytes, rows);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++) {
            __m256i v = rows[k];
            if (beyond != NONE_ARE) {
                rows[k] = _mm256_min_epi8(_mm256_max_epi8(v, least), most);
                rest[k] = _mm256_sub_epi8(v, rows[k]);
                off = _mm256_or_si256(off, rest[k]);
            }
            rows[k] = _mm256_add_epi8(rows[k], most);
        }
        if (beyond == ARE_LISTED && !_mm256_testz_si256(off, off) &&
            !list_excess(q + c, row_nbytes, limit, row, c, panel))
            return false;
        transpose(rows, steps);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            _mm256_store_si256((__m256i *)(out + MB_PANEL_STEP_NBYTES * k), steps[k]);
        if (beyond == ARE_NEXT_PART) {
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; k++)
                rows[k] = _mm256_add_epi8(rest[k], most);
            transpose(rows, steps);
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; k++)
                _mm256_store_si256((__m256i *)(out + MB_PANEL_ROWS * row_nbytes + MB_PANEL_STEP_NBYTES * k),
                                   steps[k]);
        }
    }
    return true;
}

#define PLACE(name, beyond)                                                                          \
    static bool place_##name(const int8_t *q, size_t row_nbytes, size_t row, struct mb_panel *panel, \
                             uint8_t *out)                                                           \
    {                                                                                                \
        return place_rows(q, row_nbytes, row, beyond, panel, out);                                   \
    }
PLACE(plainly, NONE_ARE)
PLACE(with_list, ARE_LISTED)
PLACE(in_two_parts, ARE_NEXT_PART)

static bool place(const struct mb_panel_source *source, enum beyond beyond, struct mb_panel *panel)
{
    static bool (*const place_by[])(const int8_t *q, size_t row_nbytes, size_t row, struct mb_panel *panel,
                                    uint8_t *out) = {place_plainly, place_with_list, place_in_two_parts};
    panel->n_excess = 0;
    panel->n_parts = beyond == ARE_NEXT_PART ? 2 : 1;
    for (size_t r = 0; r < MB_PANEL_ROWS; r += MB_PANEL_HALF)
        if (!place_by[beyond](decode_half(source, r, panel), panel->row_nbytes, r, panel,
                              panel->codes + r * panel->row_nbytes))
            return false;
    return true;
}

/* ---------------------------------------------------------------- panels */

void mb_panel_fill_bytes(struct mb_panel_source *source, size_t n_rows, struct mb_panel *panel)
{
    const unsigned usual = take_rows(source, n_rows, panel);
    for (panel->offset = MB_PANEL_OFFSET_MIN; panel->offset <= MB_PANEL_OFFSET_MAX; panel->offset *= 2)
        if (panel->offset >= usual || panel->offset == MB_PANEL_OFFSET_MAX)
            if (place(source, panel->most <= panel->offset ? NONE_ARE : ARE_LISTED, panel))
                return;
    panel->offset = MB_PANEL_OFFSET_MAX;
    place(source, ARE_NEXT_PART, panel);
}

/* Eight rows. */
static void place_words(const int8_t *q, size_t row_nbytes, uint8_t *out)
{
    const __m256i first =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13));
    const __m256i second = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15));
    for (size_t c = 0; c < row_nbytes; c += 16) {
        __m256i rows[4], steps[4];
        load_rows(q + c, row_nbytes, rows);
        transpose(rows, steps);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++, out += 2 * MB_PANEL_STEP_NBYTES) {
            _mm256_store_si256((__m256i *)out, _mm256_srai_epi16(_mm256_shuffle_epi8(steps[k], first), 8));
            _mm256_store_si256((__m256i *)(out + MB_PANEL_STEP_NBYTES),
                               _mm256_srai_epi16(_mm256_shuffle_epi8(steps[k], second), 8));
        }
    }
}

void mb_panel_fill_words(struct mb_panel_source *source, size_t n_rows, struct mb_panel *panel)
{
    take_rows(source, n_rows, panel);
    panel->n_excess = 0;
    for (size_t r = 0; r < MB_PANEL_ROWS; r += MB_PANEL_HALF)
        place_words(decode_half(source, r, panel), panel->row_nbytes,
                    panel->codes + 2 * r * panel->row_nbytes);
}
