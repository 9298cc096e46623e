/*
 * budget.c - one limit of memory for the whole process, and what of it is left for weights.
 *
 * What the process uses now counts (the program, a tokenizer, the index), and so does all that is made later:
 * buffers of a pass, scratch memory of threads, caches of the sessions that the caller expects.
 */
#include "attention.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "mlp.h"
#include "model.h"

enum { MIB = 1 << 20, MARGIN_MIB = 256, MARGIN_SHARE = 16 };
enum { N_WAVES_MIN = 4 }; /* of a token's experts of one layer that memory has to hold beside a larger pass */

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return mb_add_u64(a, b, &sum) ? sum : UINT64_MAX;
}

/* All that is available now, less a margin for what others will need. */
static uint64_t found_nbytes(uint64_t used_nbytes)
{
    uint64_t available = mb_memory_available();
    uint64_t margin = available / MARGIN_SHARE;
    if (available == UINT64_MAX)
        return UINT64_MAX;
    margin = margin < (uint64_t)MARGIN_MIB * MIB ? (uint64_t)MARGIN_MIB * MIB : margin;
    return used_nbytes + (available > 2 * margin ? available - margin : available / 2);
}

/* What is expected: sessions, and the context of each. */
static size_t n_sessions_of(const struct mb_model_options *options)
{
    return options->n_sessions == 0 ? 1 : options->n_sessions;
}

static size_t n_ctx_of(const struct mb_config *c, const struct mb_model_options *options)
{
    size_t n_ctx = options->n_ctx == 0 ? MB_CTX_EXPECTED : options->n_ctx;
    return n_ctx < c->n_ctx ? n_ctx : c->n_ctx;
}

static uint64_t caches_nbytes(const struct mb_config *c, const struct mb_model_options *options)
{
    uint64_t nbytes;
    bool is_f32 = options->cache_type == MB_CACHE_F32;
    if (!mb_cache_nbytes(c, n_ctx_of(c, options), is_f32 ? MB_F32 : MB_F16, NULL, &nbytes) ||
        !mb_mul_u64(nbytes, n_sessions_of(options), &nbytes))
        return UINT64_MAX;
    return nbytes;
}

/* Most tokens that come together: what is given at once, and what sessions can hold. */
static size_t n_step_tokens_of(const struct mb_config *c, const struct mb_model_options *options)
{
    uint64_t n = options->n_step_tokens == 0 ? MB_PASS_TOKENS : options->n_step_tokens, n_held;
    if (mb_mul_u64(n_ctx_of(c, options), n_sessions_of(options), &n_held) && n_held < n)
        n = n_held;
    return n < MB_PASS_TOKENS ? (size_t)n : MB_PASS_TOKENS;
}

/* Views and lists of matrices, which are made while the model is opened. */
static uint64_t lists_nbytes(const struct mb_config *c)
{
    uint64_t n = 0;
    for (size_t i = 0; i < c->n_layers; i++)
        n += MB_LAYER_WEIGHTS_MAX + MB_N_EXPERT_MATRICES * c->mlps[c->mlp_of[i]].router.n_experts;
    return n * (sizeof(struct mb_matrix) + sizeof(struct mb_model_matrix) + 4 * sizeof(void *));
}

/* Experts that one token goes to in a layer. */
static size_t n_used_max(const struct mb_config *c)
{
    size_t n = 1;
    for (size_t i = 0; i < c->n_mlps; i++)
        if (c->mlps[i].kind->has_experts && c->mlps[i].router.n_used > n)
            n = c->mlps[i].router.n_used;
    return n;
}

static uint64_t files_nbytes(const struct mb_checkpoint *ckpt)
{
    uint64_t nbytes = 0;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++)
        nbytes = add_capped(nbytes, mb_checkpoint_tensor(ckpt, i)->nbytes);
    return nbytes;
}

/* Plain models are mapped: the kernel keeps what it likes of them, which nobody can hold to a limit. */
static enum mb_status check_plain(const struct mb_model *model, uint64_t other_nbytes, struct mb_error *err)
{
    uint64_t nbytes = add_capped(files_nbytes(model->ckpt), other_nbytes);
    if (mb_checkpoint_is_coded(model->ckpt) || nbytes <= model->memory_nbytes)
        return MB_OK;
    return mb_fail(err, MB_NO_MEMORY,
                   "%s: %" PRIu64 " MiB of memory are too little: %" PRIu64
                   " MiB are needed, since only coded models can be streamed ('moebius compress' makes one)",
                   mb_checkpoint_path(model->ckpt), model->memory_nbytes / MIB, nbytes / MIB + 1);
}

