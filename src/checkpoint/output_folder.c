/*
 * output_folder.c - the partial folder: lock, note, resume, side files, index, and the rename at the end.
 */
#include "output_folder.h"
#include "base/error.h"
#include "base/json.h"
#include "checksums.h"
#include "folder_files.h"
#include "layout.h"
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char INSIDE[] = "moebius.partial", CONFIG[] = "config.json";
static const uint64_t NOTE_NBYTES_MAX = 256 << 20;

/* ---------------------------------------------------------------- files of a folder */

static bool is_model_file(const char *name)
{
    return strcmp(name, CONFIG) == 0 || strcmp(name, MB_INDEX_NAME) == 0 ||
           fnmatch("*.safetensors", name, FNM_PERIOD) == 0 || mb_is_side_file(name);
}

static enum mb_status remove_file(void *ctx, const char *path, const char *name, struct mb_error *err)
{
    const char *pattern = ctx;
    char file[MB_PATH_MAX];
    MB_TRY(mb_join_path(file, path, name, err));
    if (fnmatch(pattern, name, 0) == 0 && unlink(file) != 0)
        return mb_fail_errno(err, file, "remove");
    return MB_OK;
}

/* Removes the files of a folder that 'pattern' matches (folders inside are never ours). */
static enum mb_status remove_files(const char *path, const char *pattern, struct mb_error *err)
{
    return mb_for_each_file(path, remove_file, (char *)pattern, err);
}

static enum mb_status check_replaced_file(void *ctx, const char *path, const char *name, struct mb_error *err)
{
    (void)ctx;
    return is_model_file(name)
               ? MB_OK
               : mb_fail(err, MB_USAGE,
                         "%s: is not replaced: it holds %.200s, which is no file of a model; move it away or "
                         "choose another folder",
                         path, name);
}

/* In a partial folder a file may still have its temporary name. */
static enum mb_status check_partial_file(void *ctx, const char *path, const char *name, struct mb_error *err)
{
    static const char TEMPORARY[] = ".tmp";
    char final[NAME_MAX + 1];
    size_t n = strlen(name), n_end = sizeof TEMPORARY - 1;
    bool is_temporary = n > n_end && strcmp(name + n - n_end, TEMPORARY) == 0;
    snprintf(final, sizeof final, "%.*s", (int)(is_temporary ? n - n_end : n), name);
    return is_model_file(final) ? MB_OK : check_replaced_file(ctx, path, name, err);
}

static enum mb_status count_file(void *ctx, const char *path, const char *name, struct mb_error *err)
{
    (void)path, (void)name, (void)err;
    ++*(size_t *)ctx;
    return MB_OK;
}

/* ---------------------------------------------------------------- the note */

static enum mb_status write_note(const struct mb_output *output, struct mb_error *err)
{
    size_t nbytes;
    char *text = mb_json_text(output->note, JSON_COMPACT, &nbytes);
    if (text == NULL)
        return mb_fail_memory(err, "the note about unfinished work");
    enum mb_status status = mb_write_file(output->note_path, text, nbytes, err);
    free(text);
    return status;
}

/* output->note stays NULL where no note is, or none that can be read: then the partial folder holds other
 * work. */
static enum mb_status read_note(struct mb_output *output, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    bool is_there;
    MB_TRY(mb_look_at(output->note_path, &is_there, NULL, err));
    if (!is_there)
        return MB_OK;
    MB_TRY(mb_read_file(output->note_path, NOTE_NBYTES_MAX, &text, &nbytes, err));
    enum mb_status status = mb_json_parse(text, nbytes, 0, &output->note, err);
    free(text);
    return status == MB_BAD_DATA ? MB_OK : status;
}

/* The temporary name is mb_write_file's: a kill may have left it. */
static void remove_note(const struct mb_output *output)
{
    char temporary[MB_PATH_MAX + 8];
    snprintf(temporary, sizeof temporary, "%s.tmp", output->note_path);
    unlink(temporary);
    unlink(output->note_path);
}

static uint64_t noted_inode(const struct mb_output *output)
{
    return (uint64_t)json_integer_value(json_object_get(output->note, "folder"));
}

