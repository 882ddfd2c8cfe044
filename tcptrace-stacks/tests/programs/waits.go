package main

import (
	"os"
	"syscall"
)

//go:noinline
func wait(fd int) int {
	n, _, _ := syscall.Accept(fd)
	return n + len(os.Args)
}

//go:noinline
func recurse(fd, depth int) int {
	if depth == 0 {
		return wait(fd)
	}
	return recurse(fd, depth-1) + depth
}

func main() {
	fd, _ := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	syscall.Listen(fd, 1)
	done := make(chan int)
	go func() { done <- recurse(fd, 10) }()
	<-done
}
