#include <stdlib.h>
#include <sys/socket.h>

volatile int sink;

__attribute__((noinline)) static int wait_here(int fd)
{
	int got = accept(fd, 0, 0);
	sink = got;
	return got + sink;
}

/* A frame of a size known at run time only: its base is the frame pointer. */
__attribute__((noinline)) static int with_room(int fd, int size)
{
	volatile char *room = __builtin_alloca(size);
	room[0] = 1;
	return wait_here(fd) + room[0];
}

/* Vectors ask for an aligned stack: the base is told by an expression. */
__attribute__((noinline)) static int aligned(int fd, int size)
{
	volatile char room[64] __attribute__((aligned(64)));
	room[size & 63] = 2;
	return with_room(fd, size) + room[size & 63];
}

__attribute__((noinline)) static int recurse(int fd, int depth)
{
	volatile int here = depth;
	if (depth == 0)
		return aligned(fd, 100 + sink);
	return recurse(fd, depth - 1) + here;
}

int main(int argc, char **argv)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	listen(fd, 1);
	return recurse(fd, argc > 1 ? atoi(argv[1]) : 40);
}
