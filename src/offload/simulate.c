/*
 * simulate.c - a trace in place of a model, a link in place of a disk: what a policy finds in memory, and how
 * long tokens take.
 *
 * It follows the store: who is in memory after a token is the same for both (a test compares them), as long
 * as neither prompts nor guesses are read, which depend on time there.
 *
 * A generated token goes through the layers one by one.  In each, attention and router take their time, then
 * all missing experts are asked for at once; shared experts and those in memory are multiplied while they
 * come, then what has arrived is multiplied together.  Reads have ranges, lines and checks as in the store
 * (sim_reads.h).  A prompt takes no time here: its experts are read once for each layer, and beyond a share
 * of memory they replace one another.
 */
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/splitmix.h"
#include "future.h"
#include "policy.h"
#include "sim_reads.h"
#include <stdlib.h>
#include <string.h>

enum { N_PASS_TOKENS = 512, ONCE_SHARE = 8 /* of memory is for prompts */, N_GUESSES_READING = 2 };
enum { N_WAVE_STAGES = 2 };

/* An expert. */
struct place {
    bool is_loaded;
    bool is_there;         /* it has been read and checked */
    bool is_fresh;         /* not used since it was read */
    bool is_guess;         /* read for a guess, and not used since */
    bool is_guess_filling; /* in line as a guess, and not done */
    bool is_once;          /* read for a prompt, and not used since */
    uint64_t pinned;       /* the last wave that needs it */
};

/* How guesses of a layer went, in the window that is under way. */
struct guess_record {
    uint32_t n_read, n_used;
    uint64_t from_token; /* no guess is made before it */
};

/* A token's experts of a layer, by number, as the store goes through them. */
struct wanted {
    size_t experts[MB_TRACE_USED_MAX];
    float gates[MB_TRACE_USED_MAX];
    size_t n;
};

struct simulator {
    const struct mb_trace *trace;
    const struct mb_simulation_options *options;
    struct mb_policy *policy;
    struct mb_future future; /* of belady */
    bool is_belady;
    struct mb_link link;
    bool has_link;
    size_t n_layers, n_experts, n_used;
    struct place *places; /* [n_layers * n_experts] */
    uint64_t wave;        /* tokens that go through a layer together */
    uint64_t n_passes;
    uint64_t used_nbytes, once_nbytes;
    struct mb_sim_reads reads; /* has the clock */
    size_t guesses[MB_TRACE_USED_MAX], n_guesses, n_guesses_begun, n_guesses_filling;
    struct guess_record *records; /* [n_layers] */
    size_t token;                 /* that is computed */
    bool is_counted;
    struct mb_simulation *result;
};

static uint64_t nbytes_of(const struct simulator *s, size_t expert)
{
    return s->options->nbytes[expert];
}

static uint64_t compute_ns(const struct simulator *s, uint64_t nbytes)
{
    if (s->options->compute_bytes_per_s == 0)
        return 0;
    return (uint64_t)((double)nbytes * 1e9 / (double)s->options->compute_bytes_per_s);
}

/* ---------------------------------------------------------------- memory */

static bool may_evict(void *ctx, size_t expert)
{
    const struct simulator *s = ctx;
    return s->places[expert].pinned != s->wave && s->places[expert].is_there;
}

static bool may_evict_once(void *ctx, size_t expert)
{
    const struct simulator *s = ctx;
    return may_evict(ctx, expert) && s->places[expert].is_once;
}

static void end_once(struct simulator *s, size_t expert)
{
    s->once_nbytes -= s->places[expert].is_once ? nbytes_of(s, expert) : 0;
    s->places[expert].is_once = false;
}

static void evict(struct simulator *s, size_t expert)
{
    mb_policy_evicted(s->policy, expert);
    end_once(s, expert);
    s->places[expert].is_loaded = s->places[expert].is_there = s->places[expert].is_guess = false;
    s->used_nbytes -= nbytes_of(s, expert);
}