static enum mb_status new_note(struct mb_output *output, const json_t *work, struct mb_error *err)
{
    json_t *shards = json_object_get(output->note, "shards");
    shards = json_is_object(shards) ? json_incref(shards) : json_object();
    json_decref(output->note);
    output->note = json_pack("{s:O, s:o, s:I}", "work", work, "shards", shards, "folder",
                             (json_int_t)output->folder_inode);
    return output->note == NULL ? mb_fail_memory(err, "the note about unfinished work")
                                : write_note(output, err);
}

/* Whether the partial folder holds this very work already; other work goes when 'force' is set. */
static enum mb_status take_over(struct mb_output *output, const json_t *work, bool force,
                                struct mb_error *err)
{
    const json_t *noted = json_object_get(output->note, "work");
    bool is_ours = noted_inode(output) == output->folder_inode;
    if (is_ours && json_equal(noted, (json_t *)work))
        return remove_files(output->partial, "*.tmp", err);
    bool is_same_input =
        is_ours && json_equal(json_object_get(noted, "input"), json_object_get(work, "input"));
    size_t n_files = 0;
    MB_TRY(mb_for_each_file(output->partial, count_file, &n_files, err));
    if (n_files > 0 && !force)
        return mb_fail(
            err, MB_USAGE,
            "%s: holds unfinished work on another input or with other options; give the same options "
            "to go on with it, or --force to start again",
            output->partial);
    if (!is_same_input) {
        MB_TRY(mb_for_each_file(output->partial, check_partial_file, NULL, err));
        MB_TRY(remove_files(output->partial, "*", err));
        json_object_del(output->note, "shards");
    }
    return new_note(output, work, err);
}

/* ---------------------------------------------------------------- opening */

/* The lock is on the folder itself, which may have been renamed before we got it. */
static enum mb_status check_lock(struct mb_output *output, struct mb_error *err)
{
    struct stat ours, there;
    bool is_there, is_ours = flock(output->folder_fd, LOCK_EX | LOCK_NB) == 0;
    if (!is_ours && errno != EWOULDBLOCK)
        return mb_fail_errno(err, output->partial, "lock");
    if (fstat(output->folder_fd, &ours) != 0)
        return mb_fail_errno(err, output->partial, "stat");
    MB_TRY(mb_look_at(output->partial, &is_there, &there, err));
    if (!(is_ours && is_there && there.st_ino == ours.st_ino))
        return mb_fail(err, MB_IO, "%s: another process is writing there", output->partial);
    output->folder_inode = ours.st_ino;
    return MB_OK;
}

static enum mb_status lock_partial(struct mb_output *output, struct mb_error *err)
{
    if (mkdir(output->partial, 0777) != 0 && errno != EEXIST)
        return errno == ENOENT ? mb_fail(err, MB_BAD_DATA, "%s: cannot be created: its folder does not exist",
                                         output->partial)
                               : mb_fail_errno(err, output->partial, "create");
    /* Through a link the work would be done, and other work removed, in a folder of another name. */
    output->folder_fd = open(output->partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (output->folder_fd < 0)
        return mb_fail_errno(err, output->partial, "open");
    enum mb_status status = check_lock(output, err);
    if (status != MB_OK) {
        close(output->folder_fd);
        output->folder_fd = -1;
    }
    return status;
}

/* "a/." and "a/..": beside them there is no room for OUT.partial, and they cannot be renamed. */
static bool ends_with_dots(const char *path, size_t n)
{
    size_t n_dots = 0;
    while (n_dots < n && path[n - 1 - n_dots] == '.')
        n_dots++;
    return (n_dots == 1 || n_dots == 2) && (n_dots == n || path[n - 1 - n_dots] == '/');
}

/* What an OUT that counts as empty may hold: our own work, and what a new file system has. */
static enum mb_status check_is_ours(void *ctx, const char *path, const char *name, struct mb_error *err)
{
    (void)ctx;
    return strncmp(name, INSIDE, sizeof INSIDE - 1) == 0 || strcmp(name, "lost+found") == 0
               ? MB_OK
               : mb_fail(err, MB_USAGE, "%s: holds %.200s", path, name);
}

/* Whether OUT is there and empty, or work inside of it has begun. */
static enum mb_status look_inside(const char *path, bool *is_inside, struct mb_error *err)
{
    struct stat there;
    char note[MB_PATH_MAX];
    *is_inside = false;
    if (lstat(path, &there) != 0 || !S_ISDIR(there.st_mode))
        return MB_OK;
    if (snprintf(note, sizeof note, "%s/%s.json", path, INSIDE) < MB_PATH_MAX)
        MB_TRY(mb_look_at(note, is_inside, NULL, err));
    if (*is_inside)
        return MB_OK;
    enum mb_status status = mb_for_each_file(path, check_is_ours, NULL, err);
    *is_inside = status == MB_OK;
    return status == MB_USAGE ? MB_OK : status;
}

static enum mb_status set_paths(struct mb_output *output, const char *path, struct mb_error *err)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    snprintf(output->path, MB_PATH_MAX, "%.*s", (int)(n < MB_PATH_MAX ? n : 0), path);
    MB_TRY(look_inside(output->path, &output->is_inside, err));
    const char *join = output->is_inside ? "/" : "", *name = output->is_inside ? INSIDE : ".partial";
    int n_note = snprintf(output->note_path, MB_PATH_MAX, "%.*s%s%s.json", (int)n, path, join, name);
    if (n == 0 || n_note < 0 || n_note >= MB_PATH_MAX || (!output->is_inside && ends_with_dots(path, n)))
        return mb_fail(err, MB_USAGE, "'%.200s': is not a path for a new folder; give it a name", path);
    snprintf(output->partial, MB_PATH_MAX, "%.*s%s%s", (int)n, path, join, name);
    return MB_OK;
}

