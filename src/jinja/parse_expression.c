/*
 * parse_expression.c - the syntax of expressions: a recursive descent, whose depth mb_jinja_enter bounds.
 */
#include "parser.h"

typedef struct mb_jinja_node node;

static node *new_literal(struct mb_jinja_parser *p, value_t value)
{
    node *made = mb_jinja_new_node(p, MB_JINJA_N_LITERAL);
    if (made != NULL)
        made->value = value;
    return made;
}

/* ---------------------------------------------------------------- primary expressions */

/* Items up to 'close', which is taken. '*had_comma': (x,) is a tuple, (x) is not. */
static bool parse_items(struct mb_jinja_parser *p, node *list, const char *close, bool *had_comma)
{
    *had_comma = false;
    for (;;) {
        bool closed;
        if (!mb_jinja_take_op(p, close, &closed))
            return false;
        if (closed)
            return true;
        node *item = mb_jinja_parse_expression(p);
        if (item == NULL || !mb_jinja_add_item(p, list, item))
            return false;
        if (mb_jinja_at_op(p, close))
            continue;
        if (!mb_jinja_expect_op(p, ","))
            return false;
        *had_comma = true;
    }
}

static node *parse_parentheses(struct mb_jinja_parser *p)
{
    node *list = mb_jinja_new_node(p, MB_JINJA_N_LIST);
    bool had_comma;
    if (list == NULL || !mb_jinja_next_token(p) || !parse_items(p, list, ")", &had_comma))
        return NULL;
    list->kind = MB_JINJA_N_TUPLE;
    return list->n_items == 1 && !had_comma ? list->items[0] : list;
}

static node *parse_list(struct mb_jinja_parser *p)
{
    node *list = mb_jinja_new_node(p, MB_JINJA_N_LIST);
    bool had_comma;
    return list != NULL && mb_jinja_next_token(p) && parse_items(p, list, "]", &had_comma) ? list : NULL;
}

static node *parse_dict(struct mb_jinja_parser *p)
{
    node *dict = mb_jinja_new_node(p, MB_JINJA_N_DICT);
    if (dict == NULL || !mb_jinja_next_token(p))
        return NULL;
    for (;;) {
        bool closed;
        if (!mb_jinja_take_op(p, "}", &closed))
            return NULL;
        if (closed)
            return dict;
        node *key = mb_jinja_parse_expression(p);
        if (key == NULL || !mb_jinja_expect_op(p, ":") || !mb_jinja_add_item(p, dict, key))
            return NULL;
        node *value = mb_jinja_parse_expression(p);
        if (value == NULL || !mb_jinja_add_item(p, dict, value))
            return NULL;
        if (!mb_jinja_at_op(p, "}") && !mb_jinja_expect_op(p, ","))
            return NULL;
    }
}

/* Strings that follow one another are one. */
static node *parse_strings(struct mb_jinja_parser *p)
{
    value_t joined = mb_jinja_text(p->lexer.token.text.p, p->lexer.token.text.n);
    node *made = mb_jinja_new_node(p, MB_JINJA_N_LITERAL);
    if (made == NULL || !mb_jinja_next_token(p))
        return NULL;
    while (p->lexer.token.kind == MB_JINJA_T_STRING)
        if (!mb_jinja_join(p->run, joined.string, p->lexer.token.text, &joined) || !mb_jinja_next_token(p))
            return NULL;
    made->value = joined;
    return made;
}

static node *parse_word(struct mb_jinja_parser *p)
{
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!mb_jinja_at_name(p, words[i]))
            continue;
        node *made = new_literal(p, i < 4 ? mb_jinja_bool(i < 2) : mb_jinja_none());
        return made != NULL && mb_jinja_next_token(p) ? made : NULL;
    }
    return mb_jinja_parse_name(p);
}