/* false: nothing more may leave now. */
static bool make_room(struct simulator *s, uint64_t nbytes, bool is_once)
{
    while (s->used_nbytes + nbytes > s->options->memory_nbytes) {
        bool only_once = is_once && s->once_nbytes > s->options->memory_nbytes / ONCE_SHARE;
        size_t victim = MB_NO_EXPERT;
        if (only_once)
            victim = mb_policy_victim(s->policy, may_evict_once, s);
        if (victim == MB_NO_EXPERT)
            victim = mb_policy_victim(s->policy, may_evict, s);
        if (victim == MB_NO_EXPERT)
            return false;
        evict(s, victim);
    }
    return true;
}

static void load(struct simulator *s, size_t expert, size_t token)
{
    s->places[expert].is_loaded = s->places[expert].is_fresh = true;
    s->used_nbytes += nbytes_of(s, expert);
    mb_policy_loaded(s->policy, expert);
    if (s->is_belady)
        mb_policy_set_next_use(s->policy, expert, mb_future_next(&s->future, expert, token));
}

static void touch(struct simulator *s, size_t expert, float gate, size_t token)
{
    mb_policy_touch(s->policy, expert, gate, s->n_passes);
    if (s->is_belady)
        mb_policy_set_next_use(s->policy, expert, mb_future_next(&s->future, expert, token));
}

static struct wanted wanted_of(const struct simulator *s, size_t token, size_t layer)
{
    struct mb_trace_token row = mb_trace_token(s->trace, token);
    const uint16_t *chosen = row.experts + layer * s->n_used;
    struct wanted w = {0};
    if (*chosen == MB_TRACE_NONE)
        return w;
    for (; w.n < s->n_used; w.n++) {
        size_t i = w.n, expert = layer * s->n_experts + chosen[w.n];
        for (; i > 0 && w.experts[i - 1] > expert; i--) {
            w.experts[i] = w.experts[i - 1];
            w.gates[i] = w.gates[i - 1];
        }
        w.experts[i] = expert;
        w.gates[i] = row.gates[layer * s->n_used + w.n];
    }
    return w;
}

/* ---------------------------------------------------------------- reads */

/* In line to be read. false: there is no room now. */
static bool begin_expert(struct simulator *s, size_t expert, bool is_guess)
{
    struct place *place = &s->places[expert];
    if (!make_room(s, nbytes_of(s, expert), false))
        return false;
    load(s, expert, s->token);
    place->is_guess = place->is_guess_filling = is_guess;
    s->n_guesses_filling += is_guess;
    s->result->read_nbytes += s->is_counted ? nbytes_of(s, expert) : 0;
    mb_sim_reads_add(&s->reads, expert, is_guess);
    return true;
}

/* The next guesses, few at a time. */
static void begin_guesses(struct simulator *s)
{
    for (; s->n_guesses_begun < s->n_guesses && s->n_guesses_filling < N_GUESSES_READING;
         s->n_guesses_begun++) {
        size_t expert = s->guesses[s->n_guesses_begun];
        if (!s->places[expert].is_loaded && !begin_expert(s, expert, true))
            return;
    }
}

/* An mb_sim_done_fn. */
static void end_expert(void *ctx, size_t expert)
{
    struct simulator *s = ctx;
    struct place *place = &s->places[expert];
    place->is_there = true;
    s->n_guesses_filling -= place->is_guess_filling;
    place->is_guess_filling = false;
    s->records[expert / s->n_experts].n_read += place->is_guess;
    begin_guesses(s);
}

/* ---------------------------------------------------------------- guesses */

/* As in the store: mostly wrong guesses are not read for a while. */
static bool takes_guesses(struct simulator *s, struct guess_record *record)
{
    if (record->n_read >= MB_GUESS_WINDOW) {
        bool are_good = 100 * record->n_used >= MB_GUESS_USED_PERCENT * record->n_read;
        *record = (struct guess_record){.from_token = are_good ? 0 : s->n_passes + MB_GUESS_PAUSE_TOKENS};
    }
    return s->n_passes >= record->from_token;
}

/* A wrong guess: what another token uses, so that popular experts are guessed more often. */
static size_t wrong_guess(const struct simulator *s, size_t layer, size_t k, uint64_t chance)
{
    const struct wanted w = wanted_of(s, (size_t)(chance % mb_trace_n_tokens(s->trace)), layer);
    return k < w.n ? w.experts[k] : layer * s->n_experts;
}

