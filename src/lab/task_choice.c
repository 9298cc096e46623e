/*
 * task_choice.c - multiple choice, with the prompts of lm-evaluation-harness: ARC, MMLU, Winogrande, AQuA.
 */
#include "base/buf.h"
#include "base/error.h"
#include "number.h"
#include "task_form.h"
#include <stdlib.h>
#include <string.h>

enum { N_CHOICES_MAX = 26 }; /* as many as letters */

bool mb_task_is_choice(const json_t *object)
{
    return json_object_get(object, "choices") != NULL || json_object_get(object, "options") != NULL ||
           json_object_get(object, "sentence") != NULL;
}

/* ---------------------------------------------------------------- texts */

static bool put(struct mb_bytes *text, const char *part)
{
    return mb_bytes_put(text, part, strlen(part));
}

/* The text is the caller's; NULL: no memory. */
static char *take(struct mb_bytes *text, bool ok)
{
    if (ok && mb_bytes_put(text, "", 1))
        return text->p;
    free(text->p);
    return NULL;
}

static char *join(const char *a, const char *b, const char *c)
{
    struct mb_bytes text = {0};
    return take(&text, put(&text, a) && put(&text, b) && put(&text, c));
}

static enum mb_status reserve(struct mb_choice_item *item, size_t n, struct mb_error *err)
{
    item->contexts = calloc(n, sizeof *item->contexts);
    item->continuations = calloc(n, sizeof *item->continuations);
    if (item->contexts == NULL || item->continuations == NULL)
        return mb_fail_memory(err, "the choices");
    item->n_choices = n;
    return MB_OK;
}

/* Choice i; takes both texts, which are NULL when memory is out. */
static enum mb_status set(struct mb_choice_item *item, size_t i, char *context, char *continuation,
                          struct mb_error *err)
{
    item->contexts[i] = context;
    item->continuations[i] = continuation;
    return context != NULL && continuation != NULL ? MB_OK : mb_fail_memory(err, "the choices");
}