static node *parse_primary(struct mb_jinja_parser *p)
{
    switch (p->lexer.token.kind) {
    case MB_JINJA_T_NAME:
        return parse_word(p);
    case MB_JINJA_T_STRING:
        return parse_strings(p);
    case MB_JINJA_T_INT:
    case MB_JINJA_T_FLOAT: {
        bool is_int = p->lexer.token.kind == MB_JINJA_T_INT;
        node *made = new_literal(p, is_int ? mb_jinja_int(p->lexer.token.number)
                                           : mb_jinja_float(p->lexer.token.real));
        return made != NULL && mb_jinja_next_token(p) ? made : NULL;
    }
    default:
        if (mb_jinja_at_op(p, "("))
            return parse_parentheses(p);
        if (mb_jinja_at_op(p, "["))
            return parse_list(p);
        if (mb_jinja_at_op(p, "{"))
            return parse_dict(p);
        return mb_jinja_fail_at(p, "an expression");
    }
}

/* ---------------------------------------------------------------- what follows an expression */

/* *list, **mapping. */
static node *parse_spread(struct mb_jinja_parser *p)
{
    node *made =
        mb_jinja_new_node(p, mb_jinja_at_op(p, "*") ? MB_JINJA_N_SPREAD : MB_JINJA_N_SPREAD_KEYWORDS);
    if (made == NULL || !mb_jinja_next_token(p))
        return NULL;
    made->a = mb_jinja_parse_expression(p);
    return made->a != NULL && mb_jinja_grow_over(p, made, made->a) ? made : NULL;
}

/* One argument: an expression, or name=expression. */
static node *parse_argument(struct mb_jinja_parser *p)
{
    if (mb_jinja_at_op(p, "*") || mb_jinja_at_op(p, "**"))
        return parse_spread(p);
    node *item = mb_jinja_parse_expression(p);
    if (item == NULL || item->kind != MB_JINJA_N_NAME || !mb_jinja_at_op(p, "="))
        return item;
    node *keyword = mb_jinja_new_node(p, MB_JINJA_N_KEYWORD);
    if (keyword == NULL || !mb_jinja_next_token(p))
        return NULL;
    keyword->name = item->name;
    keyword->a = mb_jinja_parse_expression(p);
    return keyword->a != NULL && mb_jinja_grow_over(p, keyword, keyword->a) ? keyword : NULL;
}

bool mb_jinja_parse_arguments(struct mb_jinja_parser *p, node *call)
{
    if (!mb_jinja_next_token(p))
        return false;
    for (;;) {
        bool closed;
        if (!mb_jinja_take_op(p, ")", &closed))
            return false;
        if (closed)
            return true;
        node *item = parse_argument(p);
        if (item == NULL || !mb_jinja_add_item(p, call, item))
            return false;
        if (!mb_jinja_at_op(p, ")") && !mb_jinja_expect_op(p, ","))
            return false;
    }
}

/* One of the parts of a slice, NULL where it is left out. */
static bool parse_slice_part(struct mb_jinja_parser *p, node *slice, node **part)
{
    if (mb_jinja_at_op(p, ":") || mb_jinja_at_op(p, "]"))
        return true;
    *part = mb_jinja_parse_expression(p);
    return *part != NULL && mb_jinja_grow_over(p, slice, *part);
}

/* At "[". */
static node *parse_subscript(struct mb_jinja_parser *p, node *object)
{
    node *made = mb_jinja_new_parent(p, MB_JINJA_N_INDEX, object, object);
    bool is_slice = false, has_step = false;
    if (made == NULL || !mb_jinja_next_token(p) || !parse_slice_part(p, made, &made->b) ||
        !mb_jinja_take_op(p, ":", &is_slice))
        return NULL;
    if (is_slice) {
        made->kind = MB_JINJA_N_SLICE;
        if (!parse_slice_part(p, made, &made->c) || !mb_jinja_take_op(p, ":", &has_step))
            return NULL;
        if (has_step && !parse_slice_part(p, made, &made->d))
            return NULL;
    } else if (made->b == NULL) {
        return mb_jinja_fail_at(p, "an index");
    }
    return mb_jinja_expect_op(p, "]") ? made : NULL;
}