/* What the layer before guesses, in the order of the router's choice: of so many experts the share that is
 * right. */
static void guess(struct simulator *s, size_t layer)
{
    s->n_guesses = s->n_guesses_begun = 0;
    if (s->options->lookahead <= 0 || layer >= s->n_layers || !takes_guesses(s, &s->records[layer]))
        return;
    const uint16_t *chosen = mb_trace_token(s->trace, s->token).experts + layer * s->n_used;
    for (size_t k = 0; k < s->n_used && *chosen != MB_TRACE_NONE; k++) {
        uint64_t chance =
            mb_splitmix_spread(((uint64_t)s->token * s->n_layers + layer) * MB_TRACE_USED_MAX + k + 1);
        bool is_right = (double)(chance >> 11) * 0x1p-53 < s->options->lookahead;
        s->guesses[s->n_guesses++] = is_right ? layer * s->n_experts + chosen[k]
                                              : wrong_guess(s, layer, k, mb_splitmix_spread(chance));
    }
    begin_guesses(s);
}

/* A guess that is wanted goes on as what somebody waits for; another one that has not begun is forgotten. */
static void settle_guesses(struct simulator *s)
{
    const struct mb_sim_line line = s->reads.hints;
    s->n_guesses = s->n_guesses_begun = 0;
    s->reads.hints.n = 0;
    for (size_t i = 0; i < line.n; i++) {
        const struct mb_sim_read *read = &line.reads[i];
        struct place *place = &s->places[read->expert];
        bool is_wanted = place->pinned == s->wave;
        if (!is_wanted && mb_sim_reads_is_flying(&s->reads, read->expert)) {
            s->reads.hints.reads[s->reads.hints.n++] = *read;
            continue;
        }
        s->n_guesses_filling--;
        place->is_guess_filling = false;
        if (is_wanted)
            s->reads.demand.reads[s->reads.demand.n++] = *read;
        else {
            s->result->read_nbytes -= s->is_counted ? nbytes_of(s, read->expert) : 0;
            evict(s, read->expert);
        }
    }
}

/* ---------------------------------------------------------------- generated tokens */

/*
 * Products, on all threads.  What is done for reads meanwhile takes one of them: the others do its part, but
 * for a piece that it has begun, which they wait for.
 */
static void pass_time(struct simulator *s, uint64_t ns)
{
    uint64_t before_ns = mb_sim_reads_worked_ns(&s->reads), until_ns = s->reads.now_ns + ns;
    mb_sim_reads_advance(&s->reads, until_ns);
    if (s->options->n_threads == 0)
        return;
    const uint64_t worked_ns = mb_sim_reads_worked_ns(&s->reads) - before_ns;
    const uint64_t part_ns = worked_ns / s->options->n_threads,
                   piece_ns = worked_ns > ns ? worked_ns - ns : 0;
    mb_sim_reads_advance(&s->reads, until_ns + (part_ns > piece_ns ? part_ns : piece_ns));
}

/* Multiplies what is there and not done, after 'nbytes' of others. Returns how many there were. */
static size_t multiply_present(struct simulator *s, const struct wanted *w, bool is_done[MB_TRACE_USED_MAX],
                               uint64_t nbytes)
{
    size_t n = 0;
    for (size_t k = 0; k < w->n; k++) {
        struct place *place = &s->places[w->experts[k]];
        if (is_done[k] || !place->is_there)
            continue;
        is_done[k] = true;
        place->is_fresh = place->is_guess = false;
        nbytes += nbytes_of(s, w->experts[k]);
        n++;
    }
    uint64_t stages_ns = n > 0 ? s->options->wave_ns : nbytes > 0 ? s->options->wave_ns / N_WAVE_STAGES : 0;
    pass_time(s, compute_ns(s, nbytes) + stages_ns);
    for (size_t k = 0; k < w->n && n > 0; k++)
        if (is_done[k])
            s->places[w->experts[k]].pinned = 0;
    return n;
}