/* The rename at the end would put a folder in the link's place, or fail: after all the work. */
static enum mb_status check_is_no_link(const char *path, struct mb_error *err)
{
    struct stat there;
    if (lstat(path, &there) != 0) /* whatever is wrong is reported where the folder is made */
        return MB_OK;
    return S_ISLNK(there.st_mode)
               ? mb_fail(err, MB_USAGE, "%s: is a symbolic link; give the folder that it points to", path)
               : MB_OK;
}

static enum mb_status check_is_not_input(const struct mb_checkpoint *from, const char *path,
                                         struct mb_error *err)
{
    struct stat input, there;
    bool is_input_there, is_there;
    MB_TRY(mb_look_at(from->path, &is_input_there, &input, err));
    MB_TRY(mb_look_at(path, &is_there, &there, err));
    if (is_input_there && is_there && input.st_dev == there.st_dev && input.st_ino == there.st_ino)
        return mb_fail(err, MB_USAGE, "%s: is the input; write to another folder", path);
    return MB_OK;
}

/* Only a model folder may be replaced: a wrong path must not cost somebody other files. */
static enum mb_status check_replaced(const struct mb_output *output, struct mb_error *err)
{
    enum mb_status status = mb_for_each_file(output->path, check_replaced_file, NULL, err);
    if (status == MB_BAD_DATA)
        return mb_fail(err, MB_USAGE,
                       "%s: exists and is not a model folder that can be replaced; choose another",
                       output->path);
    return status;
}

/* A folder that is mounted cannot be exchanged for another one: better to know before all the work. */
static enum mb_status check_is_not_mounted(const char *path, struct mb_error *err)
{
    struct statx there;
    bool is_mounted = statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &there) == 0 &&
                      (there.stx_attributes_mask & there.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    return is_mounted
               ? mb_fail(err, MB_USAGE,
                         "%s: is a mount point and cannot be replaced; empty it, or give a folder in it",
                         path)
               : MB_OK;
}

static bool notes_same_work(const struct mb_output *output, const json_t *work)
{
    return json_equal(json_object_get(output->note, "work"), (json_t *)work);
}

/* Work inside of OUT: goes on where an earlier call began to move files, or did not come so far. */
static enum mb_status open_inside(struct mb_output *output, const json_t *work, bool force,
                                  struct mb_error *err)
{
    char config[MB_PATH_MAX];
    bool has_config;
    if (!json_is_true(json_object_get(output->note, "is_moving"))) {
        MB_TRY(mb_for_each_file(output->path, check_is_ours, NULL, err));
        return take_over(output, work, force, err);
    }
    MB_TRY(mb_join_path(config, output->path, CONFIG, err));
    MB_TRY(mb_look_at(config, &has_config, NULL, err));
    output->is_done =
        notes_same_work(output, work) && (has_config || noted_inode(output) == output->folder_inode);
    return output->is_done
               ? MB_OK
               : mb_fail(err, MB_USAGE, "%s: was being filled with other work; empty it first", output->path);
}

