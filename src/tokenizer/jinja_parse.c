/*
 * jinja_parse.c - the syntax of chat templates: a recursive descent, no deeper than DEPTH_MAX.
 */
#include "jinja_parse.h"
#include "jinja_lex.h"

enum { DEPTH_MAX = 128, HEIGHT_MAX = 400 };

struct parser {
    struct mb_jinja_run *run;
    struct mb_jinja_lexer lexer;
    int depth;
};

typedef struct mb_jinja_node node;

static node *parse_expression(struct parser *p);
static node *parse_block(struct parser *p, const char *const *ends);

/* ---------------------------------------------------------------- tokens and nodes */

static bool enter(struct parser *p)
{
    if (++p->depth <= DEPTH_MAX)
        return true;
    p->run->line = p->lexer.line;
    return mb_jinja_fail(p->run, MB_UNSUPPORTED, "nested more than %d deep", DEPTH_MAX);
}

static bool next(struct parser *p)
{
    return mb_jinja_lex_token(&p->lexer);
}

static bool is_op(const struct parser *p, const char *op)
{
    return p->lexer.token.kind == MB_JINJA_T_OP && mb_jinja_is(p->lexer.token.text, op);
}

static bool is_name(const struct parser *p, const char *name)
{
    return p->lexer.token.kind == MB_JINJA_T_NAME && mb_jinja_is(p->lexer.token.text, name);
}

/* Takes an operator or name if it is there. *taken says so; false: failed. */
static bool take_op(struct parser *p, const char *op, bool *taken)
{
    *taken = is_op(p, op);
    return !*taken || next(p);
}

static bool take_name(struct parser *p, const char *name, bool *taken)
{
    *taken = is_name(p, name);
    return !*taken || next(p);
}

static node *fail_at(struct parser *p, const char *wanted)
{
    const struct mb_jinja_token *token = &p->lexer.token;
    p->run->line = token->line;
    int n = (int)(token->text.n > 40 ? 40 : token->text.n);
    if (token->kind == MB_JINJA_T_END)
        mb_jinja_fail(p->run, MB_BAD_DATA, "the tag ends where %s is expected", wanted);
    else
        mb_jinja_fail(p->run, MB_UNSUPPORTED, "'%.*s' where %s is expected", n,
                      token->text.p == NULL ? "a number" : token->text.p, wanted);
    return NULL;
}

static bool expect_op(struct parser *p, const char *op)
{
    bool taken;
    if (!take_op(p, op, &taken))
        return false;
    return taken || fail_at(p, op) != NULL;
}

/* Leaves the token alone: behind a tag's end is text. */
static bool expect_end(struct parser *p)
{
    return p->lexer.token.kind == MB_JINJA_T_END || fail_at(p, "the end of the tag") != NULL;
}

static node *new_node(struct parser *p, enum mb_jinja_node_kind kind)
{
    node *made = mb_jinja_alloc(p->run, sizeof *made);
    if (made != NULL) {
        made->kind = kind;
        made->line = p->lexer.token.line;
        made->height = 1;
    }
    return made;
}

/* Long chains of operators make high trees too, which evaluation goes down. */
static bool grow_over(struct parser *p, node *parent, const node *child)
{
    if (child != NULL && parent->height <= child->height)
        parent->height = child->height + 1;
    if (parent->height <= HEIGHT_MAX)
        return true;
    p->run->line = parent->line;
    return mb_jinja_fail(p->run, MB_UNSUPPORTED, "an expression of more than %d levels", HEIGHT_MAX);
}

static bool add_item(struct parser *p, node *parent, node *item)
{
    if (parent->n_items == parent->cap) {
        size_t cap = parent->cap == 0 ? 4 : parent->cap * 2;
        node **items = mb_jinja_alloc(p->run, cap * sizeof(node *));
        if (items == NULL)
            return false;
        if (parent->n_items > 0)
            memcpy(items, parent->items, parent->n_items * sizeof(node *));
        parent->items = items;
        parent->cap = cap;
    }
    parent->items[parent->n_items++] = item;
    return grow_over(p, parent, item);
}

/* A node with up to two children; NULL when a child is. */
static node *new_parent(struct parser *p, enum mb_jinja_node_kind kind, node *a, node *b)
{
    node *made = a == NULL || b == NULL ? NULL : new_node(p, kind);
    if (made == NULL)
        return NULL;
    made->a = a;
    made->b = b == a ? NULL : b;
    made->line = a->line;
    return grow_over(p, made, a) && grow_over(p, made, b) ? made : NULL;
}