static void ask_missing(struct simulator *s, const struct wanted *w, const bool is_done[MB_TRACE_USED_MAX])
{
    for (size_t k = 0; k < w->n; k++)
        if (!is_done[k] && !s->places[w->experts[k]].is_loaded && !begin_expert(s, w->experts[k], false))
            break;
    mb_sim_reads_begin(&s->reads);
    mb_sim_reads_advance(&s->reads, s->reads.now_ns);
}

static bool is_there_some(const struct simulator *s, const struct wanted *w,
                          const bool is_done[MB_TRACE_USED_MAX])
{
    for (size_t k = 0; k < w->n; k++)
        if (!is_done[k] && s->places[w->experts[k]].is_there)
            return true;
    return false;
}

static void wait_for_some(struct simulator *s, const struct wanted *w, const bool is_done[MB_TRACE_USED_MAX])
{
    const uint64_t begun_ns = s->reads.now_ns;
    while (!is_there_some(s, w, is_done)) {
        uint64_t next_ns = mb_sim_reads_next(&s->reads);
        mb_sim_reads_advance(&s->reads, next_ns == UINT64_MAX ? s->reads.now_ns : next_ns);
        ask_missing(s, w, is_done);
    }
    mb_sim_reads_advance(&s->reads, s->reads.now_ns + s->options->wake_ns);
    s->result->waited_ns += s->is_counted ? s->reads.now_ns - begun_ns : 0;
}

static void multiply(struct simulator *s, const struct wanted *w)
{
    bool is_done[MB_TRACE_USED_MAX] = {false};
    uint64_t shared_nbytes = s->options->shared_nbytes / s->n_layers;
    for (size_t n_done = 0; n_done < w->n; shared_nbytes = 0) {
        if (shared_nbytes == 0 && !is_there_some(s, w, is_done))
            wait_for_some(s, w, is_done);
        pass_time(s, mb_sim_reads_is_over(&s->reads) ? 0 : s->options->call_ns);
        n_done += multiply_present(s, w, is_done, shared_nbytes);
        ask_missing(s, w, is_done);
    }
    pass_time(s, compute_ns(s, shared_nbytes));
}

static uint64_t before_layer_ns(const struct simulator *s)
{
    const struct mb_simulation_options *o = s->options;
    uint64_t later_nbytes = o->shared_nbytes + o->head_nbytes;
    return (compute_ns(s, o->dense_nbytes > later_nbytes ? o->dense_nbytes - later_nbytes : 0) +
            o->token_ns) /
           s->n_layers;
}

static void run_layer(struct simulator *s, size_t layer)
{
    const struct wanted w = wanted_of(s, s->token, layer);
    static const bool none[MB_TRACE_USED_MAX];
    pass_time(s, before_layer_ns(s));
    s->wave++;
    for (size_t k = 0; k < w.n; k++) {
        struct place *place = &s->places[w.experts[k]];
        place->pinned = s->wave;
        touch(s, w.experts[k], w.gates[k], s->token);
        s->result->n_hits += s->is_counted && place->is_loaded && !place->is_fresh;
        s->records[layer].n_used += place->is_guess;
        end_once(s, w.experts[k]);
    }
    settle_guesses(s);
    const uint64_t n_before = s->reads.n_requests;
    ask_missing(s, &w, none);
    const uint64_t ns = mb_sim_reads_asking_ns(&s->reads, n_before), n_missing = s->reads.n_requests;
    guess(s, layer + 1);
    mb_sim_reads_begin(&s->reads);
    pass_time(s, ns + mb_sim_reads_asking_ns(&s->reads, n_missing));
    multiply(s, &w);
    s->result->n_uses += s->is_counted ? w.n : 0;
}