/* ---------------------------------------------------------------- passes */

void mb_passes_nbytes(struct mb_config *config, int n_threads, uint64_t nbytes[MB_PASS_SIZES])
{
    const size_t n_tokens = config->n_pass_tokens;
    for (size_t i = 0; i < MB_PASS_SIZES; i++) {
        config->n_pass_tokens = MB_PASS_TOKENS >> i;
        nbytes[i] = mb_workspace_nbytes(config, n_threads);
    }
    config->n_pass_tokens = n_tokens;
}

static uint64_t rest_of(uint64_t nbytes, uint64_t taken)
{
    return nbytes > taken ? nbytes - taken : 0;
}

/*
 * Smaller passes read the experts of a prompt more often, larger ones leave memory for fewer of them.  So
 * first of all all experts fit; else a pass takes no more than they do, and leaves room for what a token uses
 * in a few layers.
 */
size_t mb_pass_tokens_for(const uint64_t passes_nbytes[MB_PASS_SIZES], size_t n_step_tokens,
                          uint64_t left_nbytes, uint64_t experts_nbytes, uint64_t wave_nbytes)
{
    size_t i = 0, first;
    while (i + 1 < MB_PASS_SIZES && (size_t)MB_PASS_TOKENS >> (i + 1) >= n_step_tokens)
        i++;
    first = i;
    while (i < MB_PASS_SIZES && rest_of(left_nbytes, passes_nbytes[i]) < experts_nbytes)
        i++;
    if (i < MB_PASS_SIZES)
        return (size_t)MB_PASS_TOKENS >> i;
    for (i = first; i + 1 < MB_PASS_SIZES; i++) {
        uint64_t rest = rest_of(left_nbytes, passes_nbytes[i]);
        if (rest >= passes_nbytes[i] && rest / N_WAVES_MIN >= wave_nbytes)
            break;
    }
    return (size_t)MB_PASS_TOKENS >> i;
}

/* Returns what a pass takes. */
static uint64_t choose_pass(struct mb_model *model, const struct mb_model_options *options,
                            uint64_t other_nbytes)
{
    struct mb_config *c = &model->config;
    const int n_threads = mb_pool_n_threads(model->pool);
    const struct mb_index_totals n = mb_index_total(model->index);
    uint64_t passes[MB_PASS_SIZES], fixed = add_capped(n.kept_nbytes, other_nbytes), wave;
    if (!mb_mul_u64(n.expert_nbytes_max, n_used_max(c), &wave))
        wave = UINT64_MAX;
    mb_passes_nbytes(c, n_threads, passes);
    model->info.n_step_tokens = n_step_tokens_of(c, options);
    if (mb_checkpoint_is_coded(model->ckpt))
        c->n_pass_tokens = mb_pass_tokens_for(passes, model->info.n_step_tokens,
                                              rest_of(model->memory_nbytes, fixed), n.experts_nbytes, wave);
    return mb_workspace_nbytes(c, n_threads);
}

/* ---------------------------------------------------------------- the limit */

enum mb_status mb_budget_make(struct mb_model *model, const struct mb_model_options *options,
                              struct mb_store_options *store, struct mb_error *err)
{
    const struct mb_config *c = &model->config;
    uint64_t used_nbytes = mb_memory_used(), caches = caches_nbytes(c, options);
    uint64_t other_nbytes = add_capped(used_nbytes + lists_nbytes(c), caches);
    bool is_given = options->memory_nbytes > 0;
    model->memory_nbytes = is_given ? options->memory_nbytes : found_nbytes(used_nbytes);
    other_nbytes = add_capped(other_nbytes, choose_pass(model, options, other_nbytes));
    model->cache_nbytes_max = is_given ? caches : UINT64_MAX;
    store->memory_nbytes = model->memory_nbytes;
    store->other_nbytes = other_nbytes;
    store->n_experts_min = n_used_max(c);
    store->expert_policy = options->expert_policy;
    store->expert_link = options->expert_link;
    store->expert_usage = options->expert_usage;
    store->n_expert_usage = options->n_expert_usage;
    return is_given ? check_plain(model, other_nbytes, err) : MB_OK;
}