static enum mb_status open_locked(struct mb_output *output, const json_t *work, bool force,
                                  struct mb_error *err)
{
    struct stat there;
    MB_TRY(read_note(output, err));
    if (output->is_inside)
        return open_inside(output, work, force, err);
    MB_TRY(mb_look_at(output->path, &output->replaces, &there, err));
    output->is_done =
        output->replaces && noted_inode(output) == there.st_ino && notes_same_work(output, work);
    if (output->is_done)
        return MB_OK;
    if (output->replaces && !force)
        return mb_fail(err, MB_USAGE, "%s: exists already; give another folder, or --force to replace it",
                       output->path);
    if (output->replaces) {
        MB_TRY(check_replaced(output, err));
        MB_TRY(check_is_not_mounted(output->path, err));
    }
    return take_over(output, work, force, err);
}

static enum mb_status open_output(struct mb_output *output, const char *path,
                                  const struct mb_checkpoint *from, const json_t *work, bool force,
                                  struct mb_error *err)
{
    MB_TRY(set_paths(output, path, err));
    output->files = json_object();
    if (output->files == NULL)
        return mb_fail_memory(err, "the list of files");
    MB_TRY(check_is_not_input(from, output->path, err));
    MB_TRY(check_is_no_link(output->path, err));
    MB_TRY(check_is_not_input(from, output->partial, err));
    MB_TRY(lock_partial(output, err));
    return open_locked(output, work, force, err);
}

enum mb_status mb_output_open(const char *path, const struct mb_checkpoint *from, const json_t *work,
                              bool force, struct mb_output *output, struct mb_error *err)
{
    *output = (struct mb_output){.folder_fd = -1};
    enum mb_status status = open_output(output, path, from, work, force, err);
    if (status == MB_OK)
        return MB_OK;
    if (output->folder_fd >= 0) {
        rmdir(output->partial); /* where we have just made it: it has to be empty for that */
        close(output->folder_fd);
    }
    json_decref(output->note);
    json_decref(output->files);
    return status;
}

json_t *mb_input_identity(const struct mb_checkpoint *ckpt)
{
    json_t *files = json_array();
    bool ok = files != NULL;
    for (size_t i = 0; i < ckpt->n_shards && ok; i++) {
        const struct mb_shard *shard = &ckpt->shards[i];
        ok = json_array_append_new(files,
                                   json_pack("[s, I, I, I, s]", shard->name, (json_int_t)shard->nbytes,
                                             (json_int_t)shard->changed.tv_sec,
                                             (json_int_t)shard->changed.tv_nsec, shard->header.xxh3)) == 0;
    }
    if (ok)
        return json_pack("{s:o, s:s, s:s}", "files", files, "config", ckpt->config_text, "index",
                         ckpt->index_xxh3);
    json_decref(files);
    return NULL;
}

/* ---------------------------------------------------------------- ending */

const json_t *mb_output_report(const struct mb_output *output, size_t shard, size_t n_shards, uint64_t plan)
{
    char file[48];
    mb_shard_file_name(file, shard, n_shards);
    const json_t *noted = json_object_get(json_object_get(output->note, "shards"), file);
    bool is_there = output->is_done || faccessat(output->folder_fd, file, F_OK, 0) == 0;
    bool is_same = (uint64_t)json_integer_value(json_object_get(noted, "plan")) == plan;
    return is_there && is_same ? json_object_get(noted, "report") : NULL;
}

enum mb_status mb_output_note_shard(struct mb_output *output, const char *file, uint64_t plan,
                                    const json_t *report, struct mb_error *err)
{
    json_t *shards = json_object_get(output->note, "shards");
    json_t *entry = json_pack("{s:I, s:O}", "plan", (json_int_t)plan, "report", report);
    if (json_object_set_new(shards, file, entry) != 0)
        return mb_fail_memory(err, "the note about unfinished work");
    return write_note(output, err);
}

/* The old folder goes only after the new one has its name. */
static enum mb_status swap_folders(const struct mb_output *output, struct mb_error *err)
{
    if (!output->replaces)
        return rename(output->partial, output->path) == 0 ? MB_OK
                                                          : mb_fail_errno(err, output->path, "rename");
    if (renameat2(AT_FDCWD, output->partial, AT_FDCWD, output->path, RENAME_EXCHANGE) != 0)
        return mb_fail_errno(err, output->path, "exchange with the new folder");
    return MB_OK;
}

static void close_output(struct mb_output *output)
{
    close(output->folder_fd);
    json_decref(output->note);
    json_decref(output->files);
    *output = (struct mb_output){.folder_fd = -1};
}

