/*
 * test_chat.c - "moebius chat" through a pipe and on a terminal, on the reference model.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define REFERENCE MB_REPO "/models/reference"
#define SMALL MB_REPO "/tests/model/data/checkpoints/groups"
#define QUESTION "Ali has 92 pears. A friend gives Ali 43 pears. How many pears does Ali have now?"

/* What is typed into "chat REFERENCE ARGS", and how it ended. */
static const struct ran *chat(const char *typed, const char *args)
{
    test_write(test_path("typed.txt"), typed, strlen(typed));
    return run("chat %s %s <typed.txt", REFERENCE, args);
}

static const struct ran *chat_well(const char *typed, const char *args)
{
    const struct ran *ran = chat(typed, args);
    if (ran->exit_status != 0)
        fail_msg("exit status %d: %s", ran->exit_status, ran->err);
    return ran;
}

static void assert_file(const char *name, const char *text)
{
    size_t nbytes;
    char *bytes = (char *)test_read(test_path(name), &nbytes);
    if (nbytes != strlen(text) || memcmp(bytes, text, nbytes) != 0)
        fail_msg("%s: %.*s\nexpected: %s", name, (int)nbytes, bytes, text);
    free(bytes);
}

/* ---------------------------------------------------------------- turns */

static void a_line_is_a_turn_and_its_reply_alone_goes_to_stdout(void **state)
{
    (void)state;
    json_t *json = run_json("run %s --chat -p '%s' -o json", REFERENCE, QUESTION);
    const char *text = json_string_value(json_object_get(json, "text"));
    const struct ran *ran = chat_well(QUESTION "\n", "");
    assert_int_equal(strlen(ran->out), strlen(text) + 1);
    assert_int_equal(strncmp(ran->out, text, strlen(text)), 0);
    assert_non_null(strstr(ran->err, " t/s, prompt "));
    assert_null(strchr(ran->err, '\033'));
    assert_null(strstr(ran->err, ">>>"));
    json_decref(json);
}

struct figures {
    int n_tokens, n_new, n_kept;
};

/* Of the reply whose line comes next in *text. */
static struct figures next_figures(const char **text)
{
    struct figures f = {0};
    const char *line = strstr(*text, " t/s, prompt ");
    if (line == NULL)
        fail_msg("no figures in: %s", *text);
    assert_int_equal(sscanf(line, " t/s, prompt %d new + %d kept", &f.n_new, &f.n_kept), 2);
    while (*line != '[')
        line--;
    assert_int_equal(sscanf(line, "[%d tokens", &f.n_tokens), 1);
    *text = strchr(line, '\n');
    return f;
}

static void nothing_is_computed_twice(void **state)
{
    (void)state;
    const char *err = chat_well(QUESTION "\nWhy?\nWhy?\n", "-n 5")->err;
    struct figures first = next_figures(&err), second = next_figures(&err), third = next_figures(&err);
    assert_int_equal(first.n_kept, 0);
    /* The last token of a reply that -n stops was not fed. */
    assert_int_equal(second.n_kept, first.n_new + first.n_tokens - 1);
    assert_int_equal(third.n_kept, second.n_kept + second.n_new + second.n_tokens - 1);
    assert_true(second.n_new < 15);
    assert_int_equal(third.n_new, second.n_new);
    err = chat_well(QUESTION "\nWhy?\n", "-v")->err;
    first = next_figures(&err);
    second = next_figures(&err);
    assert_int_equal(second.n_kept, first.n_new + first.n_tokens); /* the model ended it */
    assert_non_null(strstr(err, " reused, "));
}

static void messages_may_have_several_lines(void **state)
{
    (void)state;
    chat_well("one\\\ntwo\n\n  \n\"\"\"\n/three\n\n four\"\n\"\"\"\n\"\"\"five\"\"\"\r\n/save lines.jsonl\n",
              "-n 1");
    const char *found =
        run_after("jq -r 'select(.role == \"user\") | .content' lines.jsonl;", "--version")->out;
    const char expected[] = "one\ntwo\n/three\n\n four\"\nfive\n";
    if (strncmp(found, expected, sizeof expected - 1) != 0)
        fail_msg("%s", found);
}

static void a_full_context_is_told_and_nothing_is_dropped(void **state)
{
    (void)state;
    const struct ran *ran = chat("hello\nhello\n/save full.jsonl\n/reset\nhello\n", "-c 20 -n 9");
    assert_int_equal(ran->exit_status, 2);
    assert_non_null(strstr(ran->err, "the context is full"));
    assert_non_null(strstr(ran->err, "/reset"));
    assert_non_null(strstr(ran->err, "a larger -c holds more"));
    const char *err = ran->err;
    next_figures(&err);
    assert_int_equal(next_figures(&err).n_tokens, 9); /* after /reset */
    assert_non_null(strstr(ran->err, "[saved: the conversation has 2 messages]"));
    ran = chat("hello\n", "-c 16");
    assert_int_equal(ran->exit_status, 0);
    assert_non_null(strstr(ran->err, "cut: the context is full"));
}

