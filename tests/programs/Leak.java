// Leak ADDRESS PORT: connects once and closes, so that all of it is compiled; then connects again, and does
// not close.
import java.net.Socket;

public class Leak {
    static Socket dial(String host, int port) throws Exception {
        return new Socket(host, port);
    }

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[1]);
        dial(args[0], port).close();
        System.out.println("here");
        while (System.in.read() != '\n') {
        }
        Socket kept = dial(args[0], port);
        System.out.println("connected");
        System.in.read();
        kept.close();
    }
}
