/*
 * parse_statement.c - the syntax of statements and of the template as a whole.
 */
#include "parser.h"

typedef struct mb_jinja_node node;

static node *parse_block(struct mb_jinja_parser *p, const char *const *ends);

/* After a block: the name of its end, and the end of that tag. */
static bool take_end_name(struct mb_jinja_parser *p, const char *name)
{
    bool taken;
    if (!mb_jinja_take_name(p, name, &taken))
        return false;
    return (taken || mb_jinja_fail_at(p, name) != NULL) && mb_jinja_expect_end(p);
}

/* After "if" or "elif": condition and block, up to what ends the block. */
static node *parse_if_part(struct mb_jinja_parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node *made = mb_jinja_new_node(p, MB_JINJA_N_IF);
    if (made == NULL)
        return NULL;
    made->a = mb_jinja_parse_expression(p);
    if (made->a == NULL || !mb_jinja_expect_end(p))
        return NULL;
    made->b = parse_block(p, ends);
    return made->b != NULL && mb_jinja_grow_over(p, made, made->a) && mb_jinja_grow_over(p, made, made->b)
               ? made
               : NULL;
}

static node *parse_if(struct mb_jinja_parser *p)
{
    static const char *const ends[] = {"endif", NULL};
    node *first = parse_if_part(p), *last = first;
    bool more = first != NULL;
    while (more) {
        if (!mb_jinja_take_name(p, "elif", &more))
            return NULL;
        if (!more)
            break;
        last->c = parse_if_part(p);
        if (last->c == NULL)
            return NULL;
        last = last->c;
        if (!mb_jinja_grow_over(p, first, last)) /* evaluation goes along the chain, not down */
            return NULL;
    }
    bool has_else;
    if (first == NULL || !mb_jinja_take_name(p, "else", &has_else))
        return NULL;
    if (has_else) {
        last->c = mb_jinja_expect_end(p) ? parse_block(p, ends) : NULL;
        if (last->c == NULL || !mb_jinja_grow_over(p, first, last->c))
            return NULL;
    }
    return take_end_name(p, "endif") ? first : NULL;
}

static node *parse_targets(struct mb_jinja_parser *p);

/* A name, or (names). */
static node *parse_target(struct mb_jinja_parser *p)
{
    bool has_parenthesis;
    if (!mb_jinja_take_op(p, "(", &has_parenthesis))
        return NULL;
    if (!has_parenthesis)
        return mb_jinja_parse_name(p);
    node *inner = mb_jinja_enter(p) ? parse_targets(p) : NULL;
    p->depth--;
    return inner != NULL && mb_jinja_expect_op(p, ")") ? inner : NULL;
}

/* What is set: one target, or several with commas. */
static node *parse_targets(struct mb_jinja_parser *p)
{
    node *first = parse_target(p);
    if (first == NULL || !mb_jinja_at_op(p, ","))
        return first;
    node *targets = mb_jinja_new_node(p, MB_JINJA_N_TARGETS);
    bool more = true;
    if (targets == NULL || !mb_jinja_add_item(p, targets, first))
        return NULL;
    while (
        mb_jinja_take_op(p, ",", &more) && more &&
        (mb_jinja_at_op(p, "(") || (p->lexer.token.kind == MB_JINJA_T_NAME && !mb_jinja_at_name(p, "in")))) {
        node *target = parse_target(p);
        if (target == NULL || !mb_jinja_add_item(p, targets, target))
            return NULL;
    }
    return p->run->status == MB_OK ? targets : NULL;
}

/* An "if" after it is the loop's condition. */
static node *parse_iterable(struct mb_jinja_parser *p)
{
    node *first = mb_jinja_parse_or(p);
    if (first == NULL || !mb_jinja_at_op(p, ","))
        return first;
    node *tuple = mb_jinja_new_node(p, MB_JINJA_N_TUPLE);
    bool more = true;
    if (tuple == NULL || !mb_jinja_add_item(p, tuple, first))
        return NULL;
    while (mb_jinja_take_op(p, ",", &more) && more) {
        node *item = mb_jinja_parse_or(p);
        if (item == NULL || !mb_jinja_add_item(p, tuple, item))
            return NULL;
    }
    return p->run->status == MB_OK ? tuple : NULL;
}

