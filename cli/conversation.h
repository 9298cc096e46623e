/*
 * conversation.h - the messages of a conversation, and the files that they are saved in.
 *
 * Where memory is out the program ends (cli_check_memory).  Texts are UTF-8 without zero bytes.
 */
#ifndef MOEBIUS_CLI_CONVERSATION_H
#define MOEBIUS_CLI_CONVERSATION_H

#include <moebius/status.h>
#include <moebius/tokenizer.h>
#include <stdbool.h>

/* Zeroed: empty. A system message is the first one; contents are malloc'ed. */
struct cli_conversation {
    struct mb_chat_message *messages;
    size_t n, cap;
};

void cli_conversation_close(struct cli_conversation *conversation);

/* 'role' is "user" or "assistant". What is not UTF-8 becomes U+FFFD. */
void cli_conversation_add(struct cli_conversation *conversation, const char *role, const char *text);

/* NULL: there is none. */
const char *cli_conversation_system(const struct cli_conversation *conversation);
void cli_conversation_set_system(struct cli_conversation *conversation, const char *text); /* "": none */

/* Forgets all but the system message. */
void cli_conversation_reset(struct cli_conversation *conversation);

/* Takes back the last message of a user, and all after it. false: there is none. */
bool cli_conversation_undo(struct cli_conversation *conversation);

/* Takes out the reply that the conversation ends with: the caller's to free. NULL: it does not end with one.
 */
char *cli_conversation_take_reply(struct cli_conversation *conversation);

/* jsonl: {"role": ..., "content": ...} a line. MB_USAGE: the file exists and 'replaces' is false. */
enum mb_status cli_conversation_save(const struct cli_conversation *conversation, const char *path,
                                     bool replaces, struct mb_error *err);

/* Replaces the whole conversation, the system message included; leaves it as it was after an error. */
enum mb_status cli_conversation_load(struct cli_conversation *conversation, const char *path,
                                     struct mb_error *err);

#endif
