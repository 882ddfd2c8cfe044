// leak ADDRESS PORT: connects in a goroutine, and never closes.
package main

import (
	"fmt"
	"net"
	"os"
)

//go:noinline
func dial(to string) net.Conn {
	conn, err := net.Dial("tcp4", to)
	if err != nil {
		panic(err)
	}
	return conn
}

func fetch(to string, done chan net.Conn) {
	done <- dial(to)
}

func main() {
	done := make(chan net.Conn)
	go fetch(net.JoinHostPort(os.Args[1], os.Args[2]), done)
	conn := <-done
	fmt.Println("connected", conn.LocalAddr())
	os.Stdin.Read(make([]byte, 1))
	fmt.Fprintln(os.Stderr, conn)
}
