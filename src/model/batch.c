/*
 * batch.c - cuts a batch of items into passes, and feeds them.
 *
 * How a batch is cut does not change results: every token's arithmetic depends on its own session alone.
 *
 * A session whose cache is not what its tokens need is fed again from the first one on: one that becomes long
 * (config.n_ctx_short), one that lost rows in a batch that failed, and one that lacks the first layers.
 */
#include "base/error.h"
#include "model.h"
#include <string.h>

static enum mb_status check_item(const struct mb_model *model, const struct mb_batch_item *item, size_t i,
                                 struct mb_error *err)
{
    if (item->session == NULL || item->session->model != model)
        return mb_fail(err, MB_USAGE, "item %zu of the batch: not a session of this model", i);
    if (item->session->is_in_batch)
        return mb_fail(err, MB_USAGE, "item %zu of the batch: its session is there twice", i);
    if (item->is_generated && item->n_tokens != 1)
        return mb_fail(err, MB_USAGE, "item %zu of the batch: %zu generated tokens, not one", i,
                       item->n_tokens);
    size_t n_ctx = item->session->options.n_ctx, n_past = item->session->n_past;
    if (item->n_tokens > n_ctx - n_past)
        return mb_fail(err, MB_USAGE,
                       "item %zu of the batch: %zu tokens after %zu do not fit a context of %zu", i,
                       item->n_tokens, n_past, n_ctx);
    for (size_t t = 0; t < item->n_tokens; t++)
        if (item->tokens[t] < 0 || (size_t)item->tokens[t] >= model->config.n_vocab)
            return mb_fail(err, MB_USAGE, "item %zu of the batch: token %d is not in the vocabulary of %zu",
                           i, (int)item->tokens[t], model->config.n_vocab);
    return MB_OK;
}

static size_t first_layer_of(const struct mb_batch_item *item)
{
    return item->hidden != NULL ? item->hidden->first_layer : 0;
}

static size_t end_layer_of(const struct mb_model *model, const struct mb_batch_item *item)
{
    bool has_end = item->hidden != NULL && item->hidden->end_layer > 0;
    return has_end ? item->hidden->end_layer : model->config.n_layers;
}

static bool becomes_long(const struct mb_model *model, const struct mb_batch_item *item)
{
    size_t n_short = model->config.n_ctx_short;
    return n_short > 0 && item->session->n_past + item->n_tokens > n_short;
}

/* Whether the session's tokens have to be fed again before those of the item. */
static bool is_unfit(const struct mb_model *model, const struct mb_batch_item *item)
{
    const struct mb_session *session = item->session;
    return session->n_past > 0 && (session->is_stale || session->is_long != becomes_long(model, item) ||
                                   session->first_layer > first_layer_of(item));
}

static enum mb_status check_end(const struct mb_model *model, const struct mb_batch_item *items, size_t i,
                                struct mb_error *err)
{
    size_t n_layers = model->config.n_layers, end = end_layer_of(model, &items[i]);
    if (end != end_layer_of(model, &items[0]))
        return mb_fail(err, MB_USAGE, "item %zu of the batch ends at layer %zu, item 0 at layer %zu", i, end,
                       end_layer_of(model, &items[0]));
    if (end > n_layers || (end < n_layers && end <= first_layer_of(&items[i])))
        return mb_fail(err, MB_USAGE, "item %zu of the batch ends at layer %zu: it begins at %zu of %zu", i,
                       end, first_layer_of(&items[i]), n_layers);
    if (end < n_layers && items[i].logits != NULL)
        return mb_fail(err, MB_USAGE, "item %zu of the batch ends at layer %zu of %zu: no logits", i, end,
                       n_layers);
    return MB_OK;
}