static node *new_literal(struct parser *p, struct mb_jinja_value value)
{
    node *made = new_node(p, MB_JINJA_N_LITERAL);
    if (made != NULL)
        made->value = value;
    return made;
}

static node *new_name(struct parser *p)
{
    if (p->lexer.token.kind != MB_JINJA_T_NAME)
        return fail_at(p, "a name");
    node *made = new_node(p, MB_JINJA_N_NAME);
    if (made == NULL)
        return NULL;
    made->name = p->lexer.token.text;
    return next(p) ? made : NULL;
}

/* ---------------------------------------------------------------- primary expressions */

/* Items up to 'close', which is taken. '*had_comma': (x,) is a tuple, (x) is not. */
static bool parse_items(struct parser *p, node *list, const char *close, bool *had_comma)
{
    *had_comma = false;
    for (;;) {
        bool closed;
        if (!take_op(p, close, &closed))
            return false;
        if (closed)
            return true;
        node *item = parse_expression(p);
        if (item == NULL || !add_item(p, list, item))
            return false;
        if (is_op(p, close))
            continue;
        if (!expect_op(p, ","))
            return false;
        *had_comma = true;
    }
}

static node *parse_parentheses(struct parser *p)
{
    node *list = new_node(p, MB_JINJA_N_LIST);
    bool had_comma;
    if (list == NULL || !next(p) || !parse_items(p, list, ")", &had_comma))
        return NULL;
    return list->n_items == 1 && !had_comma ? list->items[0] : list;
}

static node *parse_list(struct parser *p)
{
    node *list = new_node(p, MB_JINJA_N_LIST);
    bool had_comma;
    return list != NULL && next(p) && parse_items(p, list, "]", &had_comma) ? list : NULL;
}

static node *parse_dict(struct parser *p)
{
    node *dict = new_node(p, MB_JINJA_N_DICT);
    if (dict == NULL || !next(p))
        return NULL;
    for (;;) {
        bool closed;
        if (!take_op(p, "}", &closed))
            return NULL;
        if (closed)
            return dict;
        node *key = parse_expression(p);
        if (key == NULL || !expect_op(p, ":") || !add_item(p, dict, key))
            return NULL;
        node *value = parse_expression(p);
        if (value == NULL || !add_item(p, dict, value))
            return NULL;
        if (!is_op(p, "}") && !expect_op(p, ","))
            return NULL;
    }
}

/* Strings that follow one another are one. */
static node *parse_strings(struct parser *p)
{
    struct mb_jinja_value joined = mb_jinja_text(p->lexer.token.text.p, p->lexer.token.text.n);
    node *made = new_node(p, MB_JINJA_N_LITERAL);
    if (made == NULL || !next(p))
        return NULL;
    while (p->lexer.token.kind == MB_JINJA_T_STRING)
        if (!mb_jinja_join(p->run, joined.string, p->lexer.token.text, &joined) || !next(p))
            return NULL;
    made->value = joined;
    return made;
}

static node *parse_name(struct parser *p)
{
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!is_name(p, words[i]))
            continue;
        node *made = new_literal(p, i < 4 ? mb_jinja_bool(i < 2) : mb_jinja_none());
        return made != NULL && next(p) ? made : NULL;
    }
    return new_name(p);
}

static node *parse_primary(struct parser *p)
{
    switch (p->lexer.token.kind) {
    case MB_JINJA_T_NAME:
        return parse_name(p);
    case MB_JINJA_T_STRING:
        return parse_strings(p);
    case MB_JINJA_T_INT: {
        node *made = new_literal(p, mb_jinja_int(p->lexer.token.number));
        return made != NULL && next(p) ? made : NULL;
    }
    default:
        if (is_op(p, "("))
            return parse_parentheses(p);
        if (is_op(p, "["))
            return parse_list(p);
        if (is_op(p, "{"))
            return parse_dict(p);
        return fail_at(p, "an expression");
    }
}

/* ---------------------------------------------------------------- what stands behind an expression */

/* One argument: an expression, or name=expression. */
static node *parse_argument(struct parser *p)
{
    node *item = parse_expression(p);
    if (item == NULL || item->kind != MB_JINJA_N_NAME || !is_op(p, "="))
        return item;
    node *keyword = new_node(p, MB_JINJA_N_KEYWORD);
    if (keyword == NULL || !next(p))
        return NULL;
    keyword->name = item->name;
    keyword->a = parse_expression(p);
    return keyword->a != NULL && grow_over(p, keyword, keyword->a) ? keyword : NULL;
}