static void run_token(struct simulator *s, size_t token, bool is_counted)
{
    uint64_t began_ns = s->reads.now_ns, busy_ns = s->link.busy_ns;
    s->n_passes++;
    s->token = token;
    s->is_counted = is_counted;
    const uint64_t n_before = s->reads.n_requests;
    guess(s, 0);
    mb_sim_reads_begin(&s->reads);
    pass_time(s, mb_sim_reads_asking_ns(&s->reads, n_before));
    for (size_t l = 0; l < s->n_layers; l++)
        run_layer(s, l);
    pass_time(s, compute_ns(s, s->options->head_nbytes));
    if (!is_counted)
        return;
    s->result->n_tokens++;
    s->result->total_ns += s->reads.now_ns - began_ns;
    s->result->busy_ns += s->link.busy_ns - busy_ns;
}

/* ---------------------------------------------------------------- prompts */

static void pin_layer(struct simulator *s, size_t first, size_t n, size_t layer)
{
    s->wave++;
    for (size_t t = first; t < first + n; t++) {
        const struct wanted w = wanted_of(s, t, layer);
        for (size_t k = 0; k < w.n; k++)
            s->places[w.experts[k]].pinned = s->wave;
    }
}

/* The tokens of a prompt that go through the layers together: what one of them needs is read for all. */
static void run_pass(struct simulator *s, size_t first, size_t n)
{
    s->n_passes++;
    for (size_t l = 0; l < s->n_layers; l++) {
        pin_layer(s, first, n, l);
        for (size_t e = l * s->n_experts; e < (l + 1) * s->n_experts; e++) {
            struct place *place = &s->places[e];
            if (place->pinned != s->wave)
                continue;
            if (!place->is_loaded) {
                s->result->prompt_nbytes += nbytes_of(s, e);
                place->is_once = make_room(s, nbytes_of(s, e), true);
            }
            if (place->is_once && !place->is_loaded) {
                load(s, e, first + n - 1);
                place->is_there = true;
                place->is_fresh = false;
                s->once_nbytes += nbytes_of(s, e);
            }
            place->pinned = 0; /* it has been multiplied */
        }
    }
}

static bool is_prompt(const struct simulator *s, size_t token)
{
    return !s->options->are_all_generated && !mb_trace_token(s->trace, token).is_generated;
}

static size_t pass_at(const struct simulator *s, size_t first)
{
    uint32_t sequence = mb_trace_token(s->trace, first).sequence;
    size_t n = 1;
    const size_t n_max = s->options->n_pass_tokens > 0 ? s->options->n_pass_tokens : N_PASS_TOKENS;
    while (n < n_max && first + n < mb_trace_n_tokens(s->trace) && is_prompt(s, first + n) &&
           mb_trace_token(s->trace, first + n).sequence == sequence)
        n++;
    return n;
}

static void run_all(struct simulator *s)
{
    uint32_t sequence = 0;
    size_t n_generated = 0;
    for (size_t t = 0, n; t < mb_trace_n_tokens(s->trace); t += n) {
        if (mb_trace_token(s->trace, t).sequence != sequence)
            mb_policy_begin_sequence(s->policy);
        sequence = mb_trace_token(s->trace, t).sequence;
        n = is_prompt(s, t) ? pass_at(s, t) : 1;
        if (is_prompt(s, t))
            run_pass(s, t, n);
        else
            run_token(s, t, n_generated++ >= s->options->n_warm);
    }
}

/* ---------------------------------------------------------------- one simulation */