/* After the last rename: removes what was replaced, or a folder made for the lock alone, and the note. */
static enum mb_status clean_up(const struct mb_output *output, struct mb_error *err)
{
    bool is_there;
    MB_TRY(mb_look_at(output->partial, &is_there, NULL, err));
    if (is_there) {
        MB_TRY(remove_files(output->partial, "*", err));
        if (rmdir(output->partial) != 0)
            return mb_fail_errno(err, output->partial, "remove");
    }
    remove_note(output);
    return MB_OK;
}

/* ---------------------------------------------------------------- moving files up, inside of OUT */

struct move {
    const struct mb_output *output;
    bool with_config;
    size_t n; /* files moved in this pass */
};

static enum mb_status move_file(void *ctx, const char *folder, const char *name, struct mb_error *err)
{
    struct move *move = ctx;
    char from[MB_PATH_MAX], to[MB_PATH_MAX];
    if (!move->with_config && strcmp(name, CONFIG) == 0)
        return MB_OK;
    MB_TRY(mb_join_path(from, folder, name, err));
    MB_TRY(mb_join_path(to, move->output->path, name, err));
    if (rename(from, to) != 0)
        return mb_fail_errno(err, to, "rename");
    move->n++;
    return MB_OK;
}

/* A folder that changes while it is read may be read in part: until a pass finds nothing. */
static enum mb_status move_files(const struct mb_output *output, bool with_config, struct mb_error *err)
{
    struct move move = {output, with_config, 0};
    do {
        move.n = 0;
        MB_TRY(mb_for_each_file(output->partial, move_file, &move, err));
    } while (move.n > 0);
    return mb_sync_folder(output->path, err);
}

static enum mb_status finish_inside(struct mb_output *output, struct mb_error *err)
{
    if (!output->is_done) {
        MB_TRY(mb_sync_folder(output->partial, err));
        if (json_object_set_new(output->note, "is_moving", json_true()) != 0)
            return mb_fail_memory(err, "the note about unfinished work");
        MB_TRY(write_note(output, err));
    }
    MB_TRY(move_files(output, false, err));
    MB_TRY(move_files(output, true, err));
    return clean_up(output, err);
}

static enum mb_status finish(struct mb_output *output, struct mb_error *err)
{
    if (output->is_inside)
        return finish_inside(output, err);
    if (!output->is_done) {
        MB_TRY(mb_sync_folder(output->partial, err));
        MB_TRY(swap_folders(output, err));
        MB_TRY(mb_sync_folder_of(output->path, err));
    }
    return clean_up(output, err);
}

enum mb_status mb_output_finish(struct mb_output *output, struct mb_error *err)
{
    enum mb_status status = finish(output, err);
    close_output(output);
    return status;
}

void mb_output_abandon(struct mb_output *output, enum mb_status status)
{
    bool is_inputs_fault = status == MB_BAD_DATA || status == MB_UNSUPPORTED || status == MB_USAGE;
    if (is_inputs_fault && !output->is_done)
        clean_up(output, NULL);
    close_output(output);
}

/* ---------------------------------------------------------------- index and side files */

/* A name beyond ASCII has none: it is no file that a model needs, and JSON has only names in UTF-8. */
static enum mb_status keep_checksum(struct mb_output *output, const char *name, const char *xxh3,
                                    struct mb_error *err)
{
    for (const char *c = name; *c != '\0'; c++)
        if (*c < 0x20 || *c >= 0x7f)
            return MB_OK;
    return json_object_set_new(output->files, name, json_string(xxh3)) == 0
               ? MB_OK
               : mb_fail_memory(err, "the list of files");
}

static enum mb_status write_kept(struct mb_output *output, const char *name, const char *bytes, size_t nbytes,
                                 struct mb_error *err)
{
    char path[MB_PATH_MAX], xxh3[MB_XXH128_NBYTES];
    mb_xxh128_text(bytes, nbytes, xxh3);
    MB_TRY(mb_join_path(path, output->partial, name, err));
    MB_TRY(mb_write_file(path, bytes, nbytes, err));
    return keep_checksum(output, name, xxh3, err);
}

static enum mb_status read_shard_header(const char *path, struct mb_st_header *header, struct mb_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mb_fail_errno(err, path, "open");
    enum mb_status status = mb_st_read_header(fd, path, header, err);
    close(fd);
    return status;
}