/* At "(": arguments into 'call', the ")" taken. */
static bool parse_arguments(struct parser *p, node *call)
{
    if (!next(p))
        return false;
    for (;;) {
        bool closed;
        if (!take_op(p, ")", &closed))
            return false;
        if (closed)
            return true;
        node *item = parse_argument(p);
        if (item == NULL || !add_item(p, call, item))
            return false;
        if (!is_op(p, ")") && !expect_op(p, ","))
            return false;
    }
}

/* One of the parts of a slice, NULL where it is left out. */
static bool parse_slice_part(struct parser *p, node *slice, node **part)
{
    if (is_op(p, ":") || is_op(p, "]"))
        return true;
    *part = parse_expression(p);
    return *part != NULL && grow_over(p, slice, *part);
}

/* At "[". */
static node *parse_subscript(struct parser *p, node *object)
{
    node *made = new_parent(p, MB_JINJA_N_INDEX, object, object);
    bool is_slice = false, has_step = false;
    if (made == NULL || !next(p) || !parse_slice_part(p, made, &made->b) || !take_op(p, ":", &is_slice))
        return NULL;
    if (is_slice) {
        made->kind = MB_JINJA_N_SLICE;
        if (!parse_slice_part(p, made, &made->c) || !take_op(p, ":", &has_step))
            return NULL;
        if (has_step && !parse_slice_part(p, made, &made->d))
            return NULL;
    } else if (made->b == NULL) {
        return fail_at(p, "an index");
    }
    return expect_op(p, "]") ? made : NULL;
}

static node *parse_call(struct parser *p, node *function)
{
    node *call = new_parent(p, MB_JINJA_N_CALL, function, function);
    return call != NULL && parse_arguments(p, call) ? call : NULL;
}

static node *parse_attribute(struct parser *p, node *object)
{
    node *made = new_parent(p, MB_JINJA_N_ATTRIBUTE, object, object);
    if (made == NULL || !next(p))
        return NULL;
    if (p->lexer.token.kind != MB_JINJA_T_NAME)
        return fail_at(p, "an attribute's name");
    made->name = p->lexer.token.text;
    return next(p) ? made : NULL;
}

static node *parse_postfix(struct parser *p, node *object)
{
    while (object != NULL) {
        if (is_op(p, "."))
            object = parse_attribute(p, object);
        else if (is_op(p, "["))
            object = parse_subscript(p, object);
        else if (is_op(p, "("))
            object = parse_call(p, object);
        else
            break;
    }
    return object;
}

static node *parse_filter(struct parser *p, node *input)
{
    node *filter = new_parent(p, MB_JINJA_N_FILTER, input, input);
    if (filter == NULL || !next(p))
        return NULL;
    if (p->lexer.token.kind != MB_JINJA_T_NAME)
        return fail_at(p, "a filter's name");
    filter->name = p->lexer.token.text;
    filter->line = p->lexer.token.line;
    if (!next(p))
        return NULL;
    return !is_op(p, "(") || parse_arguments(p, filter) ? filter : NULL;
}

/* Whether a test's argument without parentheses follows: x is divisibleby 3. */
static bool begins_argument(const struct parser *p)
{
    enum mb_jinja_token_kind kind = p->lexer.token.kind;
    if (kind == MB_JINJA_T_NAME)
        return !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and") && !is_name(p, "is") &&
               !is_name(p, "if") && !is_name(p, "in") && !is_name(p, "not");
    return kind == MB_JINJA_T_STRING || kind == MB_JINJA_T_INT || is_op(p, "[") || is_op(p, "{");
}

static node *parse_test(struct parser *p, node *input)
{
    bool negated;
    node *test = new_parent(p, MB_JINJA_N_TEST, input, input);
    if (test == NULL || !next(p) || !take_name(p, "not", &negated))
        return NULL;
    if (p->lexer.token.kind != MB_JINJA_T_NAME)
        return fail_at(p, "a test's name");
    test->name = p->lexer.token.text;
    test->line = p->lexer.token.line;
    if (!next(p))
        return NULL;
    if (is_op(p, "(")) {
        if (!parse_arguments(p, test))
            return NULL;
    } else if (begins_argument(p)) {
        node *argument = parse_primary(p);
        argument = argument == NULL ? NULL : parse_postfix(p, argument);
        if (argument == NULL || !add_item(p, test, argument))
            return NULL;
    }
    return negated ? new_parent(p, MB_JINJA_N_NOT, test, test) : test;
}