static int from_largest(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* The most that a token's experts of one layer can need. */
static enum mb_status find_wave_nbytes(const struct simulator *s, uint64_t *wave_nbytes, struct mb_error *err)
{
    uint64_t *sorted = mb_alloc(s->n_experts, sizeof *sorted);
    if (sorted == NULL)
        return mb_fail_memory(err, "a simulation");
    *wave_nbytes = 0;
    for (size_t l = 0; l < s->n_layers; l++) {
        uint64_t sum = 0;
        memcpy(sorted, s->options->nbytes + l * s->n_experts, s->n_experts * sizeof *sorted);
        qsort(sorted, s->n_experts, sizeof *sorted, from_largest);
        for (size_t k = 0; k < s->n_used; k++)
            sum += sorted[k];
        *wave_nbytes = sum > *wave_nbytes ? sum : *wave_nbytes;
    }
    free(sorted);
    return MB_OK;
}

static enum mb_status check(const struct simulator *s, struct mb_error *err)
{
    uint64_t wave_nbytes;
    if (s->options->nbytes == NULL)
        return mb_fail(err, MB_USAGE, "a simulation needs the bytes of experts");
    for (size_t e = 0; e < s->n_layers * s->n_experts; e++)
        if (nbytes_of(s, e) > UINT64_MAX >> 24)
            return mb_fail(err, MB_USAGE, "an expert of %" PRIu64 " bytes", nbytes_of(s, e));
    if (!(s->options->lookahead >= 0 && s->options->lookahead <= 1))
        return mb_fail(err, MB_USAGE, "a share of right guesses has to be from 0 to 1");
    MB_TRY(find_wave_nbytes(s, &wave_nbytes, err));
    if (s->options->memory_nbytes < wave_nbytes)
        return mb_fail(err, MB_USAGE,
                       "%" PRIu64
                       " bytes of memory for experts: a token's experts of one layer need %" PRIu64,
                       s->options->memory_nbytes, wave_nbytes);
    return MB_OK;
}

/* A byte more where the latency of a read is not hidden by others. */
static uint64_t request_nbytes(const struct simulator *s)
{
    if (!s->has_link)
        return 0;
    double seconds = (double)s->link.options.latency_ns * 1e-9 / s->link.options.depth;
    return (uint64_t)(seconds * (double)s->link.options.bytes_per_s);
}

static enum mb_status open_policy(struct simulator *s, struct mb_error *err)
{
    struct mb_policy_options options = {.size = sizeof options,
                                        .n_layers = s->n_layers,
                                        .n_experts = s->n_experts,
                                        .nbytes = s->options->nbytes,
                                        .request_nbytes = request_nbytes(s),
                                        .half_life = s->options->half_life,
                                        .usage = s->options->usage};
    if (!s->is_belady)
        return mb_policy_open(s->options->policy, &options, &s->policy, err);
    MB_TRY(mb_future_open(&s->future, s->trace, s->options->are_all_generated, err));
    return mb_policy_open_kind(&mb_policy_belady, &options, &s->policy, err);
}

static enum mb_status simulate(struct simulator *s, struct mb_error *err)
{
    size_t n = s->n_layers * s->n_experts;
    MB_TRY(check(s, err));
    if (s->has_link)
        MB_TRY(mb_link_init(&s->link, &s->options->link, err));
    MB_TRY(open_policy(s, err));
    s->places = mb_alloc(n, sizeof *s->places);
    s->records = mb_alloc(s->n_layers, sizeof *s->records);
    s->reads = (struct mb_sim_reads){.link = s->has_link ? &s->link : NULL,
                                     .check_bytes_per_s = s->options->check_bytes_per_s,
                                     .n_threads = s->options->n_threads,
                                     .ask_ns = s->options->ask_ns,
                                     .request_ns = s->options->request_ns,
                                     .reap_ns = s->options->reap_ns,
                                     .arrive_ns = s->options->arrive_ns,
                                     .done = end_expert,
                                     .ctx = s,
                                     .nbytes = s->options->nbytes};
    if (s->places == NULL || s->records == NULL)
        return mb_fail_memory(err, "a simulation");
    run_all(s);
    return MB_OK;
}

enum mb_status mb_simulate(const struct mb_trace *trace, const struct mb_simulation_options *given,
                           struct mb_simulation *result, struct mb_error *err)
{
    struct mb_simulation_options options;
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    const struct mb_trace_shape *shape = mb_trace_shape(trace);
    struct simulator s = {
        .trace = trace,
        .options = &options,
        .is_belady = options.policy != NULL && strcmp(options.policy, mb_policy_belady.info.name) == 0,
        .has_link = options.link.bytes_per_s > 0,
        .n_layers = shape->n_layers,
        .n_experts = shape->n_experts,
        .n_used = shape->n_used,
        .result = result,
    };
    *result = (struct mb_simulation){0};
    enum mb_status status = simulate(&s, err);
    mb_policy_close(s.policy);
    mb_future_close(&s.future);
    free(s.places);
    free(s.records);
    return status;
}
