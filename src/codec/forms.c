/*
 * forms.c - the table of forms, and the public functions that ask it.
 */
#include "forms.h"
#include <assert.h>

static const struct mb_form *const forms[] = {&mb_form_patched};
enum { N_FORMS = sizeof forms / sizeof forms[0] };

const struct mb_form *mb_form_find(unsigned id)
{
    for (size_t i = 0; i < N_FORMS; i++)
        if ((unsigned)forms[i]->id == id)
            return forms[i];
    return NULL;
}

/* The form of something that exists: its maker knew the form. */
static const struct mb_form *form_of(enum mb_form_id id)
{
    const struct mb_form *form = mb_form_find(id);
    assert(form != NULL);
    return form;
}

size_t mb_encode_bound(enum mb_dtype dtype, size_t n_rows, size_t n_cols)
{
    size_t most = 0;
    for (size_t i = 0; i < N_FORMS; i++) {
        size_t nbytes = forms[i]->encode_bound(dtype, n_rows, n_cols);
        most = nbytes > most ? nbytes : most;
    }
    return most;
}

enum mb_status mb_encode_rows(const struct mb_coding *coding, const void *weights, size_t n_rows,
                              uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                              size_t *bad_index)
{
    const struct mb_form *form = mb_form_find(coding->form);
    if (form == NULL)
        return MB_UNSUPPORTED;
    return form->encode_rows(coding, weights, n_rows, out, out_cap, out_nbytes, groups, bad_index);
}

bool mb_group_is_raw(enum mb_form_id form, const struct mb_group *group)
{
    return form_of(form)->group_is_raw(group);
}

uint64_t mb_directory_nbytes(enum mb_form_id form, const struct mb_group *groups, size_t n_groups)
{
    return form_of(form)->directory_nbytes(groups, n_groups);
}

void mb_directory_write(enum mb_form_id form, const struct mb_group *groups, size_t n_groups, uint8_t *out)
{
    form_of(form)->directory_write(groups, n_groups, out);
}

size_t mb_coded_view_nbytes(const struct mb_blob_matrix *info)
{
    return form_of(info->form)->view_nbytes(info->n_rows, info->n_cols);
}

struct mb_coded_matrix mb_coded_view(const struct mb_blob_matrix *info, const uint8_t *data,
                                     const uint8_t *directory, void *memory)
{
    return form_of(info->form)->view(info, data, directory, memory);
}

void mb_coded_statistics_add(struct mb_coded_statistics *statistics, const struct mb_coded_matrix *w,
                             uint64_t row, uint64_t n_rows, const float *weights)
{
    form_of(w->form)->statistics_add(statistics, w, row, n_rows, weights);
}