static void control_characters_reach_no_terminal(void **state)
{
    (void)state;
    const struct ran *ran =
        chat_well("x\n/save odd.jsonl\n", "-n 200 --temp 50 --top-k 0 --top-p 1 --min-p 0 -s 3");
    for (const char *p = ran->out; *p != '\0'; p++)
        if (((unsigned char)*p < 0x20 && strchr("\n\t", *p) == NULL) || *p == 0x7f)
            fail_msg("byte %d", *p);
    size_t nbytes;
    char *saved = (char *)test_read(test_path("odd.jsonl"), &nbytes);
    assert_non_null(memmem(saved, nbytes, "\\u00", 4)); /* the file has what the model said */
    free(saved);
}

/* ---------------------------------------------------------------- commands */

static void conversations_are_saved_and_loaded(void **state)
{
    (void)state;
    chat_well(QUESTION "\n/save a.jsonl\n", "--system 'Be brief.'");
    const char *err = chat_well("/load a.jsonl\n/save b.jsonl\nWhy?\n", "-n 1")->err;
    assert_non_null(strstr(err, "[loaded: the conversation has 3 messages, the system message included]"));
    size_t nbytes;
    char *a = (char *)test_read(test_path("a.jsonl"), &nbytes);
    a = realloc(a, nbytes + 1);
    a[nbytes] = '\0';
    static const char first[] = "{\"role\": \"system\", \"content\": \"Be brief.\"}\n{\"role\": \"user\", ";
    assert_int_equal(strncmp(a, first, sizeof first - 1), 0);
    assert_file("b.jsonl", a);
    const struct ran *ran = chat("/save a.jsonl\n", "");
    assert_int_equal(ran->exit_status, 2);
    assert_non_null(strstr(ran->err, "a.jsonl: the file exists"));
    assert_file("a.jsonl", a);
    free(a);
    chat_well("/save --force a.jsonl\n", "");
    assert_file("a.jsonl", "");
}

static void what_cannot_be_loaded_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "no messages"},
        {"\n{\"role\": \"tool\", \"content\": \"x\"}\n", "line 2: role 'tool'"},
        {"{\"role\": \"user\"}\n", "line 1: not an object"},
        {"[1]\n", "line 1: not an object"},
        {"{\"role\": \"user\", \"content\": \"x\"}\n{\"role\": \"system\", \"content\": \"x\"}\n",
         "line 2: a system"},
        {"{\"role\": \"user\", \"content\": \"x\n", "bad.jsonl: line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_write(test_path("bad.jsonl"), cases[i].text, strlen(cases[i].text));
        const struct ran *ran = chat("/load bad.jsonl\n/system\n", "--system kept");
        assert_int_equal(ran->exit_status, 3);
        if (strstr(ran->err, cases[i].words) == NULL || strstr(ran->err, "[system message: kept]") == NULL)
            fail_msg("%s", ran->err);
    }
    assert_int_equal(chat("/load missing.jsonl\n", "")->exit_status, 3);
}

static void turns_are_taken_back_and_made_again(void **state)
{
    (void)state;
    chat_well("one\ntwo\n/undo\n/regen\n/save turns.jsonl\n", "-n 5 --temp 3 -s 1");
    assert_string_equal(run_after("jq -r .role turns.jsonl | tr '\\n' ' '; : ||", "--version")->out,
                        "user assistant ");
    const char *out = chat_well("one\n/regen\n", "-n 5 --temp 5 --top-k 0 --top-p 1 --min-p 0 -s 1")->out;
    size_t n = strlen(out) / 2;
    assert_true(n == 0 || strncmp(out, out + n, n) != 0); /* another seed */
    const struct ran *ran = chat("/undo\n/regen\n/nonsense\n/help\n/bye\nnot read\n", "");
    assert_int_equal(ran->exit_status, 2);
    assert_non_null(strstr(ran->err, "no turn"));
    assert_non_null(strstr(ran->err, "no reply"));
    assert_non_null(strstr(ran->err, "/nonsense: no such command"));
    assert_non_null(strstr(ran->err, "/save [--force] FILE"));
    assert_string_equal(ran->out, "");
}

