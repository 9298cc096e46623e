/*
 * compress_report.c - one list of a report's sums, for all that is done with them.
 */
#include "compress_report.h"
#include "extremes.h"
#include <stddef.h>

#define SUM(field)                                         \
    {                                                      \
#field, offsetof(struct mb_compress_report, field) \
    }
static const struct {
    const char *name;
    size_t offset;
} sums[] = {
    SUM(n_weights),          SUM(n_weights_exact),     SUM(in_nbytes),       SUM(out_nbytes),
    SUM(coded_nbytes),       SUM(padding_nbytes),      SUM(exact_nbytes),    SUM(expert_n_weights),
    SUM(expert_in_nbytes),   SUM(expert_coded_nbytes), SUM(dense_n_weights), SUM(dense_in_nbytes),
    SUM(dense_coded_nbytes), SUM(n_outliers),          SUM(n_raw_groups),    SUM(n_groups),
    SUM(n_blobs_reused),
};
enum { N_SUMS = sizeof sums / sizeof sums[0] };

static uint64_t *sum_of(struct mb_compress_report *report, size_t i)
{
    return (uint64_t *)((char *)report + sums[i].offset);
}

json_t *mb_report_to_json(const struct mb_compress_report *report)
{
    struct mb_compress_report copy = *report;
    json_t *json = json_object();
    bool ok = json != NULL;
    for (size_t i = 0; i < N_SUMS && ok; i++)
        ok = json_object_set_new(json, sums[i].name, json_integer((json_int_t)*sum_of(&copy, i))) == 0;
    if (ok && report->extremes.n > 0)
        ok = json_object_set_new(json, "extremes", mb_extremes_to_json(&report->extremes)) == 0;
    if (ok)
        return json;
    json_decref(json);
    return NULL;
}

void mb_report_add(struct mb_compress_report *to, const struct mb_compress_report *from)
{
    struct mb_compress_report copy = *from;
    for (size_t i = 0; i < N_SUMS; i++)
        *sum_of(to, i) += *sum_of(&copy, i);
    mb_extremes_add(&to->extremes, &from->extremes);
}

void mb_report_add_json(struct mb_compress_report *to, const json_t *from)
{
    for (size_t i = 0; i < N_SUMS; i++)
        *sum_of(to, i) += (uint64_t)json_integer_value(json_object_get(from, sums[i].name));
    mb_extremes_add_json(&to->extremes, json_object_get(from, "extremes"));
}