static node *parse_call(struct mb_jinja_parser *p, node *function)
{
    node *call = mb_jinja_new_parent(p, MB_JINJA_N_CALL, function, function);
    return call != NULL && mb_jinja_parse_arguments(p, call) ? call : NULL;
}

node *mb_jinja_parse_attribute(struct mb_jinja_parser *p, node *object)
{
    node *made = mb_jinja_new_parent(p, MB_JINJA_N_ATTRIBUTE, object, object);
    if (made == NULL || !mb_jinja_next_token(p))
        return NULL;
    if (p->lexer.token.kind == MB_JINJA_T_INT) { /* list.0 */
        made->kind = MB_JINJA_N_INDEX;
        made->b = new_literal(p, mb_jinja_int(p->lexer.token.number));
        return made->b != NULL && mb_jinja_next_token(p) ? made : NULL;
    }
    if (p->lexer.token.kind != MB_JINJA_T_NAME)
        return mb_jinja_fail_at(p, "an attribute's name");
    made->name = p->lexer.token.text;
    return mb_jinja_next_token(p) ? made : NULL;
}

static node *parse_postfix(struct mb_jinja_parser *p, node *object)
{
    while (object != NULL) {
        if (mb_jinja_at_op(p, "."))
            object = mb_jinja_parse_attribute(p, object);
        else if (mb_jinja_at_op(p, "["))
            object = parse_subscript(p, object);
        else if (mb_jinja_at_op(p, "("))
            object = parse_call(p, object);
        else
            break;
    }
    return object;
}

/* At the filter's name. */
static node *parse_filter(struct mb_jinja_parser *p, node *input)
{
    node *filter = mb_jinja_new_parent(p, MB_JINJA_N_FILTER, input, input);
    if (filter == NULL)
        return NULL;
    if (p->lexer.token.kind != MB_JINJA_T_NAME)
        return mb_jinja_fail_at(p, "a filter's name");
    filter->name = p->lexer.token.text;
    filter->line = p->lexer.token.line;
    if (!mb_jinja_next_token(p))
        return NULL;
    return !mb_jinja_at_op(p, "(") || mb_jinja_parse_arguments(p, filter) ? filter : NULL;
}

node *mb_jinja_parse_filters_of(struct mb_jinja_parser *p, node *input)
{
    bool more;
    do {
        input = parse_filter(p, input);
    } while (input != NULL && mb_jinja_take_op(p, "|", &more) && more);
    return p->run->status == MB_OK ? input : NULL;
}

/* Whether a test's argument without parentheses follows: x is divisibleby 3. */
static bool begins_argument(const struct mb_jinja_parser *p)
{
    enum mb_jinja_token_kind kind = p->lexer.token.kind;
    if (kind == MB_JINJA_T_NAME)
        return !mb_jinja_at_name(p, "else") && !mb_jinja_at_name(p, "or") && !mb_jinja_at_name(p, "and") &&
               !mb_jinja_at_name(p, "is") && !mb_jinja_at_name(p, "if") && !mb_jinja_at_name(p, "in") &&
               !mb_jinja_at_name(p, "not");
    return kind == MB_JINJA_T_STRING || kind == MB_JINJA_T_INT || kind == MB_JINJA_T_FLOAT ||
           mb_jinja_at_op(p, "[") || mb_jinja_at_op(p, "{") || mb_jinja_at_op(p, "(");
}

