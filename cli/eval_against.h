/*
 * eval_against.h - the answers of another run, question by question, beside those of this one.
 */
#ifndef MOEBIUS_CLI_EVAL_AGAINST_H
#define MOEBIUS_CLI_EVAL_AGAINST_H

#include <jansson.h>
#include <moebius/lab.h>

enum { EVAL_N_MEASURES = 2 };

/* Whether each question was answered rightly, by two measures. */
struct eval_marks {
    const char *keys[EVAL_N_MEASURES];  /* of replies and reports: "ica", "pia" */
    const char *names[EVAL_N_MEASURES]; /* of tables */
    bool *rights[EVAL_N_MEASURES];      /* [n] */
    size_t n;
};

enum mb_status eval_marks_open(struct eval_marks *marks, size_t n, struct mb_error *err);
void eval_marks_close(struct eval_marks *marks);

struct eval_against {
    const char *path;
    struct mb_paired pairs[EVAL_N_MEASURES];
    size_t n_other; /* questions of the other run */
};

/*
 * Compares with the run whose --replies are in the file at against->path.  'question' gives question i of
 * this run: the file has to have the same ones in the same order, as far as both go.
 */
typedef const char *(*eval_question_fn)(const struct mb_task *task, size_t index);
enum mb_status eval_against(struct eval_against *against, const struct eval_marks *marks,
                            const struct mb_task *task, eval_question_fn question, struct mb_error *err);

json_t *eval_against_json(const struct eval_against *against, const struct eval_marks *marks);
void eval_against_print(const struct eval_against *against, const struct eval_marks *marks);

/* Questions that do not fit in the model's context: how many, and the first ones' lines. */
enum { EVAL_N_LINES = 10 };
struct eval_long {
    size_t n, lines[EVAL_N_LINES];
};
void eval_long_add(struct eval_long *questions, size_t line);
void eval_long_print(const struct eval_long *questions, size_t n_ctx);

#endif
