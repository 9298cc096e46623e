/*
 * target_text.c - a selection in few words.
 */
#include "base/buf.h"
#include <moebius/perturb.h>
#include <stdio.h>

/* An expert once, however many of its matrices are selected: they follow one another. */
static bool put_matrix(const struct mb_model_matrix *matrix, const struct mb_model_matrix *before,
                       struct mb_bytes *text)
{
    char expert[32];
    if (matrix->expert >= 0 && before != NULL && before->layer == matrix->layer &&
        before->expert == matrix->expert)
        return true;
    const char *name = matrix->name;
    if (matrix->expert >= 0) {
        snprintf(expert, sizeof expert, "%d.%d", matrix->layer, matrix->expert);
        name = expert;
    }
    return (text->n == 0 || mb_bytes_put(text, " ", 1)) && mb_bytes_put(text, name, strlen(name));
}

char *mb_selection_text(const struct mb_model *model, const struct mb_selection *selection)
{
    size_t n;
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
    struct mb_bytes text = {0};
    bool ok = true;
    for (size_t i = 0; i < selection->n && ok; i++)
        ok = put_matrix(&matrices[selection->at[i]], i == 0 ? NULL : &matrices[selection->at[i - 1]], &text);
    if (ok && mb_bytes_put(&text, "", 1))
        return text.p;
    free(text.p);
    return NULL;
}