static enum mb_status check_hidden(const struct mb_model *model, const struct mb_batch_item *items, size_t i,
                                   struct mb_error *err)
{
    size_t first = first_layer_of(&items[i]);
    if (first != first_layer_of(&items[0]))
        return mb_fail(err, MB_USAGE, "item %zu of the batch begins at layer %zu, item 0 at layer %zu", i,
                       first, first_layer_of(&items[0]));
    if (first > model->config.n_layers)
        return mb_fail(err, MB_USAGE, "item %zu of the batch begins at layer %zu of %zu", i, first,
                       model->config.n_layers);
    if (first > 0 && items[i].n_tokens > 0 && items[i].hidden->in == NULL)
        return mb_fail(err, MB_USAGE, "item %zu of the batch begins at layer %zu without hidden states", i,
                       first);
    if (first > 0 && items[i].n_tokens > 0 && is_unfit(model, &items[i]))
        return mb_fail(err, MB_USAGE,
                       "item %zu of the batch begins at layer %zu, but its session has to compute its tokens "
                       "from the first layer: reset it",
                       i, first);
    return check_end(model, items, i, err);
}

static enum mb_status check_items(const struct mb_model *model, const struct mb_batch_item *items,
                                  size_t n_items, struct mb_error *err)
{
    size_t n = 0;
    enum mb_status status = MB_OK;
    for (; n < n_items && status == MB_OK; n++) {
        status = check_item(model, &items[n], n, err);
        if (status == MB_OK)
            status = check_hidden(model, items, n, err);
        if (status != MB_OK)
            break;
        items[n].session->is_in_batch = true;
    }
    for (size_t i = 0; i < n; i++)
        items[i].session->is_in_batch = false;
    return status;
}

/* Begins with tokens that have to be fed again. */
static void begin_item(const struct mb_model *model, const struct mb_batch_item *item)
{
    struct mb_session *session = item->session;
    session->n_fed = session->n_again = 0;
    session->n_before = session->n_past;
    if (item->n_tokens == 0)
        return;
    bool is_long = becomes_long(model, item);
    if (session->n_past == 0 || is_unfit(model, item)) {
        session->n_again = session->n_past;
        session->n_past = session->n_prompt = session->n_high = session->first_layer = 0;
    }
    session->is_stale = false;
    session->is_long = is_long;
    if (first_layer_of(item) > session->first_layer)
        session->first_layer = first_layer_of(item);
}

static bool is_behind(const struct mb_session *session)
{
    return session->n_past < session->n_again;
}

/* Tokens of a session become a segment of the pass, as many as there is room for; returns how many. */
static size_t add_segment(struct mb_model *model, struct mb_segment segment, const int32_t *tokens, size_t n)
{
    struct mb_workspace *work = &model->work;
    size_t room = model->config.n_pass_tokens - work->n_tokens;
    n = n < room ? n : room;
    if (n == 0)
        return 0;
    segment.first = work->n_tokens;
    segment.n = n;
    segment.pos = segment.session->n_past;
    for (size_t i = 0; i < n; i++) {
        work->tokens[work->n_tokens] = tokens[i];
        work->pos[work->n_tokens] = segment.pos + i;
        work->segment_of[work->n_tokens++] = (uint32_t)work->n_segments;
    }
    work->segments[work->n_segments++] = segment;
    mb_session_record(segment.session, tokens, n, segment.is_generated);
    return n;
}

static void add_again(struct mb_model *model, struct mb_session *session)
{
    add_segment(model, (struct mb_segment){.session = session}, session->tokens + session->n_past,
                session->n_again - session->n_past);
}

/* Where the rows of a segment's logits go, and of which tokens there are some. */
static void place_rows(const struct mb_model *model, const struct mb_batch_item *item,
                       struct mb_segment *segment)
{
    size_t n_fed = item->session->n_fed, from = item->logits_from;
    segment->logits_from = from > n_fed ? from - n_fed : 0;
    if (segment->logits_from < segment->n)
        segment->logits = item->logits + (n_fed + segment->logits_from - from) * model->config.n_vocab;
}

