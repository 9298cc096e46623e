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

static const char *type_name(struct mb_config_reader *r)
{
    const json_t *type = mb_read(r, "rope_type");
    type = type != NULL ? type : mb_read(r, "type");
    const char *name = json_string_value(type);
    return type == NULL ? "default" : name != NULL ? name : "of no kind";
}

double mb_read_rope(struct mb_config_reader *top, size_t n_dims, size_t n_ctx, struct mb_rope *rope)
{
    const json_t *parameters = mb_read(top, "rope_parameters"), *scaling = mb_read(top, "rope_scaling");
    const char *member = parameters != NULL ? "rope_parameters" : "rope_scaling";
    struct mb_config_reader r = *top;
    r.object = parameters != NULL ? parameters : scaling;
    r.where = parameters != NULL ? "rope_parameters." : "rope_scaling.";
    rope->n_dims = n_dims;
    rope->factor = 1;
    if (r.object != NULL && !json_is_object(r.object)) {
        MB_READ_FAIL(top, MB_BAD_DATA, "%s: %s is not an object", top->path, member);
        return 1;
    }
    struct mb_config_reader *with_theta = parameters != NULL && mb_read(&r, "rope_theta") != NULL ? &r : top;
    double theta = mb_read_number_or(with_theta, "rope_theta", 1.000001, 1e12, 10000), mscale = 1;
    const char *type = type_name(&r);
    if (r.status == MB_OK)
        r.status = top->status;
    if (strcmp(type, "default") == 0)
        mb_rope_default(theta, n_dims, rope->inv_freq);
    else if (strcmp(type, "yarn") == 0)
        mscale = read_yarn(&r, rope, n_ctx, theta);
    else
        MB_READ_FAIL(&r, MB_UNSUPPORTED,
                     "%s: %s is %.40s; rotary embeddings are supported as default and yarn", top->path,
                     member, type);
    top->status = r.status;
    return mscale;
}