static void the_system_message_is_set_shown_and_removed(void **state)
{
    (void)state;
    const char *err =
        chat_well("/system\n/system A\\\nB\n/system\n/system \"\"\n/system\n", "--system first")->err;
    assert_non_null(strstr(err, "[system message: first]"));
    assert_non_null(strstr(err, "[system message: A?B]"));
    assert_non_null(strstr(err, "[no system message]"));
}

static void wrong_calls_are_told(void **state)
{
    (void)state;
    assert_fails(run("chat %s -n 0", REFERENCE), 2, "-n 0");
    assert_fails(run("chat %s --cache-type f8", REFERENCE), 2, "--cache-type");
    assert_fails(run("chat %s -c 257", REFERENCE), 2, "256 tokens");
    assert_fails(run("chat"), 2, "see moebius chat --help");
    assert_fails(run("chat missing"), 3, "missing");
    assert_fails(run_after("printf 'a\\0b\\n' |", "chat %s", REFERENCE), 3, "zero byte");
    const struct ran *ran = run_after("printf 'a\\nb\\n' |", "chat %s -n 3 >/dev/full", REFERENCE);
    assert_int_equal(ran->exit_status, 4);
    assert_non_null(strstr(ran->err, "standard output"));
}

/* ---------------------------------------------------------------- signals and terminals */

/* A program under way. 'seen' is all that it wrote to stdout and stderr. */
struct child {
    pid_t pid;
    int in, out;
    char seen[1 << 20];
    size_t n_seen, n_expected; /* bytes; up to where the last expected words were */
};

static struct child child;

static void run_child(const char *const *argv)
{
    if (chdir(test_path(".")) != 0)
        _exit(99);
    setenv("XDG_STATE_HOME", test_path("state"), 1);
    setenv("TERM", "xterm", 1);
    execv(MB_PROGRAM, (char *const *)argv);
    _exit(99);
}

static void start_in_pipes(const char *const *argv)
{
    int in[2], out[2];
    child = (struct child){0};
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        dup2(out[1], STDERR_FILENO);
        run_child(argv);
    }
    close(in[0]);
    close(out[1]);
    child.in = in[1];
    child.out = out[0];
}

static void start_in_terminal(const char *const *argv)
{
    child = (struct child){0};
    child.pid = forkpty(&child.in, NULL, NULL, &(struct winsize){.ws_row = 40, .ws_col = 200});
    assert_true(child.pid >= 0);
    if (child.pid == 0)
        run_child(argv);
    child.out = child.in;
}

static void type(const char *text)
{
    assert_int_equal(write(child.in, text, strlen(text)), strlen(text));
}

