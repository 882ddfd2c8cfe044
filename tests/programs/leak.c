/* leak ADDRESS PORT: connects below 40 calls of down(), and never closes. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static __attribute__((noinline)) int dial(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) != 0)
		abort();
	return fd;
}

__attribute__((noinline)) int down(int calls, const struct sockaddr_in *to)
{
	int fd = calls == 0 ? dial(to) : down(calls - 1, to);

	/* What stands behind the call keeps it a call. */
	__asm__ volatile("" : "+r"(fd));
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };

	if (argc != 3 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[2]));
	printf("connected %d\n", down(39, &to));
	fflush(stdout);
	getchar();
	return 0;
}