static enum mb_status index_tensors(const struct mb_st_header *header, const char *path, const char *name,
                                    json_t *map, uint64_t *total_nbytes, struct mb_error *err)
{
    for (size_t i = 0; i < header->n_tensors; i++) {
        const struct mb_tensor *tensor = &header->tensors[i];
        *total_nbytes += tensor->nbytes;
        if (json_object_get(map, tensor->name) != NULL)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: is there twice", path, tensor->name);
        if (json_object_set_new(map, tensor->name, json_string(name)) != 0)
            return mb_fail_memory(err, "the index of the shards");
    }
    return MB_OK;
}

/* Adds the tensors of a finished shard to the index. */
static enum mb_status index_shard(struct mb_output *output, const char *name, json_t *map,
                                  uint64_t *total_nbytes, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    struct mb_st_header header = {0};
    MB_TRY(mb_join_path(path, output->partial, name, err));
    MB_TRY(read_shard_header(path, &header, err));
    enum mb_status status = keep_checksum(output, name, header.xxh3, err);
    if (status == MB_OK)
        status = index_tensors(&header, path, name, map, total_nbytes, err);
    mb_st_free_header(&header);
    return status;
}

static enum mb_status write_index_file(struct mb_output *output, const json_t *root, struct mb_error *err)
{
    size_t n;
    char *text = mb_json_text(root, JSON_INDENT(2) | JSON_ENSURE_ASCII, &n);
    if (text == NULL)
        return mb_fail_memory(err, "the index of the shards");
    text[n] = '\n'; /* in place of the terminator */
    enum mb_status status =
        n < MB_INDEX_NBYTES_MAX
            ? write_kept(output, MB_INDEX_NAME, text, n + 1, err)
            : mb_fail(err, MB_UNSUPPORTED,
                      "%s/%s: would have %zu bytes, of which readers take %d: the model has too many tensors",
                      output->partial, MB_INDEX_NAME, n + 1, MB_INDEX_NBYTES_MAX);
    free(text);
    return status;
}

/*
 * Each file is read as any reader will read it: a folder beyond a reader's limits is never called finished.
 */
static enum mb_status fill_index(struct mb_output *output, size_t n_shards, json_t *map,
                                 uint64_t *total_nbytes, struct mb_error *err)
{
    for (size_t i = 0; i < n_shards; i++) {
        char name[48];
        mb_shard_file_name(name, i, n_shards);
        MB_TRY(index_shard(output, name, map, total_nbytes, err));
    }
    return MB_OK;
}

static enum mb_status index_shards(struct mb_output *output, size_t n_shards, struct mb_error *err)
{
    json_t *map = json_object();
    uint64_t total_nbytes = 0;
    enum mb_status status = fill_index(output, n_shards, map, &total_nbytes, err);
    json_t *root =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total_nbytes, "weight_map", map);
    if (status == MB_OK && root == NULL)
        status = mb_fail_memory(err, "the index of the shards");
    if (status == MB_OK && n_shards > 1)
        status = write_index_file(output, root, err);
    json_decref(root);
    return status;
}

static enum mb_status copy_file(void *ctx, const char *folder, const char *name, struct mb_error *err)
{
    struct mb_output *output = ctx;
    char from[MB_PATH_MAX], *bytes;
    size_t nbytes;
    if (!mb_is_side_file(name))
        return MB_OK;
    MB_TRY(mb_join_path(from, folder, name, err));
    struct stat st;
    if (stat(from, &st) != 0)
        return errno == ENOENT ? MB_OK : mb_fail_errno(err, from, "stat"); /* a broken link is not copied */
    if (!S_ISREG(st.st_mode))
        return MB_OK;
    MB_TRY(mb_read_file(from, MB_SIDE_FILE_NBYTES_MAX, &bytes, &nbytes, err));
    enum mb_status status = write_kept(output, name, bytes, nbytes, err);
    free(bytes);
    return status;
}

enum mb_status mb_output_write_files(struct mb_output *output, const struct mb_checkpoint *from,
                                     size_t n_shards, struct mb_error *err)
{
    MB_TRY(index_shards(output, n_shards, err));
    return mb_for_each_file(from->path, copy_file, output, err);
}

enum mb_status mb_output_write_config(const struct mb_output *output, const char *text, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    MB_TRY(mb_join_path(path, output->partial, CONFIG, err));
    return mb_write_file(path, text, strlen(text), err);
}