static node *parse_filters(struct parser *p, node *input)
{
    while (input != NULL) {
        if (is_op(p, "|"))
            input = parse_filter(p, input);
        else if (is_name(p, "is"))
            input = parse_test(p, input);
        else if (is_op(p, "("))
            input = parse_call(p, input);
        else
            break;
    }
    return input;
}

/* ---------------------------------------------------------------- operators */

static node *parse_unary(struct parser *p, bool with_filters)
{
    bool is_negative, is_positive = false;
    if (!enter(p) || !take_op(p, "-", &is_negative) || (!is_negative && !take_op(p, "+", &is_positive)))
        return NULL;
    node *made = is_negative || is_positive ? parse_unary(p, false) : parse_primary(p);
    if (made != NULL && is_negative)
        made = new_parent(p, MB_JINJA_N_NEGATIVE, made, made);
    made = parse_postfix(p, made);
    if (with_filters)
        made = parse_filters(p, made);
    p->depth--;
    return made;
}

struct operator
{
    const char *text;
    enum mb_jinja_op op;
};

/* Left to right: operand { operator operand }. 'level' 0: + -; 1: ~; 2: * // %. */
static node *parse_binary(struct parser *p, int level)
{
    static const struct operator operators[3][3] = {
        {{"+", MB_JINJA_ADD}, {"-", MB_JINJA_SUB}, {NULL, 0}},
        {{"~", MB_JINJA_CONCAT}, {NULL, 0}, {NULL, 0}},
        {{"*", MB_JINJA_MUL}, {"//", MB_JINJA_FLOOR_DIV}, {"%", MB_JINJA_MOD}},
    };
    node *left = level == 2 ? parse_unary(p, true) : parse_binary(p, level + 1);
    while (left != NULL) {
        size_t i = 0;
        while (i < 3 && (operators[level][i].text == NULL || !is_op(p, operators[level][i].text)))
            i++;
        if (i == 3)
            break;
        if (!next(p))
            return NULL;
        node *right = level == 2 ? parse_unary(p, true) : parse_binary(p, level + 1);
        left = new_parent(p, MB_JINJA_N_BINARY, left, right);
        if (left != NULL)
            left->op = operators[level][i].op;
    }
    return left;
}

/* A comparison's operator, if one is there, is taken. */
static bool take_comparison(struct parser *p, bool *taken, enum mb_jinja_op *op)
{
    static const struct operator operators[] = {{"==", MB_JINJA_EQ}, {"!=", MB_JINJA_NE}, {"<=", MB_JINJA_LE},
                                                {">=", MB_JINJA_GE}, {"<", MB_JINJA_LT},  {">", MB_JINJA_GT}};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        *op = operators[i].op;
        if (!take_op(p, operators[i].text, taken))
            return false;
        if (*taken)
            return true;
    }
    *op = MB_JINJA_IN;
    if (!take_name(p, "in", taken) || *taken)
        return *taken;
    *op = MB_JINJA_NOT_IN;
    if (!take_name(p, "not", taken))
        return false;
    if (!*taken)
        return true;
    bool has_in;
    return take_name(p, "in", &has_in) && (has_in || fail_at(p, "'in'") != NULL);
}

static node *parse_comparison(struct parser *p)
{
    node *left = parse_binary(p, 0), *compare = NULL;
    while (left != NULL) {
        bool taken;
        enum mb_jinja_op op;
        if (!take_comparison(p, &taken, &op))
            return NULL;
        if (!taken)
            break;
        if (compare == NULL)
            compare = new_parent(p, MB_JINJA_N_COMPARE, left, left);
        node *right = parse_binary(p, 0);
        node *operand = right == NULL ? NULL : new_parent(p, MB_JINJA_N_OPERAND, right, right);
        if (compare == NULL || operand == NULL || !add_item(p, compare, operand))
            return NULL;
        operand->op = op;
    }
    return compare != NULL ? compare : left;
}

static node *parse_not(struct parser *p)
{
    bool negated;
    if (!take_name(p, "not", &negated))
        return NULL;
    if (!negated)
        return parse_comparison(p);
    if (!enter(p))
        return NULL;
    node *operand = parse_not(p);
    p->depth--;
    return new_parent(p, MB_JINJA_N_NOT, operand, operand);
}