/* All choices have one context; the continuations are letters, or texts of the list. */
static enum mb_status set_all(struct mb_choice_item *item, const char *context, const json_t *choices,
                              bool by_letter, struct mb_error *err)
{
    size_t n = json_array_size(choices);
    MB_TRY(reserve(item, n, err));
    for (size_t i = 0; i < n; i++) {
        const char letter[2] = {(char)('A' + i)};
        const char *text = by_letter ? letter : json_string_value(json_array_get(choices, i));
        MB_TRY(set(item, i, strdup(context), join(" ", text, ""), err));
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- what all have */

static enum mb_status read_question(const json_t *object, const char **question, struct mb_error *err)
{
    *question = json_string_value(json_object_get(object, "question"));
    return *question != NULL ? MB_OK : mb_fail(err, MB_BAD_DATA, "no text 'question'");
}

static enum mb_status check_choices(const json_t *choices, const char *key, struct mb_error *err)
{
    size_t n = json_array_size(choices);
    if (n < 2 || n > N_CHOICES_MAX)
        return mb_fail(err, MB_BAD_DATA, "'%s' is not a list of 2 to %d texts", key, N_CHOICES_MAX);
    for (size_t i = 0; i < n; i++)
        if (json_string_length(json_array_get(choices, i)) == 0)
            return mb_fail(err, MB_BAD_DATA, "'%s' is not a list of texts that are not empty", key);
    return MB_OK;
}

/* An index from 0, or a letter. */
static enum mb_status read_right(const json_t *object, const char *key, size_t n, size_t *right,
                                 struct mb_error *err)
{
    const json_t *value = json_object_get(object, key);
    json_int_t i = -1;
    if (json_is_integer(value))
        i = json_integer_value(value);
    else if (json_string_length(value) == 1)
        i = json_string_value(value)[0] - 'A';
    if (i < 0 || (size_t)i >= n)
        return mb_fail(err, MB_BAD_DATA, "'%s' is neither the index, from 0, nor the letter of a choice",
                       key);
    *right = (size_t)i;
    return MB_OK;
}

/* ---------------------------------------------------------------- ARC and MMLU */

static char *arc_context(const char *question)
{
    return join("Question: ", question, "\nAnswer:");
}

/* "abstract_algebra" is about abstract algebra. */
static bool put_subject(struct mb_bytes *text, const char *subject)
{
    bool ok = put(text, "The following are multiple choice questions (with answers) about ");
    for (; ok && *subject != '\0'; subject++)
        ok = mb_bytes_put(text, *subject == '_' ? " " : subject, 1);
    return ok && put(text, ".\n\n");
}

/* The question without white space around it. */
static bool put_stripped(struct mb_bytes *text, const char *question)
{
    const char *end = question + strlen(question);
    question = mb_lab_skip_space(question, end);
    while (end > question && mb_lab_is_space(end[-1]))
        end--;
    return mb_bytes_put(text, question, (size_t)(end - question));
}

static char *mmlu_context(const char *subject, const char *question, const json_t *choices, size_t *n_header)
{
    struct mb_bytes text = {0};
    bool ok = put_subject(&text, subject);
    *n_header = text.n;
    ok = ok && put_stripped(&text, question);
    for (size_t i = 0; ok && i < json_array_size(choices); i++) {
        const char head[] = {'\n', (char)('A' + i), '.', ' '};
        ok = mb_bytes_put(&text, head, sizeof head) &&
             put(&text, json_string_value(json_array_get(choices, i)));
    }
    return take(&text, ok && put(&text, "\nAnswer:"));
}

/* With a subject it is MMLU's: the choices are in the question, and letters answer it. */
static enum mb_status read_choices(const json_t *object, struct mb_choice_item *item, struct mb_error *err)
{
    const char *question, *subject = json_string_value(json_object_get(object, "subject"));
    const json_t *choices = json_object_get(object, "choices");
    MB_TRY(read_question(object, &question, err));
    MB_TRY(check_choices(choices, "choices", err));
    MB_TRY(read_right(object, "answer", json_array_size(choices), &item->right, err));
    char *context =
        subject != NULL ? mmlu_context(subject, question, choices, &item->n_header) : arc_context(question);
    if (context == NULL)
        return mb_fail_memory(err, "the questions");
    enum mb_status status = set_all(item, context, choices, subject != NULL, err);
    free(context);
    return status;
}

/* ---------------------------------------------------------------- AQuA */

static char *aqua_context(const char *question, const json_t *options)
{
    struct mb_bytes text = {0};
    bool ok = put(&text, "Question: ") && put(&text, question);
    for (size_t i = 0; ok && i < json_array_size(options); i++)
        ok = put(&text, "\n") && put(&text, json_string_value(json_array_get(options, i)));
    return take(&text, ok && put(&text, "\nAnswer:"));
}

/* The options begin with their letters: "A)32400". */
static enum mb_status read_aqua(const json_t *object, struct mb_choice_item *item, struct mb_error *err)
{
    const char *question;
    const json_t *options = json_object_get(object, "options");
    MB_TRY(read_question(object, &question, err));
    MB_TRY(check_choices(options, "options", err));
    MB_TRY(read_right(object, "correct", json_array_size(options), &item->right, err));
    char *context = aqua_context(question, options);
    if (context == NULL)
        return mb_fail_memory(err, "the questions");
    enum mb_status status = set_all(item, context, options, true, err);
    free(context);
    return status;
}

/* ---------------------------------------------------------------- Winogrande */

/* Partial evaluation: how likely the rest of the sentence is after either option. */
static enum mb_status set_gap(struct mb_choice_item *item, const char *sentence, const char *gap,
                              const char *const options[2], struct mb_error *err)
{
    MB_TRY(reserve(item, 2, err));
    for (size_t i = 0; i < 2; i++) {
        struct mb_bytes before = {0}, after = {0};
        bool ok = mb_bytes_put(&before, sentence, (size_t)(gap - sentence)) && put(&before, options[i]);
        char *context = take(&before, ok);
        char *continuation = take(&after, put(&after, " ") && put_stripped(&after, gap + 1));
        MB_TRY(set(item, i, context, continuation, err));
    }
    return MB_OK;
}

static enum mb_status read_winogrande(const json_t *object, struct mb_choice_item *item, struct mb_error *err)
{
    const char *sentence = json_string_value(json_object_get(object, "sentence"));
    const char *options[2] = {json_string_value(json_object_get(object, "option1")),
                              json_string_value(json_object_get(object, "option2"))};
    const char *answer = json_string_value(json_object_get(object, "answer"));
    const char *gap = sentence != NULL ? strchr(sentence, '_') : NULL;
    if (gap == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text 'sentence' with a gap, _");
    for (int i = 0; i < 2; i++)
        if (options[i] == NULL || options[i][0] == '\0')
            return mb_fail(err, MB_BAD_DATA, "no text 'option%d'", i + 1);
    if (answer == NULL || (strcmp(answer, "1") != 0 && strcmp(answer, "2") != 0))
        return mb_fail(err, MB_BAD_DATA, "'answer' is not \"1\" or \"2\"");
    item->right = answer[0] == '2';
    return set_gap(item, sentence, gap, options, err);
}

enum mb_status mb_task_read_choice(const json_t *object, struct mb_choice_item *item, struct mb_error *err)
{
    if (json_object_get(object, "sentence") != NULL)
        return read_winogrande(object, item, err);
    if (json_object_get(object, "options") != NULL)
        return read_aqua(object, item, err);
    return read_choices(object, item, err);
}

void mb_task_free_choice(struct mb_choice_item *item)
{
    for (size_t i = 0; i < item->n_choices; i++) {
        free(item->contexts[i]);
        free(item->continuations[i]);
    }
    free(item->contexts);
    free(item->continuations);
}