/* false: the program has closed its output. */
static bool read_more(void)
{
    struct pollfd ready = {.fd = child.out, .events = POLLIN};
    if (poll(&ready, 1, 60000) <= 0)
        fail_msg("nothing comes after: %s", child.seen);
    ssize_t n = read(child.out, child.seen + child.n_seen, sizeof child.seen - child.n_seen - 1);
    child.n_seen += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* Waits until these words come, after the last ones that were expected. */
static void expect(const char *words)
{
    const char *found;
    while ((found = strstr(child.seen + child.n_expected, words)) == NULL)
        if (!read_more())
            fail_msg("'%s' does not come: %s", words, child.seen + child.n_expected);
    child.n_expected = (size_t)(found - child.seen) + strlen(words);
}

static int wait_for_end(void)
{
    int status;
    while (read_more())
        continue;
    close(child.in);
    if (child.out != child.in)
        close(child.out);
    assert_int_equal(waitpid(child.pid, &status, 0), child.pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* The reference model with a large context and an end of text that it never makes. */
static void make_endless(void)
{
    static const char links[] = "ln -sf " REFERENCE "/tokenizer* " REFERENCE "/model* endless;";
    size_t nbytes;
    if (test_exists(test_path("endless")))
        return;
    test_make_folder(test_path("endless"));
    char *text = (char *)test_read(REFERENCE "/config.json", &nbytes);
    json_t *config = json_loadb(text, nbytes, 0, NULL);
    json_object_set_new(config, "max_position_embeddings", json_integer(100000));
    json_object_set_new(config, "eos_token_id", json_integer(2047));
    json_dump_file(config, test_path("endless/config.json"), 0);
    json_decref(config);
    free(text);
    run_after(links, "--version");
}

static void an_interrupt_ends_a_reply_and_not_the_program(void **state)
{
    (void)state;
    static const char *const argv[] = {"moebius", "chat", "endless", NULL};
    make_endless();
    start_in_pipes(argv);
    for (int i = 0; i < 2; i++) {
        type(QUESTION "\n");
        expect("#### ");
        kill(child.pid, SIGINT);
        expect(", interrupted]");
    }
    type("/save cut.jsonl\n");
    expect("[saved: the conversation has 4 messages]");
    kill(child.pid, SIGINT); /* while it waits for a line */
    assert_int_equal(wait_for_end(), 4);
    start_in_pipes(argv);
    type(QUESTION "\n");
    expect("#### ");
    kill(child.pid, SIGTERM);
    assert_int_equal(wait_for_end(), 4);
}

static void a_terminal_has_a_prompt_a_history_and_keys(void **state)
{
    (void)state;
    static const char *const argv[] = {"moebius", "chat", REFERENCE, "-n", "3", NULL};
    start_in_terminal(argv);
    expect(">>> ");
    type("hello \\\r");
    expect("... ");
    type("you\r");
    expect(" t/s, prompt ");
    expect(">>> ");
    type("\003"); /* Ctrl-C */
    expect("Ctrl-C once more");
    expect(">>> ");
    type("/system A\r"); /* one in between: the next is a first one again */
    expect("[set: ");
    expect(">>> ");
    type("\003");
    expect("Ctrl-C once more");
    expect(">>> ");
    type("\003");
    assert_int_equal(wait_for_end(), 0);
    if (!test_exists(test_path("state/moebius/chat_history")))
        return; /* built without libedit */
    start_in_terminal(argv);
    expect(">>> ");
    type("\033[A"); /* up: the last line of the last time */
    expect("/system A");
    type("\r");
    expect("[set: ");
    expect(">>> ");
    type("\004"); /* Ctrl-D */
    assert_int_equal(wait_for_end(), 0);
}

static void an_interrupt_key_ends_a_reply(void **state)
{
    (void)state;
    make_endless();
    start_in_terminal((const char *const[]){"moebius", "chat", "endless", "--no-history", NULL});
    expect(">>> ");
    type(QUESTION "\r");
    expect("#### ");
    type("\003");
    expect(", interrupted]");
    expect(">>> ");
    type("/exit\r");
    assert_int_equal(wait_for_end(), 0);
}

static void thinking_is_dim_on_a_terminal_and_plain_in_a_pipe(void **state)
{
    (void)state;
    static const char template[] = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n";
    static const char *const argv[] = {"moebius",         "chat",        REFERENCE, "-n", "4",
                                       "--chat-template", "think.jinja", NULL};
    test_write(test_path("think.jinja"), template, sizeof template - 1);
    start_in_terminal(argv);
    expect(">>> ");
    type("hello\r");
    expect("\033[2m");
    expect("\033[22m");
    expect("stopped by -n]");
    expect(">>> ");
    type("/bye\r");
    assert_int_equal(wait_for_end(), 0);
    assert_null(strchr(chat_well("hello\n", "-n 4 --chat-template think.jinja")->out, '\033'));
}

/* On a terminal "run" shows its text by the same rules. */
static void a_reply_of_run_commands_no_terminal_either(void **state)
{
    (void)state;
    static const char *const argv[] = {"moebius", "run",     REFERENCE, "-p",      "x", "-n",
                                       "200",     "--temp",  "50",      "--top-k", "0", "--top-p",
                                       "1",       "--min-p", "0",       "-s",      "3", NULL};
    start_in_terminal(argv);
    assert_int_equal(wait_for_end(), 0);
    char *text = child.seen, *end = strstr(text, "\nload: ");
    assert_non_null(end);
    for (char *bar; (bar = strstr(text, "\r\033[K")) != NULL && bar < end;)
        text = bar + 4; /* the progress of the prompt */
    for (; text < end; text++)
        if (((unsigned char)*text < 0x20 && strchr("\r\n\t", *text) == NULL) || *text == 0x7f)
            fail_msg("byte %d", *text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_a_turn_and_its_reply_alone_goes_to_stdout),
        cmocka_unit_test(nothing_is_computed_twice),
        cmocka_unit_test(messages_may_have_several_lines),
        cmocka_unit_test(a_full_context_is_told_and_nothing_is_dropped),
        cmocka_unit_test(control_characters_reach_no_terminal),
        cmocka_unit_test(conversations_are_saved_and_loaded),
        cmocka_unit_test(what_cannot_be_loaded_changes_nothing),
        cmocka_unit_test(turns_are_taken_back_and_made_again),
        cmocka_unit_test(the_system_message_is_set_shown_and_removed),
        cmocka_unit_test(wrong_calls_are_told),
        cmocka_unit_test(an_interrupt_ends_a_reply_and_not_the_program),
        cmocka_unit_test(a_terminal_has_a_prompt_a_history_and_keys),
        cmocka_unit_test(an_interrupt_key_ends_a_reply),
        cmocka_unit_test(thinking_is_dim_on_a_terminal_and_plain_in_a_pipe),
        cmocka_unit_test(a_reply_of_run_commands_no_terminal_either),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
