#include <functional>
#include <stdexcept>
#include <sys/socket.h>

volatile int sink;

namespace net {
struct Server {
	int fd;
	explicit Server() : fd(socket(AF_INET, SOCK_STREAM, 0)) { listen(fd, 1); }
	__attribute__((noinline)) int take() const
	{
		int got = accept(fd, nullptr, nullptr);
		sink = got;
		if (got == 12345)
			throw std::runtime_error("no");
		return got + sink;
	}
	__attribute__((always_inline)) int inlined() const { return take() + 1; }
};

template <typename T> __attribute__((noinline)) int serve(const T &server)
{
	try {
		return server.inlined() + sink;
	} catch (const std::exception &e) {
		return e.what()[0];
	}
}
}

int main()
{
	net::Server server;
	std::function<int()> call = [&] { return net::serve(server) + sink; };
	try {
		return call() + sink;
	} catch (...) {
		return 1;
	}
}