static node *parse_for(struct mb_jinja_parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const last_ends[] = {"endfor", NULL};
    node *made = mb_jinja_new_node(p, MB_JINJA_N_FOR);
    bool taken;
    if (made == NULL || (made->e = parse_targets(p)) == NULL || !mb_jinja_take_name(p, "in", &taken))
        return NULL;
    if (!taken)
        return mb_jinja_fail_at(p, "'in'");
    made->a = parse_iterable(p);
    if (made->a == NULL || !mb_jinja_take_name(p, "if", &taken))
        return NULL;
    if (taken && (made->b = mb_jinja_parse_expression(p)) == NULL)
        return NULL;
    if (!mb_jinja_take_name(p, "recursive", &made->is_recursive) || !mb_jinja_expect_end(p) ||
        (made->c = parse_block(p, ends)) == NULL || !mb_jinja_take_name(p, "else", &taken))
        return NULL;
    if (taken && (!mb_jinja_expect_end(p) || (made->d = parse_block(p, last_ends)) == NULL))
        return NULL;
    node *const children[] = {made->a, made->b, made->c, made->d};
    for (size_t i = 0; i < 4; i++)
        if (!mb_jinja_grow_over(p, made, children[i]))
            return NULL;
    return take_end_name(p, "endfor") ? made : NULL;
}

/* {% set x | filter %}: what the text of the block goes through. */
static bool parse_block_filters(struct mb_jinja_parser *p, node *made)
{
    bool has_filters;
    if (!mb_jinja_take_op(p, "|", &has_filters) || !has_filters)
        return p->run->status == MB_OK;
    node *printed = mb_jinja_new_node(p, MB_JINJA_N_PRINTED);
    made->b = printed == NULL ? NULL : mb_jinja_parse_filters_of(p, printed);
    return made->b != NULL && mb_jinja_grow_over(p, made, made->b);
}

static node *parse_set(struct mb_jinja_parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    node *made = mb_jinja_new_node(p, MB_JINJA_N_SET);
    bool has_value;
    if (made == NULL || (made->a = parse_targets(p)) == NULL)
        return NULL;
    if (made->a->kind == MB_JINJA_N_NAME && mb_jinja_at_op(p, ".") &&
        (made->a = mb_jinja_parse_attribute(p, made->a)) == NULL)
        return NULL;
    if (!mb_jinja_take_op(p, "=", &has_value))
        return NULL;
    if (has_value) {
        made->b = mb_jinja_parse_tuple(p);
        return made->b != NULL && mb_jinja_grow_over(p, made, made->b) && mb_jinja_expect_end(p) ? made
                                                                                                 : NULL;
    }
    if (!parse_block_filters(p, made) || !mb_jinja_expect_end(p))
        return NULL;
    made->c = parse_block(p, ends);
    return made->c != NULL && mb_jinja_grow_over(p, made, made->c) && take_end_name(p, "endset") ? made
                                                                                                 : NULL;
}

static node *fail_default(struct mb_jinja_parser *p, const node *parameter)
{
    mb_jinja_fail(p->run, MB_BAD_DATA, "parameter '%.*s' has no default and follows one that has",
                  (int)parameter->name.n, parameter->name.p);
    return NULL;
}

/* One parameter of a macro: name, or name=default. */
static node *parse_parameter(struct mb_jinja_parser *p)
{
    node *name = mb_jinja_parse_name(p);
    bool has_default;
    if (name == NULL || !mb_jinja_take_op(p, "=", &has_default) || !has_default)
        return p->run->status == MB_OK ? name : NULL;
    name->kind = MB_JINJA_N_KEYWORD;
    name->a = mb_jinja_parse_expression(p);
    return name->a != NULL && mb_jinja_grow_over(p, name, name->a) ? name : NULL;
}

/* After "(": parameters, the ")" taken. */
static bool parse_parameters(struct mb_jinja_parser *p, node *made)
{
    bool closed, has_defaults = false;
    if (!mb_jinja_take_op(p, ")", &closed))
        return false;
    while (!closed) {
        node *parameter = parse_parameter(p);
        if (parameter == NULL || !mb_jinja_add_item(p, made, parameter))
            return false;
        if (has_defaults && parameter->kind == MB_JINJA_N_NAME)
            return fail_default(p, parameter) != NULL;
        has_defaults = parameter->kind == MB_JINJA_N_KEYWORD;
        if (!mb_jinja_take_op(p, ")", &closed) || (!closed && !mb_jinja_expect_op(p, ",")))
            return false;
    }
    return true;
}

