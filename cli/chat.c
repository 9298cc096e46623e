/*
 * chat.c - the verb "chat": a conversation in the terminal, or line by line through a pipe.
 *
 * stdout gets the replies alone, stderr all words of ours.
 */
#include "base/error.h"
#include "chat_input.h"
#include "chat_model.h"
#include "cli.h"
#include "conversation.h"
#include "machine.h"
#include "report.h"
#include <moebius/codec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    struct cli_generation generation;
    bool is_verbose, has_no_history;
} args;

static const struct cli_option options[] = {
    CLI_ROW_SYSTEM(args.generation, ""),
    CLI_ROW_TEMPLATE(args.generation, ""),
    CLI_ROW_VARIABLES(args.generation, ""),
    CLI_ROWS_GENERATION(args.generation,
                        "most tokens of a reply (default -1: until the model ends or its context is full)",
                        "tokens of context, the whole conversation (default 0: the model's)"),
    CLI_ROW_FLAG(0, "no-history", args.has_no_history,
                 "keep no file of the lines that are typed (default: moebius/chat_history in\n"
                 "$XDG_STATE_HOME, else in ~/.local/state)"),
    CLI_ROW_FLAG('v', "verbose", args.is_verbose,
                 "say how the model was loaded, and after each reply what was computed"),
};

