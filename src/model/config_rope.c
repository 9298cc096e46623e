/*
 * config_rope.c - rotary embeddings as config.json describes them.
 */
#include "config_reader.h"
#include "rope.h"
#include <string.h>

static double read_yarn(struct mb_config_reader *r, struct mb_rope *rope, size_t n_ctx, double theta)
{
    struct mb_yarn yarn = {.theta = theta};
    yarn.n_ctx_original =
        (double)mb_read_size_or(r, "original_max_position_embeddings", 1, MB_CTX_MAX, n_ctx);
    yarn.factor = mb_read_number_or(r, "factor", 1, 1e6, (double)n_ctx / yarn.n_ctx_original);
    yarn.beta_fast = mb_read_number_or(r, "beta_fast", 1e-6, 1e6, 32);
    yarn.beta_slow = mb_read_number_or(r, "beta_slow", 1e-6, 1e6, 1);
    yarn.truncate = mb_read_bool_or(r, "truncate", true);
    double mscale = mb_read_number_or(r, "mscale", 0, 1e3, 0);
    double mscale_all_dim = mb_read_number_or(r, "mscale_all_dim", 0, 1e3, 0);
    double attention_factor = mb_read_number_or(r, "attention_factor", 0, 1e3, -1);
    if (r->status != MB_OK)
        return 1;
    mb_rope_yarn(&yarn, rope->n_dims, rope->inv_freq);
    rope->factor = mb_rope_yarn_factor(&yarn, mscale, mscale_all_dim, attention_factor);
    return mscale_all_dim == 0 ? 1 : mb_rope_yarn_mscale(yarn.factor, mscale_all_dim);
}

static void read_linear(struct mb_config_reader *r, struct mb_rope *rope, double theta)
{
    double factor = mb_read_number(r, "factor", 1e-6, 1e6);
    if (r->status == MB_OK)
        mb_rope_linear(theta, factor, rope->n_dims, rope->inv_freq);
}

static void read_llama3(struct mb_config_reader *r, struct mb_rope *rope, size_t n_ctx, double theta)
{
    struct mb_llama3 llama3 = {.theta = theta};
    llama3.factor = mb_read_number(r, "factor", 1e-6, 1e6);
    llama3.low_freq_factor = mb_read_number(r, "low_freq_factor", 1e-6, 1e6);
    llama3.high_freq_factor = mb_read_number(r, "high_freq_factor", 1e-6, 1e6);
    llama3.n_ctx_original =
        (double)mb_read_size_or(r, "original_max_position_embeddings", 1, MB_CTX_MAX, n_ctx);
    if (llama3.high_freq_factor <= llama3.low_freq_factor)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: %shigh_freq_factor is not more than low_freq_factor", r->path,
                     r->where);
    if (r->status == MB_OK)
        mb_rope_llama3(&llama3, rope->n_dims, rope->inv_freq);
}

static const char *type_name(struct mb_config_reader *r)
{
    const json_t *type = mb_read(r, "rope_type");
    type = type != NULL ? type : mb_read(r, "type");
    const char *name = json_string_value(type);
    return type == NULL ? "default" : name != NULL ? name : "of no kind";
}

/* Reads the frequencies from the object that describes them. */
static double read_frequencies(struct mb_config_reader *r, size_t n_ctx, double theta, struct mb_rope *rope)
{
    const char *type = type_name(r);
    if (r->status != MB_OK)
        return 1;
    if (strcmp(type, "default") == 0)
        mb_rope_default(theta, rope->n_dims, rope->inv_freq);
    else if (strcmp(type, "linear") == 0)
        read_linear(r, rope, theta);
    else if (strcmp(type, "llama3") == 0)
        read_llama3(r, rope, n_ctx, theta);
    else if (strcmp(type, "yarn") == 0)
        return read_yarn(r, rope, n_ctx, theta);
    else
        MB_READ_FAIL(r, MB_UNSUPPORTED,
                     "%s: %.*s is %.40s; rotary embeddings are supported as default, linear, llama3 and yarn",
                     r->path, (int)strcspn(r->where, "."), r->where, type);
    return 1;
}

/* The share of dimensions that is rotated, where the family knows one. */
static size_t read_n_dims(struct mb_config_reader *top, struct mb_config_reader *r, size_t n_dims,
                          double otherwise)
{
    static const char key[] = "partial_rotary_factor";
    bool is_nested = r->object != NULL && mb_read(r, key) != NULL;
    if (otherwise == 0) {
        if (is_nested && mb_read_number_or(r, key, 0, 1, 1) != 1)
            MB_READ_FAIL(r, MB_UNSUPPORTED,
                         "%s: %s%s is set; models of this architecture run only without it", r->path,
                         r->where, key);
        return n_dims;
    }
    double share = mb_read_number_or(top, key, 0, 1, otherwise);
    share = is_nested ? mb_read_number_or(r, key, 0, 1, otherwise) : share;
    size_t n = (size_t)((double)n_dims * share);
    if (n >= 2 && n % 2 == 0)
        return n;
    MB_READ_FAIL(top, MB_BAD_DATA, "%s: partial_rotary_factor leaves an odd number of dimensions, or none",
                 top->path);
    return 2;
}

double mb_read_rope(struct mb_config_reader *top, size_t n_dims, size_t n_ctx,
                    struct mb_rope_defaults defaults, struct mb_rope *rope)
{
    /* An empty rope_scaling counts as missing; else it goes before rope_parameters. */
    const json_t *parameters = mb_read(top, "rope_parameters"), *scaling = mb_read(top, "rope_scaling");
    bool has_scaling = scaling != NULL && !(json_is_object(scaling) && json_object_size(scaling) == 0);
    struct mb_config_reader r = *top;
    r.object = has_scaling ? scaling : parameters;
    r.where = has_scaling ? "rope_scaling." : "rope_parameters.";
    rope->factor = 1;
    if (r.object != NULL && !json_is_object(r.object)) {
        MB_READ_FAIL(top, MB_BAD_DATA, "%s: %s is not an object", top->path,
                     has_scaling ? "rope_scaling" : "rope_parameters");
        return 1;
    }
    double theta = mb_read_number_or(top, "rope_theta", 1.000001, 1e12, defaults.theta);
    theta = mb_read_number_or(&r, "rope_theta", 1.000001, 1e12, theta);
    rope->n_dims = read_n_dims(top, &r, n_dims, defaults.partial);
    if (r.status == MB_OK)
        r.status = top->status;
    double mscale = read_frequencies(&r, n_ctx, theta, rope);
    top->status = r.status;
    return mscale;
}