static node *parse_test(struct mb_jinja_parser *p, node *input)
{
    bool negated;
    node *test = mb_jinja_new_parent(p, MB_JINJA_N_TEST, input, input);
    if (test == NULL || !mb_jinja_next_token(p) || !mb_jinja_take_name(p, "not", &negated))
        return NULL;
    if (p->lexer.token.kind != MB_JINJA_T_NAME)
        return mb_jinja_fail_at(p, "a test's name");
    test->name = p->lexer.token.text;
    test->line = p->lexer.token.line;
    if (!mb_jinja_next_token(p))
        return NULL;
    if (mb_jinja_at_op(p, "(")) {
        if (!mb_jinja_parse_arguments(p, test))
            return NULL;
    } else if (begins_argument(p)) {
        node *argument = parse_primary(p);
        argument = argument == NULL ? NULL : parse_postfix(p, argument);
        if (argument == NULL || !mb_jinja_add_item(p, test, argument))
            return NULL;
    }
    return negated ? mb_jinja_new_parent(p, MB_JINJA_N_NOT, test, test) : test;
}

static node *parse_filters(struct mb_jinja_parser *p, node *input)
{
    while (input != NULL) {
        if (mb_jinja_at_op(p, "|"))
            input = mb_jinja_next_token(p) ? parse_filter(p, input) : NULL;
        else if (mb_jinja_at_name(p, "is"))
            input = parse_test(p, input);
        else if (mb_jinja_at_op(p, "("))
            input = parse_call(p, input);
        else
            break;
    }
    return input;
}

/* ---------------------------------------------------------------- operators */

static node *parse_unary(struct mb_jinja_parser *p, bool with_filters)
{
    bool is_negative, is_positive = false;
    if (!mb_jinja_enter(p) || !mb_jinja_take_op(p, "-", &is_negative) ||
        (!is_negative && !mb_jinja_take_op(p, "+", &is_positive)))
        return NULL;
    node *made = is_negative || is_positive ? parse_unary(p, false) : parse_primary(p);
    if (made != NULL && is_negative)
        made = mb_jinja_new_parent(p, MB_JINJA_N_NEGATIVE, made, made);
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

/* Left to right, as Jinja has it. */
static node *parse_power(struct mb_jinja_parser *p)
{
    node *left = parse_unary(p, true);
    bool more = true;
    while (left != NULL && mb_jinja_take_op(p, "**", &more) && more) {
        left = mb_jinja_new_parent(p, MB_JINJA_N_BINARY, left, parse_unary(p, true));
        if (left != NULL)
            left->op = MB_JINJA_POWER;
    }
    return p->run->status == MB_OK ? left : NULL;
}

/* Left to right: operand { operator operand }. 'level' 0: + -; 1: ~; 2: * / // %. */
static node *parse_binary(struct mb_jinja_parser *p, int level)
{
    static const struct operator operators[3][4] = {
        {{"+", MB_JINJA_ADD}, {"-", MB_JINJA_SUB}, {NULL, 0}},
        {{"~", MB_JINJA_CONCAT}, {NULL, 0}, {NULL, 0}},
        {{"*", MB_JINJA_MUL}, {"/", MB_JINJA_DIV}, {"//", MB_JINJA_FLOOR_DIV}, {"%", MB_JINJA_MOD}},
    };
    node *left = level == 2 ? parse_power(p) : parse_binary(p, level + 1);
    while (left != NULL) {
        size_t i = 0;
        while (i < 4 && (operators[level][i].text == NULL || !mb_jinja_at_op(p, operators[level][i].text)))
            i++;
        if (i == 4)
            break;
        if (!mb_jinja_next_token(p))
            return NULL;
        node *right = level == 2 ? parse_power(p) : parse_binary(p, level + 1);
        left = mb_jinja_new_parent(p, MB_JINJA_N_BINARY, left, right);
        if (left != NULL)
            left->op = operators[level][i].op;
    }
    return left;
}

/* A comparison's operator, if one is there, is taken. */
static bool take_comparison(struct mb_jinja_parser *p, bool *taken, enum mb_jinja_op *op)
{
    static const struct operator operators[] = {{"==", MB_JINJA_EQ}, {"!=", MB_JINJA_NE}, {"<=", MB_JINJA_LE},
                                                {">=", MB_JINJA_GE}, {"<", MB_JINJA_LT},  {">", MB_JINJA_GT}};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        *op = operators[i].op;
        if (!mb_jinja_take_op(p, operators[i].text, taken))
            return false;
        if (*taken)
            return true;
    }
    *op = MB_JINJA_IN;
    if (!mb_jinja_take_name(p, "in", taken) || *taken)
        return *taken;
    *op = MB_JINJA_NOT_IN;
    if (!mb_jinja_take_name(p, "not", taken))
        return false;
    if (!*taken)
        return true;
    bool has_in;
    return mb_jinja_take_name(p, "in", &has_in) && (has_in || mb_jinja_fail_at(p, "'in'") != NULL);
}