static const struct cli_command command = {
    .name = "chat",
    .args = "MODEL [options]",
    .summary = "Talk with a model: a conversation in the terminal, or line by line through a pipe.",
    .details =
        "Each line is a message. A line that ends in a backslash goes on in the next line, and so does a\n"
        "message that begins with \"\"\" until a line ends with \"\"\". Empty lines are left out. Ctrl-C "
        "stops\n"
        "a reply; at the prompt, Ctrl-C twice or Ctrl-D ends the program. Lines that begin with / are\n"
        "commands, /help lists them; a message that begins with / is written after \"\"\".\n\n"
        "The replies go to stdout, all else to stderr. After each reply: its tokens, their rate, and how\n"
        "many tokens of the conversation were new and how many the cache kept. Thinking (<think>) is shown\n"
        "dim on a terminal. Through a pipe, the first thing that fails gives the exit status.\n\n" //
    CLI_SAMPLING_WORDS "\n\n"
        "  moebius chat models/reference\n"
        "  moebius chat models/reference --system 'Answer in one line.' --temp 0.7\n"
        "  printf 'Hello\\n/save talk.jsonl\\n' | moebius chat models/reference",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

struct chat {
    struct cli_chat_model model;
    struct cli_conversation conversation;
    struct cli_chat_input input;
    struct mb_store_traffic traffic; /* up to the last reply */
    bool is_over;
    int exit_status; /* of what failed first, through a pipe; of what ended the program */
};

/* ---------------------------------------------------------------- turns */

static double rate_of(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void print_figures(struct chat *chat, const struct cli_reply *reply)
{
    static const char *const ends[] = {
        [MB_FINISH_STOP] = "",
        [MB_FINISH_LENGTH] = ", stopped by -n",
        [MB_FINISH_CONTEXT] = ", cut: the context is full. /undo takes this turn back, /reset forgets all",
        [MB_FINISH_CANCELLED] = ", interrupted",
        [MB_FINISH_ERROR] = ", failed"};
    size_t n_new = reply->n_prompt - reply->n_kept;
    fprintf(stderr, "[%zu tokens, %.1f t/s, prompt %zu new + %zu kept%s]\n", reply->n_tokens,
            rate_of(reply->n_tokens, reply->seconds), n_new, reply->n_kept, ends[reply->finish]);
    if (chat->model.info->memory.reads != MB_READS_NONE) {
        char text[CLI_TRAFFIC_NBYTES];
        struct mb_store_traffic now = mb_model_traffic(chat->model.model);
        struct mb_store_traffic since = cli_traffic_since(&now, &chat->traffic);
        fprintf(stderr, "[streaming, prompt and reply: %s]\n",
                cli_traffic(text, &since, n_new + reply->n_tokens, reply->prompt_seconds + reply->seconds));
        chat->traffic = now;
        cli_print_reads(chat->model.model);
    }
    if (!args.is_verbose)
        return;
    size_t n_held = reply->n_prompt + reply->n_tokens;
    n_held -= reply->n_tokens > 0 && reply->finish != MB_FINISH_STOP; /* the last token was not fed */
    fprintf(stderr, "[prompt: %zu tokens, %zu reused, %zu computed, %.1f t/s; context: %zu of %zu",
            reply->n_prompt, reply->n_kept, n_new, rate_of(n_new, reply->prompt_seconds), n_held,
            chat->model.n_ctx);
    if (chat->model.sampler.temperature > 0)
        fprintf(stderr, "; seed %llu", (unsigned long long)chat->model.sampler.seed - 1);
    fputs("]\n", stderr);
}

/* A reply to the conversation, which ends with a user's message, is added. *is_made: there is one, also where
 * it was cut. */
static enum mb_status reply(struct chat *chat, bool *is_made, struct mb_error *err)
{
    struct cli_conversation *c = &chat->conversation;
    struct cli_reply made;
    enum mb_status status = cli_chat_model_reply(&chat->model, c->messages, c->n, &made, err);
    cli_forget_interrupt();
    if (made.n_prompt > 0)
        print_figures(chat, &made);
    *is_made = made.n_tokens > 0 || (status == MB_OK && made.finish != MB_FINISH_CANCELLED);
    if (*is_made)
        cli_conversation_add(c, "assistant", made.text.p);
    free(made.text.p);
    return status;
}

static enum mb_status send_message(struct chat *chat, const char *text, struct mb_error *err)
{
    bool is_made;
    cli_conversation_add(&chat->conversation, "user", text);
    enum mb_status status = reply(chat, &is_made, err);
    if (!is_made)
        cli_conversation_undo(&chat->conversation);
    if (!is_made && status == MB_OK)
        fputs("[there was no reply yet: the message is taken back]\n", stderr);
    return status;
}

/* ---------------------------------------------------------------- commands */

static void print_state(const struct chat *chat, const char *what)
{
    size_t n = chat->conversation.n;
    fprintf(stderr, "[%s: the conversation has %zu message%s%s]\n", what, n, n == 1 ? "" : "s",
            cli_conversation_system(&chat->conversation) == NULL ? "" : ", the system message included");
}

static enum mb_status do_reset(struct chat *chat, const char *arg, struct mb_error *err)
{
    (void)arg, (void)err;
    cli_conversation_reset(&chat->conversation);
    print_state(chat, "forgotten");
    return MB_OK;
}

static enum mb_status do_undo(struct chat *chat, const char *arg, struct mb_error *err)
{
    (void)arg;
    if (!cli_conversation_undo(&chat->conversation))
        return mb_fail(err, MB_USAGE, "/undo: there is no turn to take back");
    print_state(chat, "taken back");
    return MB_OK;
}

/* The old reply stays where there is no new one. A conversation that was loaded may end with a question. */
static enum mb_status do_regen(struct chat *chat, const char *arg, struct mb_error *err)
{
    (void)arg;
    struct cli_conversation *c = &chat->conversation;
    bool is_made;
    char *old = cli_conversation_take_reply(c);
    if (old == NULL && (c->n == 0 || strcmp(c->messages[c->n - 1].role, "user") != 0))
        return mb_fail(err, MB_USAGE, "/regen: there is no reply to make again");
    enum mb_status status = reply(chat, &is_made, err);
    if (!is_made && old != NULL)
        cli_conversation_add(c, "assistant", old);
    free(old);
    return status;
}

static enum mb_status do_system(struct chat *chat, const char *arg, struct mb_error *err)
{
    (void)err;
    if (arg[0] != '\0') {
        cli_conversation_set_system(&chat->conversation, strcmp(arg, "\"\"") == 0 ? "" : arg);
        print_state(chat, "set");
        return MB_OK;
    }
    const char *system_text = cli_conversation_system(&chat->conversation);
    if (system_text == NULL) {
        fputs("[no system message]\n", stderr);
        return MB_OK;
    }
    char *shown = cli_check_memory(strdup(system_text));
    mb_make_printable(shown);
    fprintf(stderr, "[system message: %s]\n", shown);
    free(shown);
    return MB_OK;
}

/* The rest of the line, after --force where that is given. */
static const char *take_force(const char *arg, bool *is_forced)
{
    static const char force[] = "--force";
    size_t n = sizeof force - 1;
    *is_forced = strncmp(arg, force, n) == 0 && (arg[n] == ' ' || arg[n] == '\0');
    return *is_forced ? arg + n + strspn(arg + n, " ") : arg;
}

static enum mb_status do_save(struct chat *chat, const char *arg, struct mb_error *err)
{
    bool is_forced;
    const char *path = take_force(arg, &is_forced);
    if (path[0] == '\0')
        return mb_fail(err, MB_USAGE, "/save needs the name of a file");
    MB_TRY(cli_conversation_save(&chat->conversation, path, is_forced, err));
    print_state(chat, "saved");
    return MB_OK;
}

static enum mb_status do_load(struct chat *chat, const char *arg, struct mb_error *err)
{
    if (arg[0] == '\0')
        return mb_fail(err, MB_USAGE, "/load needs the name of a file");
    MB_TRY(cli_conversation_load(&chat->conversation, arg, err));
    print_state(chat, "loaded");
    return MB_OK;
}

static enum mb_status do_exit(struct chat *chat, const char *arg, struct mb_error *err)
{
    (void)arg, (void)err;
    chat->is_over = true;
    return MB_OK;
}

static enum mb_status do_help(struct chat *chat, const char *arg, struct mb_error *err);

static const struct chat_command {
    const char *name, *other; /* 'other': what other programs call it */
    const char *arg, *help;
    enum mb_status (*run)(struct chat *chat, const char *arg, struct mb_error *err);
} commands[] = {
    {"/help", "/?", "", "this list", do_help},
    {"/reset", "/clear", "", "forget the conversation, but not the system message", do_reset},
    {"/undo", NULL, "", "take the last turn back", do_undo},
    {"/regen", NULL, "", "make the last reply again; without sampling it is the same", do_regen},
    {"/system", NULL, "TEXT", "set the system message; \"\" removes it, nothing shows it", do_system},
    {"/save", NULL, "[--force] FILE", "write the messages as jsonl; --force replaces a file", do_save},
    {"/load", NULL, "FILE", "go on with the messages of a file, instead of these", do_load},
    {"/exit", "/bye", "", "end (also Ctrl-D)", do_exit},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static enum mb_status do_help(struct chat *chat, const char *arg, struct mb_error *err)
{
    (void)chat, (void)arg, (void)err;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", commands[i].name, commands[i].arg);
        fprintf(stderr, "  %-24s %s\n", left, commands[i].help);
    }
    fputs("A line that ends in \\ goes on in the next; \"\"\" begins and ends a message of several lines.\n"
          "Ctrl-C stops a reply.\n",
          stderr);
    return MB_OK;
}

static enum mb_status do_command(struct chat *chat, const char *line, struct mb_error *err)
{
    size_t n = strcspn(line, " \t\n");
    const char *arg = line + n + strspn(line + n, " \t");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const struct chat_command *c = &commands[i];
        if ((strlen(c->name) == n && strncmp(line, c->name, n) == 0) ||
            (c->other != NULL && strlen(c->other) == n && strncmp(line, c->other, n) == 0))
            return c->run(chat, arg, err);
    }
    return mb_fail(
        err, MB_USAGE,
        "%.*s: no such command; /help lists them. Write \"\"\" before a message that begins with /",
        n < 64 ? (int)n : 64, line);
}

/* ---------------------------------------------------------------- the loop */

/* Failures end nothing but standard output that cannot be written; what is to be done is in the message. */
static void take_failure(struct chat *chat, const struct mb_error *err)
{
    int exit_status = cli_fail(err);
    if (!chat->input.is_terminal && chat->exit_status == 0)
        chat->exit_status = exit_status;
    if (ferror(stdout)) {
        chat->exit_status = exit_status;
        chat->is_over = true;
    }
}

/* Trailing white space counts in a message, not in a command's argument. */
static void cut_end(char *line)
{
    size_t n = strlen(line);
    while (n > 0 && strchr(" \t", line[n - 1]) != NULL)
        line[--n] = '\0';
}

static void take_message(struct chat *chat, char *text, bool is_quoted)
{
    struct mb_error err;
    enum mb_status status = MB_OK;
    if (!is_quoted && text[0] == '/') {
        cut_end(text);
        status = do_command(chat, text, &err);
    } else if (text[strspn(text, " \t\n")] != '\0') {
        status = send_message(chat, text, &err);
    }
    if (status != MB_OK)
        take_failure(chat, &err);
}

/* At a prompt the first Ctrl-C only says how to end. */
static void take_interrupt(struct chat *chat, bool is_second)
{
    bool is_sigint = cli_forget_interrupt();
    if (is_sigint && chat->input.is_terminal && !is_second) {
        fputs("[Ctrl-C once more, Ctrl-D or /exit ends]\n", stderr);
        return;
    }
    chat->is_over = true;
    if (!is_sigint || !chat->input.is_terminal)
        chat->exit_status = mb_status_exit_code(MB_CANCELLED);
}

static void talk(struct chat *chat)
{
    bool was_interrupted = false;
    while (!chat->is_over) {
        char *text;
        bool is_quoted;
        struct mb_error err;
        enum cli_input got = cli_chat_input_read(&chat->input, &text, &is_quoted, &err);
        bool is_interrupt = got == CLI_INPUT_INTERRUPT || got == CLI_INPUT_DROPPED;
        if (is_interrupt) {
            take_interrupt(chat, was_interrupted && got == CLI_INPUT_INTERRUPT);
        } else if (got == CLI_INPUT_MESSAGE) {
            take_message(chat, text, is_quoted);
            free(text);
        } else {
            chat->is_over = true;
            if (got == CLI_INPUT_FAILED)
                chat->exit_status = cli_fail(&err);
        }
        was_interrupted = is_interrupt;
    }
}

static void greet(const struct chat *chat)
{
    const struct mb_model_info *info = chat->model.info;
    char a[32], threads[64], form[CLI_FORM_NBYTES];
    cli_print_notes(info->notes);
    if (args.is_verbose)
        fprintf(stderr, "[load: %s, %s weights, %s, %s, context %zu tokens]\n",
                cli_seconds(a, chat->model.load_seconds), info->is_coded ? "coded" : "plain",
                mb_kernels()->isa, cli_threads(threads, info->n_threads), chat->model.n_ctx);
    if (args.is_verbose && info->is_coded)
        fprintf(stderr, "[weights in memory: %s]\n", cli_memory_form(form, &info->memory));
    if (chat->input.is_terminal)
        fputs("[/help lists the commands, Ctrl-C stops a reply, Ctrl-D ends]\n", stderr);
}

static int chat_with(const char *path)
{
    struct chat chat = {0};
    struct mb_error err;
    enum mb_status status = cli_timeline_begin(args.generation.timeline, path, &err);
    if (status == MB_OK)
        status = cli_chat_model_open(&chat.model, path, &args.generation, &err);
    if (status != MB_OK) {
        cli_chat_model_close(&chat.model);
        return cli_timeline_end(cli_fail(&err));
    }
    chat.traffic = mb_model_traffic(chat.model.model); /* a profile's experts are there already */
    cli_keep_interrupts(); /* only now: while the model loads nothing looks at the flag */
    if (args.generation.system != NULL)
        cli_conversation_set_system(&chat.conversation, args.generation.system);
    cli_chat_input_open(&chat.input, !args.has_no_history);
    greet(&chat);
    talk(&chat);
    cli_chat_input_close(&chat.input);
    cli_conversation_close(&chat.conversation);
    cli_chat_model_close(&chat.model);
    return cli_timeline_end(chat.exit_status);
}

int cli_chat(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    args.generation = (struct cli_generation)CLI_GENERATION_DEFAULTS;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    const char *wrong = args.generation.n_predict == 0 ? "-n 0: a reply has at least one token"
                                                       : cli_generation_check(&args.generation);
    if (wrong != NULL)
        return cli_usage_error(&command, "%s", wrong);
    return chat_with(positional[0]);
}