/* A block in 'parent', after the end of the tag. */
static node *parse_body(struct mb_jinja_parser *p, node *parent, const char *end)
{
    const char *const ends[] = {end, NULL};
    parent->c = mb_jinja_expect_end(p) ? parse_block(p, ends) : NULL;
    return parent->c != NULL && mb_jinja_grow_over(p, parent, parent->c) && take_end_name(p, end) ? parent
                                                                                                  : NULL;
}

/* {% macro name(a, b=1) %}block{% endmacro %} */
static node *parse_macro(struct mb_jinja_parser *p)
{
    node *made = mb_jinja_new_node(p, MB_JINJA_N_MACRO), *name = mb_jinja_parse_name(p);
    unsigned outer_uses = p->uses;
    if (made == NULL || name == NULL || !mb_jinja_expect_op(p, "(") || !parse_parameters(p, made))
        return NULL;
    p->uses = 0;
    made->name = name->name;
    if (parse_body(p, made, "endmacro") == NULL)
        return NULL;
    made->uses = p->uses;
    p->uses |= outer_uses;
    return made;
}

/* {% call(a) f(b) %}block{% endcall %}: f gets the block as the macro 'caller'. */
static node *parse_call_block(struct mb_jinja_parser *p)
{
    node *made = mb_jinja_new_node(p, MB_JINJA_N_CALL_BLOCK),
         *caller = mb_jinja_new_node(p, MB_JINJA_N_MACRO);
    unsigned outer_uses = p->uses;
    bool has_parameters;
    if (made == NULL || caller == NULL || !mb_jinja_take_op(p, "(", &has_parameters) ||
        (has_parameters && !parse_parameters(p, caller)))
        return NULL;
    made->a = mb_jinja_parse_expression(p);
    if (made->a == NULL || made->a->kind != MB_JINJA_N_CALL)
        return mb_jinja_fail_at(p, "a call");
    p->uses = 0;
    caller->name = (string_t){"caller", 6};
    if (!mb_jinja_grow_over(p, made, made->a) || parse_body(p, caller, "endcall") == NULL)
        return NULL;
    caller->uses = p->uses;
    p->uses |= outer_uses;
    made->b = caller;
    return mb_jinja_grow_over(p, made, caller) ? made : NULL;
}

/* {% generation %} marks what the model wrote, for training; it prints like any block. */
static node *parse_generation(struct mb_jinja_parser *p)
{
    node *made = mb_jinja_new_node(p, MB_JINJA_N_SCOPE);
    return made == NULL ? NULL : parse_body(p, made, "endgeneration");
}

/* {% with a = 1, b = 2 %}block{% endwith %} */
static node *parse_with(struct mb_jinja_parser *p)
{
    node *made = mb_jinja_new_node(p, MB_JINJA_N_SCOPE);
    if (made == NULL)
        return NULL;
    while (p->lexer.token.kind != MB_JINJA_T_END) {
        node *set = mb_jinja_new_node(p, MB_JINJA_N_SET);
        if (set == NULL || (made->n_items > 0 && !mb_jinja_expect_op(p, ",")) ||
            (set->a = parse_target(p)) == NULL || !mb_jinja_expect_op(p, "=") ||
            (set->b = mb_jinja_parse_expression(p)) == NULL || !mb_jinja_grow_over(p, set, set->b) ||
            !mb_jinja_add_item(p, made, set))
            return NULL;
    }
    return parse_body(p, made, "endwith");
}

/* {% filter upper %}block{% endfilter %} */
static node *parse_filter_block(struct mb_jinja_parser *p)
{
    node *made = mb_jinja_new_node(p, MB_JINJA_N_FILTER_BLOCK),
         *printed = mb_jinja_new_node(p, MB_JINJA_N_PRINTED);
    if (made == NULL || printed == NULL || (made->b = mb_jinja_parse_filters_of(p, printed)) == NULL ||
        !mb_jinja_grow_over(p, made, made->b))
        return NULL;
    return parse_body(p, made, "endfilter");
}