static node *parse_comparison(struct mb_jinja_parser *p)
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
            compare = mb_jinja_new_parent(p, MB_JINJA_N_COMPARE, left, left);
        node *right = parse_binary(p, 0);
        node *operand = right == NULL ? NULL : mb_jinja_new_parent(p, MB_JINJA_N_OPERAND, right, right);
        if (compare == NULL || operand == NULL || !mb_jinja_add_item(p, compare, operand))
            return NULL;
        operand->op = op;
    }
    return compare != NULL ? compare : left;
}

static node *parse_not(struct mb_jinja_parser *p)
{
    bool negated;
    if (!mb_jinja_take_name(p, "not", &negated))
        return NULL;
    if (!negated)
        return parse_comparison(p);
    if (!mb_jinja_enter(p))
        return NULL;
    node *operand = parse_not(p);
    p->depth--;
    return mb_jinja_new_parent(p, MB_JINJA_N_NOT, operand, operand);
}

static node *parse_and(struct mb_jinja_parser *p)
{
    node *left = parse_not(p);
    while (left != NULL && mb_jinja_at_name(p, "and")) {
        if (!mb_jinja_next_token(p))
            return NULL;
        left = mb_jinja_new_parent(p, MB_JINJA_N_AND, left, parse_not(p));
    }
    return left;
}

node *mb_jinja_parse_or(struct mb_jinja_parser *p)
{
    node *left = parse_and(p);
    while (left != NULL && mb_jinja_at_name(p, "or")) {
        if (!mb_jinja_next_token(p))
            return NULL;
        left = mb_jinja_new_parent(p, MB_JINJA_N_OR, left, parse_and(p));
    }
    return left;
}

node *mb_jinja_parse_expression(struct mb_jinja_parser *p)
{
    if (!mb_jinja_enter(p))
        return NULL;
    node *made = mb_jinja_parse_or(p);
    while (made != NULL && mb_jinja_at_name(p, "if")) {
        if (!mb_jinja_next_token(p))
            return NULL;
        node *condition = mb_jinja_parse_or(p);
        made = mb_jinja_new_parent(p, MB_JINJA_N_CHOICE, made, condition);
        bool has_else;
        if (made == NULL || !mb_jinja_take_name(p, "else", &has_else))
            return NULL;
        if (has_else) {
            made->c = mb_jinja_parse_expression(p);
            if (made->c == NULL || !mb_jinja_grow_over(p, made, made->c))
                return NULL;
        }
    }
    p->depth--;
    return made;
}

node *mb_jinja_parse_tuple(struct mb_jinja_parser *p)
{
    node *first = mb_jinja_parse_expression(p);
    if (first == NULL || !mb_jinja_at_op(p, ","))
        return first;
    node *tuple = mb_jinja_new_node(p, MB_JINJA_N_TUPLE);
    bool more = true;
    if (tuple == NULL || !mb_jinja_add_item(p, tuple, first))
        return NULL;
    while (mb_jinja_take_op(p, ",", &more) && more && p->lexer.token.kind != MB_JINJA_T_END) {
        node *item = mb_jinja_parse_expression(p);
        if (item == NULL || !mb_jinja_add_item(p, tuple, item))
            return NULL;
    }
    return p->run->status == MB_OK ? tuple : NULL;
}
