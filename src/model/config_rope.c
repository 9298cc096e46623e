/*
 * config_rope.c - rotary embeddings as config.json describes them.
 */
#include "config_reader.h"
#include "rope.h"
#include <string.h>

/* What read_... functions below need: n_ctx_original 0 is n_ctx. */
struct described {
    double theta;
    size_t n_ctx, n_ctx_original;
};

static double read_yarn(struct mb_config_reader *r, struct mb_rope *rope, const struct described *d)
{
    size_t n_ctx = d->n_ctx;
    struct mb_yarn yarn = {.theta = d->theta, .n_ctx_original = (double)d->n_ctx_original};
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

static void read_llama3(struct mb_config_reader *r, struct mb_rope *rope, const struct described *d)
{
    struct mb_llama3 llama3 = {.theta = d->theta, .n_ctx_original = (double)d->n_ctx_original};
    llama3.factor = mb_read_number(r, "factor", 1e-6, 1e6);
    llama3.low_freq_factor = mb_read_number(r, "low_freq_factor", 1e-6, 1e6);
    llama3.high_freq_factor = mb_read_number(r, "high_freq_factor", 1e-6, 1e6);
    if (llama3.high_freq_factor <= llama3.low_freq_factor)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: %shigh_freq_factor is not more than low_freq_factor", r->path,
                     r->where);
    if (r->status == MB_OK)
        mb_rope_llama3(&llama3, rope->n_dims, rope->inv_freq);
}

/* Divisors of all frequencies. */
static void read_factors(struct mb_config_reader *r, const char *key, size_t n, float *factors)
{
    const json_t *list = mb_read(r, key), *factor;
    size_t i;
    bool is_good = json_is_array(list) && json_array_size(list) == n;
    json_array_foreach(list, i, factor)
    {
        double x = json_number_value(factor);
        is_good = is_good && x >= 1e-6 && x <= 1e9;
        if (is_good)
            factors[i] = (float)x;
    }
    if (!is_good)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: %s%s is not a list of %zu numbers from 1e-6 to 1e9", r->path,
                     r->where, key, n);
}

static void read_longrope(struct mb_config_reader *r, struct mb_rope *rope, const struct described *d)
{
    float shorter[MB_ROPE_DIMS_MAX / 2], longer[MB_ROPE_DIMS_MAX / 2];
    read_factors(r, "short_factor", rope->n_dims / 2, shorter);
    read_factors(r, "long_factor", rope->n_dims / 2, longer);
    double factor = mb_read_number_or(r, "factor", 1e-6, 1e6, (double)d->n_ctx / (double)d->n_ctx_original);
    double attention_factor = mb_read_number_or(r, "attention_factor", 0, 1e3, -1);
    if (d->n_ctx_original < 2)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: original_max_position_embeddings is less than 2", r->path);
    if (r->status != MB_OK)
        return;
    mb_rope_longrope(d->theta, shorter, rope->n_dims, rope->inv_freq);
    mb_rope_longrope(d->theta, longer, rope->n_dims, rope->long_inv_freq);
    rope->factor = attention_factor >= 0 ? (float)attention_factor
                                         : mb_rope_longrope_factor(factor, (double)d->n_ctx_original);
    rope->long_factor = rope->factor;
    rope->n_ctx_short = d->n_ctx_original;
}

const char *mb_rope_type(struct mb_config_reader *r)
{
    const json_t *type = mb_read(r, "rope_type");
    type = type != NULL ? type : mb_read(r, "type");
    const char *name = json_string_value(type);
    return type == NULL ? "default" : name != NULL ? name : "of no kind";
}

/* Reads the frequencies from the object that describes them. */
static double read_frequencies(struct mb_config_reader *r, const struct described *d, struct mb_rope *rope)
{
    const char *type = mb_rope_type(r);
    if (r->status != MB_OK)
        return 1;
    if (strcmp(type, "default") == 0)
        mb_rope_default(d->theta, rope->n_dims, rope->inv_freq);
    else if (strcmp(type, "linear") == 0)
        read_linear(r, rope, d->theta);
    else if (strcmp(type, "llama3") == 0)
        read_llama3(r, rope, d);
    else if (strcmp(type, "longrope") == 0)
        read_longrope(r, rope, d);
    else if (strcmp(type, "yarn") == 0)
        return read_yarn(r, rope, d);
    else
        MB_READ_FAIL(r, MB_UNSUPPORTED,
                     "%s: %.*s is %.40s; rotary embeddings are supported as default, linear, llama3, "
                     "longrope and yarn",
                     r->path, (int)strcspn(r->where, "."), r->where, type);
    return 1;
}

/* Rotary embeddings that differ between kinds of layers are described by an object for each kind. */
static void refuse_nested(struct mb_config_reader *r)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)r->object, key, value)
    {
        if (json_is_object(value))
            MB_READ_FAIL(r, MB_UNSUPPORTED,
                         "%s: %s%.60s: rotary embeddings that differ between layers are not supported",
                         r->path, r->where, key);
    }
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

/* An empty rope_scaling counts as missing; else it goes before rope_parameters. */
struct mb_config_reader mb_rope_reader(struct mb_config_reader *top)
{
    const json_t *parameters = mb_read(top, "rope_parameters"), *scaling = mb_read(top, "rope_scaling");
    bool has_scaling = scaling != NULL && !(json_is_object(scaling) && json_object_size(scaling) == 0);
    struct mb_config_reader r = *top;
    r.object = has_scaling ? scaling : parameters;
    r.where = has_scaling ? "rope_scaling." : "rope_parameters.";
    if (r.object != NULL && !json_is_object(r.object))
        MB_READ_FAIL(&r, MB_BAD_DATA, "%s: %.*s is not an object", top->path, (int)strcspn(r.where, "."),
                     r.where);
    if (r.status == MB_OK)
        refuse_nested(&r);
    return r;
}

double mb_read_rope(struct mb_config_reader *top, size_t n_dims, size_t n_ctx,
                    struct mb_rope_defaults defaults, struct mb_rope *rope)
{
    static const char original[] = "original_max_position_embeddings";
    struct mb_config_reader r = mb_rope_reader(top);
    rope->factor = 1;
    if (r.status != MB_OK) {
        top->status = r.status;
        return 1;
    }
    struct described d = {.theta = mb_read_number_or(top, "rope_theta", 1.000001, 1e12, defaults.theta),
                          .n_ctx = n_ctx};
    d.theta = mb_read_number_or(&r, "rope_theta", 1.000001, 1e12, d.theta);
    d.n_ctx_original = mb_read_size_or(&r, original, 1, MB_CTX_MAX, n_ctx);
    d.n_ctx_original = mb_read_size_or(top, original, 1, MB_CTX_MAX, d.n_ctx_original); /* that goes first */
    rope->n_dims = read_n_dims(top, &r, n_dims, defaults.partial);
    if (r.status == MB_OK)
        r.status = top->status;
    double mscale = read_frequencies(&r, &d, rope);
    top->status = r.status;
    return mscale;
}
