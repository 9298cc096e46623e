/*
 * scene.h - a command that writes a folder, and what may come of it when one of its calls does not happen.
 */
#ifndef TESTS_CLI_SCENE_H
#define TESTS_CLI_SCENE_H

#include "program.h"
#include <stdbool.h>

/* A command that writes the folder "out", and what that must be. */
struct scene {
    const char *command;
    const char *whole;
    const char *before; /* what "out" is before; NULL: nothing */
    bool is_inside;     /* "out" is filled in place: it may be between the two as long as it is no model */
};

/* compress, compress --force and decompress, and compress to an empty folder. */
extern const struct scene scene_fresh, scene_replaced, scene_plain, scene_inside;

/* A group fixture: the folders "plain", "coded", "other" and "back". */
int scene_begin_group(void **state);

void scene_begin(const struct scene *scene);
bool scene_exists(const char *name);

/* Runs the command with crash.c in front of libc; 'how' are variables that it knows. */
const struct ran *scene_run(const struct scene *scene, const char *how, int at);
long scene_count_calls(const struct scene *scene, const char *how);

/*
 * Call by call: the program ends with exit_status, or 0 where it could do without; with one line that has
 * these words when that is 4.  OUT is what it was or what it is to be, or no model where it is filled in
 * place, and the same command finishes it.
 */
void assert_survives(const struct scene *scene, const char *how, int exit_status, const char *words);

/* A command that writes the file OUT besides what it prints. */
struct file_scene {
    const char *command, *out;
    const char *end; /* of the file, whose other bytes differ from run to run; NULL: they do not */
};

/*
 * Call by call: the program ends with exit_status, or 0 where it could do without; its last line has these
 * words when that is 4.  OUT is what it was (nothing, or another file) or what it is to be; nothing is left
 * beside it but by a kill, and the same command finishes it.
 */
void assert_file_survives(const struct file_scene *scene, const char *how, int exit_status,
                          const char *words);

/* Fails unless the last line on stderr is the program's and has these words. */
void assert_said_last(const struct ran *ran, const char *words);

#endif