static node *parse_logic(struct parser *p, const char *word)
{
    bool is_or = word[0] == 'o';
    node *left = is_or ? parse_logic(p, "and") : parse_not(p);
    while (left != NULL && is_name(p, word)) {
        if (!next(p))
            return NULL;
        node *right = is_or ? parse_logic(p, "and") : parse_not(p);
        left = new_parent(p, is_or ? MB_JINJA_N_OR : MB_JINJA_N_AND, left, right);
    }
    return left;
}

static node *parse_expression(struct parser *p)
{
    if (!enter(p))
        return NULL;
    node *made = parse_logic(p, "or");
    while (made != NULL && is_name(p, "if")) {
        if (!next(p))
            return NULL;
        node *condition = parse_logic(p, "or");
        made = new_parent(p, MB_JINJA_N_CHOICE, made, condition);
        bool has_else;
        if (made == NULL || !take_name(p, "else", &has_else))
            return NULL;
        if (has_else) {
            made->c = parse_expression(p);
            if (made->c == NULL || !grow_over(p, made, made->c))
                return NULL;
        }
    }
    p->depth--;
    return made;
}

/* ---------------------------------------------------------------- statements */

/* Behind a block: the name of its end, and the end of that tag. */
static bool take_end_name(struct parser *p, const char *name)
{
    bool taken;
    if (!take_name(p, name, &taken))
        return false;
    return (taken || fail_at(p, name) != NULL) && expect_end(p);
}

/* Behind "if" or "elif": condition and block, up to what ends the block. */
static node *parse_if_part(struct parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node *made = new_node(p, MB_JINJA_N_IF);
    if (made == NULL)
        return NULL;
    made->a = parse_expression(p);
    if (made->a == NULL || !expect_end(p))
        return NULL;
    made->b = parse_block(p, ends);
    return made->b != NULL && grow_over(p, made, made->a) && grow_over(p, made, made->b) ? made : NULL;
}

static node *parse_if(struct parser *p)
{
    static const char *const ends[] = {"endif", NULL};
    node *first = parse_if_part(p), *last = first;
    bool more = first != NULL;
    while (more) {
        if (!take_name(p, "elif", &more))
            return NULL;
        if (!more)
            break;
        last->c = parse_if_part(p);
        if (last->c == NULL)
            return NULL;
        last = last->c;
        if (!grow_over(p, first, last)) /* evaluation goes along the chain, not down */
            return NULL;
    }
    bool has_else;
    if (first == NULL || !take_name(p, "else", &has_else))
        return NULL;
    if (has_else) {
        last->c = expect_end(p) ? parse_block(p, ends) : NULL;
        if (last->c == NULL || !grow_over(p, first, last->c))
            return NULL;
    }
    return take_end_name(p, "endif") ? first : NULL;
}

static bool parse_for_targets(struct parser *p, node *made)
{
    for (;;) {
        node *target = new_name(p);
        bool more;
        if (target == NULL || !add_item(p, made, target) || !take_op(p, ",", &more))
            return false;
        if (!more)
            return true;
    }
}

static node *parse_for(struct parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const last_ends[] = {"endfor", NULL};
    node *made = new_node(p, MB_JINJA_N_FOR);
    bool taken;
    if (made == NULL || !parse_for_targets(p, made) || !take_name(p, "in", &taken))
        return NULL;
    if (!taken)
        return fail_at(p, "'in'");
    made->a = parse_logic(p, "or"); /* an "if" behind it is the loop's condition */
    if (made->a == NULL || !take_name(p, "if", &taken))
        return NULL;
    if (taken && (made->b = parse_expression(p)) == NULL)
        return NULL;
    if (!expect_end(p) || (made->c = parse_block(p, ends)) == NULL || !take_name(p, "else", &taken))
        return NULL;
    if (taken && (!expect_end(p) || (made->d = parse_block(p, last_ends)) == NULL))
        return NULL;
    node *const children[] = {made->a, made->b, made->c, made->d};
    for (size_t i = 0; i < 4; i++)
        if (!grow_over(p, made, children[i]))
            return NULL;
    return take_end_name(p, "endfor") ? made : NULL;
}

