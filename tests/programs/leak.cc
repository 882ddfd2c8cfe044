// leak ADDRESS PORT: connects in a constructor that is inlined, while an exception is handled, and never
// closes.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace pool {

struct Socket {
	int fd;

	__attribute__((always_inline)) explicit Socket(const sockaddr_in &to)
	{
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(fd, reinterpret_cast<const sockaddr *>(&to), sizeof(to)) != 0)
			abort();
	}
};

__attribute__((noinline)) int fresh(const sockaddr_in &to)
{
	Socket socket(to);
	__asm__ volatile("" : "+r"(socket.fd));
	return socket.fd;
}

__attribute__((noinline)) int take(const sockaddr_in &to)
{
	try {
		throw std::runtime_error("the pool is empty");
	} catch (const std::exception &) {
		int fd = fresh(to);
		__asm__ volatile("" : "+r"(fd));
		return fd;
	}
}

} // namespace pool

int main(int argc, char **argv)
{
	sockaddr_in to = {};
	to.sin_family = AF_INET;
	if (argc != 3 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[2]));
	printf("connected %d\n", pool::take(to));
	fflush(stdout);
	getchar();
}