/* At a block tag's first token. */
static node *parse_statement(struct mb_jinja_parser *p)
{
    static const struct {
        const char *name;
        node *(*parse)(struct mb_jinja_parser *p);
    } statements[] = {{"if", parse_if},
                      {"for", parse_for},
                      {"set", parse_set},
                      {"macro", parse_macro},
                      {"call", parse_call_block},
                      {"with", parse_with},
                      {"filter", parse_filter_block},
                      {"generation", parse_generation}};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (mb_jinja_at_name(p, statements[i].name))
            return mb_jinja_next_token(p) ? statements[i].parse(p) : NULL;
    if (mb_jinja_at_name(p, "break") || mb_jinja_at_name(p, "continue")) {
        node *made =
            mb_jinja_new_node(p, mb_jinja_at_name(p, "break") ? MB_JINJA_N_BREAK : MB_JINJA_N_CONTINUE);
        return made != NULL && mb_jinja_next_token(p) && mb_jinja_expect_end(p) ? made : NULL;
    }
    const struct mb_jinja_token *token = &p->lexer.token;
    if (token->kind != MB_JINJA_T_NAME)
        return mb_jinja_fail_at(p, "a statement");
    mb_jinja_fail(p->run, MB_UNSUPPORTED, "the statement '%.*s' is not supported", (int)token->text.n,
                  token->text.p);
    return NULL;
}

/* Whether the token names one of the ends of a block. */
static bool is_end_name(const struct mb_jinja_parser *p, const char *const *ends)
{
    for (; *ends != NULL; ends++)
        if (mb_jinja_at_name(p, *ends))
            return true;
    return false;
}

static bool add_text(struct mb_jinja_parser *p, node *block, string_t text)
{
    if (text.n == 0)
        return true;
    node *made = mb_jinja_new_node(p, MB_JINJA_N_TEXT);
    if (made == NULL)
        return false;
    made->name = text;
    return mb_jinja_add_item(p, block, made);
}

/* The tag that begins at the token; *is_done when it ends the block. */
static bool add_tag(struct mb_jinja_parser *p, node *block, const char *const *ends, bool *is_done)
{
    node *made;
    if (p->lexer.tag == MB_JINJA_TAG_VARIABLE) {
        made = mb_jinja_parse_tuple(p);
        made = made == NULL || !mb_jinja_expect_end(p)
                   ? NULL
                   : mb_jinja_new_parent(p, MB_JINJA_N_OUTPUT, made, made);
    } else {
        *is_done = is_end_name(p, ends);
        if (*is_done)
            return true;
        made = parse_statement(p);
    }
    return made != NULL && mb_jinja_add_item(p, block, made);
}

/* Texts and tags up to a tag that begins with one of 'ends' (its name is the token then), or the template's
 * end. */
static node *parse_block(struct mb_jinja_parser *p, const char *const *ends)
{
    node *block = mb_jinja_new_node(p, MB_JINJA_N_BLOCK);
    bool is_done = false;
    if (block == NULL || !mb_jinja_enter(p))
        return NULL;
    while (!is_done) {
        string_t text;
        if (!mb_jinja_lex_text(&p->lexer, &text) || !add_text(p, block, text))
            return NULL;
        if (p->lexer.tag == MB_JINJA_TAG_NONE) {
            p->run->line = block->line;
            if (ends[0] == NULL)
                break;
            size_t last = 0; /* what ends it for good: "endif", not "elif" */
            while (ends[last + 1] != NULL)
                last++;
            mb_jinja_fail(p->run, MB_BAD_DATA, "the block that begins here has no '%s'", ends[last]);
            return NULL;
        }
        if (p->lexer.tag != MB_JINJA_TAG_COMMENT && !add_tag(p, block, ends, &is_done))
            return NULL;
    }
    p->depth--;
    return block;
}

const struct mb_jinja_node *mb_jinja_parse(run_t *run, const char *text, size_t n)
{
    static const char *const no_ends[] = {NULL};
    struct mb_jinja_parser p = {.run = run};
    if (!mb_jinja_lex_begin(&p.lexer, run, text, n))
        return NULL;
    return parse_block(&p, no_ends);
}