static node *parse_set(struct parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    node *made = new_node(p, MB_JINJA_N_SET);
    bool has_value;
    if (made == NULL || (made->a = new_name(p)) == NULL)
        return NULL;
    if (is_op(p, ".") && (made->a = parse_attribute(p, made->a)) == NULL)
        return NULL;
    if (!take_op(p, "=", &has_value))
        return NULL;
    if (has_value) {
        made->b = parse_expression(p);
        return made->b != NULL && grow_over(p, made, made->b) && expect_end(p) ? made : NULL;
    }
    if (!expect_end(p))
        return NULL;
    made->c = parse_block(p, ends);
    return made->c != NULL && grow_over(p, made, made->c) && take_end_name(p, "endset") ? made : NULL;
}

/* {% generation %} marks what the model wrote, for training; it prints like any block. */
static node *parse_generation(struct parser *p)
{
    static const char *const ends[] = {"endgeneration", NULL};
    node *block = expect_end(p) ? parse_block(p, ends) : NULL;
    return block != NULL && take_end_name(p, "endgeneration") ? block : NULL;
}

/* At a block tag's first token. */
static node *parse_statement(struct parser *p)
{
    static const struct {
        const char *name;
        node *(*parse)(struct parser *p);
    } statements[] = {
        {"if", parse_if}, {"for", parse_for}, {"set", parse_set}, {"generation", parse_generation}};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (is_name(p, statements[i].name))
            return next(p) ? statements[i].parse(p) : NULL;
    if (is_name(p, "break") || is_name(p, "continue")) {
        node *made = new_node(p, is_name(p, "break") ? MB_JINJA_N_BREAK : MB_JINJA_N_CONTINUE);
        return made != NULL && next(p) && expect_end(p) ? made : NULL;
    }
    const struct mb_jinja_token *token = &p->lexer.token;
    if (token->kind != MB_JINJA_T_NAME)
        return fail_at(p, "a statement");
    mb_jinja_fail(p->run, MB_UNSUPPORTED, "the statement '%.*s' is not supported", (int)token->text.n,
                  token->text.p);
    return NULL;
}

/* Whether the token names one of the ends of a block. */
static bool is_end_name(const struct parser *p, const char *const *ends)
{
    for (; *ends != NULL; ends++)
        if (is_name(p, *ends))
            return true;
    return false;
}

static bool add_text(struct parser *p, node *block, struct mb_jinja_string text)
{
    if (text.n == 0)
        return true;
    node *made = new_node(p, MB_JINJA_N_TEXT);
    if (made == NULL)
        return false;
    made->name = text;
    return add_item(p, block, made);
}

/* The tag that begins at the token; *is_done when it ends the block. */
static bool add_tag(struct parser *p, node *block, const char *const *ends, bool *is_done)
{
    node *made;
    if (p->lexer.tag == MB_JINJA_TAG_VARIABLE) {
        made = parse_expression(p);
        made = made == NULL || !expect_end(p) ? NULL : new_parent(p, MB_JINJA_N_OUTPUT, made, made);
    } else {
        *is_done = is_end_name(p, ends);
        if (*is_done)
            return true;
        made = parse_statement(p);
    }
    return made != NULL && add_item(p, block, made);
}

/* Texts and tags up to a tag that begins with one of 'ends' (its name is the token then), or the template's
 * end. */
static node *parse_block(struct parser *p, const char *const *ends)
{
    node *block = new_node(p, MB_JINJA_N_BLOCK);
    bool is_done = false;
    if (block == NULL || !enter(p))
        return NULL;
    while (!is_done) {
        struct mb_jinja_string text;
        if (!mb_jinja_lex_text(&p->lexer, &text) || !add_text(p, block, text))
            return NULL;
        if (p->lexer.tag == MB_JINJA_TAG_NONE) {
            p->run->line = block->line;
            if (ends[0] == NULL)
                break;
            size_t last = 0; /* what ends it for good: "endif", not "elif" */
            while (ends[last + 1] != NULL)
                last++;
            mb_jinja_fail(p->run, MB_BAD_DATA, "a block without '%s'", ends[last]);
            return NULL;
        }
        if (p->lexer.tag != MB_JINJA_TAG_COMMENT && !add_tag(p, block, ends, &is_done))
            return NULL;
    }
    p->depth--;
    return block;
}

struct mb_jinja_node *mb_jinja_parse(struct mb_jinja_run *run, const char *text, size_t n)
{
    static const char *const no_ends[] = {NULL};
    struct parser p = {.run = run};
    if (!mb_jinja_lex_begin(&p.lexer, run, text, n))
        return NULL;
    return parse_block(&p, no_ends);
}
