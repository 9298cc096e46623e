/*
 * slowed.c - a filter in the child, and the parent that lets its reads go on.
 */
#include "slowed.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS_MAX = 60, POLL_MS = 5 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---------------------------------------------------------------- the child */

/* The listener's file; -1: it cannot be done. */
static int install_filter(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_pread64, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

union file_message {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static bool send_file(int to, int file)
{
    char byte = 0;
    struct iovec part = {&byte, 1};
    union file_message control = {0};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof file);
    memcpy(CMSG_DATA(head), &file, sizeof file);
    return sendmsg(to, &message, 0) == 1;
}

/* -1: the child could not. */
static int receive_file(int from)
{
    char byte;
    int file = -1;
    struct iovec part = {&byte, 1};
    union file_message control = {0};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message) != NULL)
        memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof file);
    return file;
}

static void redirect(const char *path, int flags, int to)
{
    int file = open(path, flags | O_CLOEXEC, 0666);
    if (file < 0 || dup2(file, to) < 0)
        _exit(99);
}

/* argv NULL: only tries whether it works. */
static void run_child(const char *const *argv, const char *input, int socket)
{
    if (argv != NULL && chdir(test_path(".")) != 0)
        _exit(99);
    if (argv != NULL) {
        redirect(input == NULL ? "/dev/null" : input, O_RDONLY, STDIN_FILENO);
        redirect("stdout.txt", O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
        redirect("stderr.txt", O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
    }
    int listener = install_filter();
    if (listener < 0 || !send_file(socket, listener))
        _exit(98);
    close(listener);
    if (argv != NULL)
        execv(MB_PROGRAM, (char *const *)argv);
    _exit(argv == NULL ? 0 : 99);
}

static pid_t start_child(const char *const *argv, const char *input, int *listener)
{
    int sockets[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        run_child(argv, input, sockets[1]);
    close(sockets[1]);
    *listener = receive_file(sockets[0]);
    close(sockets[0]);
    return child;
}

bool slowed_works(void)
{
    int listener, status;
    pid_t child = start_child(NULL, NULL, &listener);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (listener >= 0)
        close(listener);
    return listener >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---------------------------------------------------------------- the parent */

/* Lets one read go on, if one waits. */
static bool let_go(int listener, unsigned delay_us)
{
    struct pollfd poller = {.fd = listener, .events = POLLIN};
    struct seccomp_notif request = {0};
    if (poll(&poller, 1, POLL_MS) != 1 || (poller.revents & POLLIN) == 0 ||
        ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0)
        return false;
    nanosleep(&(struct timespec){.tv_nsec = 1000L * (long)delay_us}, NULL);
    struct seccomp_notif_resp response = {.id = request.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
    return true;
}

static bool has_said(const char *words)
{
    size_t nbytes;
    if (words == NULL || !test_exists(test_path("stderr.txt")))
        return false;
    char *text = (char *)test_read(test_path("stderr.txt"), &nbytes);
    bool has = strstr(text, words) != NULL;
    free(text);
    return has;
}

struct slowed_end slowed_run(const char *const *argv, const struct slowed *slowed)
{
    int listener, status = 0;
    unsigned n_after = 0;
    double begun = now(), acted = 0;
    struct slowed_end end = {0};
    test_remove(test_path("stderr.txt"));
    pid_t child = start_child(argv, slowed->input, &listener);
    assert_true(listener >= 0);
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (now() - begun > SECONDS_MAX) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            fail_msg("%s hangs: %u reads", argv[1], end.n_reads);
        }
        bool is_slow = slowed->words == NULL || n_after > 0 || has_said(slowed->words);
        if (!let_go(listener, is_slow ? slowed->delay_us : 0))
            continue;
        end.n_reads++;
        if (is_slow && slowed->words != NULL && acted == 0 && n_after++ == slowed->n_reads) {
            acted = now();
            slowed->act(child);
        }
    }
    close(listener);
    end.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    end.seconds = acted > 0 ? now() - acted : 0;
    return end;
}