/* The next tokens of an item. */
static void add_item(struct mb_model *model, const struct mb_batch_item *item)
{
    struct mb_session *session = item->session;
    struct mb_segment *segment = &model->work.segments[model->work.n_segments];
    size_t n = add_segment(model,
                           (struct mb_segment){.session = session,
                                               .is_generated = item->is_generated,
                                               .all_logits = item->all_logits,
                                               .hidden = item->hidden,
                                               .hidden_at = session->n_fed},
                           item->tokens + session->n_fed, item->n_tokens - session->n_fed);
    if (n == 0)
        return;
    if (item->logits != NULL && item->all_logits)
        place_rows(model, item, segment);
    else if (session->n_fed + n == item->n_tokens)
        segment->logits = item->logits;
    session->n_fed += n;
}

/* Prompts first: attention relies on that. Then generated tokens, while their partial sums have room. */
static void fill_pass(struct mb_model *model, const struct mb_batch_item *items, size_t n_items)
{
    struct mb_workspace *work = &model->work;
    size_t n_chunks = 0;
    work->n_tokens = work->n_segments = 0;
    for (size_t i = 0; i < n_items; i++) {
        if (is_behind(items[i].session))
            add_again(model, items[i].session);
        if (!items[i].is_generated && !is_behind(items[i].session))
            add_item(model, &items[i]);
    }
    for (size_t i = 0; i < n_items; i++) {
        const struct mb_session *session = items[i].session;
        if (!items[i].is_generated || session->n_fed > 0 || is_behind(session))
            continue;
        n_chunks += session->n_past / MB_CHUNK_TOKENS + 1;
        if (n_chunks > work->n_chunks_max)
            return;
        add_item(model, &items[i]);
    }
}

static void give_logits(struct mb_model *model)
{
    const struct mb_workspace *work = &model->work;
    for (size_t s = 0; s < work->n_segments; s++) {
        const struct mb_segment *segment = &work->segments[s];
        if (segment->logits == NULL)
            continue;
        if (!segment->all_logits) {
            mb_logits_add(model, segment->first + segment->n - 1, segment->logits);
            continue;
        }
        for (size_t i = segment->logits_from; i < segment->n; i++)
            mb_logits_add(model, segment->first + i,
                          segment->logits + (i - segment->logits_from) * model->config.n_vocab);
    }
    mb_logits_finish(model);
}

static enum mb_status run_passes(struct mb_model *model, const struct mb_batch_item *items, size_t n_items,
                                 struct mb_error *err)
{
    size_t first_layer = n_items > 0 ? first_layer_of(&items[0]) : 0;
    size_t end_layer = n_items > 0 ? end_layer_of(model, &items[0]) : 0;
    for (;;) {
        fill_pass(model, items, n_items);
        if (model->work.n_tokens == 0)
            return MB_OK;
        MB_TRY(mb_pass_run(model, first_layer, end_layer, err));
        give_logits(model);
    }
}

/* After a failure, sessions hold the tokens that they held before; what their caches lost is fed again. */
static void take_back(const struct mb_batch_item *items, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++) {
        struct mb_session *session = items[i].session;
        session->is_stale = session->n_again > 0 || !mb_session_can_rewind(session, session->n_before);
        session->n_past = session->n_before;
        if (session->is_stale || session->n_past < session->n_prompt)
            session->n_prompt = session->n_past;
    }
}

/* Sessions whose tokens did not go through all layers. */
static void mark_stale(const struct mb_model *model, const struct mb_batch_item *items, size_t n_items)
{
    for (size_t i = 0; i < n_items; i++)
        if (items[i].n_tokens > 0 && end_layer_of(model, &items[i]) < model->config.n_layers)
            items[i].session->is_stale = true;
}

enum mb_status mb_decode(struct mb_model *model, const struct mb_batch_item *items, size_t n_items,
                         struct mb_error *err)
{
    MB_TRY(check_items(model, items, n_items, err));
    for (size_t i = 0; i < n_items; i++)
        begin_item(model, &items[i]);
    enum mb_status status = run_passes(model, items, n_items, err);
    if (status != MB_OK)
        take_back(items, n_items);
    else
        mark_stale(model, items, n_items);
    return status;
}
