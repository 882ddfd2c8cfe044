/*
 * fates FATE ADDRESS PORT: a child connects in dial(), and leaves the socket to a child of its own. Then it
 *   exit: exits;
 *   exec: executes cat;
 *   reuse: exits, and cat comes to have its number.
 * All wait for the end of standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void become_cat(void)
{
	execl("/bin/cat", "cat", (char *)NULL);
	abort();
}

static __attribute__((noinline)) void dial(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) != 0)
		abort();
}

static __attribute__((noinline)) void live(const char *fate, const struct sockaddr_in *to)
{
	dial(to);
	if (fork() == 0) {
		getchar();
		_exit(0);
	}
	if (strcmp(fate, "exec") == 0)
		become_cat();
	_exit(0);
}

static void take_number(pid_t number)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = (unsigned long)&number,
		.set_tid_size = 1,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0)
		become_cat();
	if (pid != number)
		abort();
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	pid_t child;

	if (argc != 4 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[3]));
	child = fork();
	if (child == 0)
		live(argv[1], &to);
	if (strcmp(argv[1], "exec") != 0)
		waitpid(child, NULL, 0);
	if (strcmp(argv[1], "reuse") == 0)
		take_number(child);
	printf("connected\n");
	fflush(stdout);
	getchar();
	return 0;
}
