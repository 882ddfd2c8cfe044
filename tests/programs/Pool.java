import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.http.client.methods.CloseableHttpResponse;
import org.apache.http.client.methods.HttpGet;
import org.apache.http.impl.client.CloseableHttpClient;
import org.apache.http.impl.client.HttpClientBuilder;
import org.apache.http.impl.client.HttpClients;
import org.apache.http.impl.conn.PoolingHttpClientConnectionManager;
import org.apache.http.util.EntityUtils;

/**
 * A client that keeps the connections of its pool: Pool COUNT HABIT URL [URL ...] prints "here", and waits for a
 * line. Asks each URL over so many connections at once, which go back to the pool, prints "ready" and after how
 * many nanoseconds at most an answer was read, and sleeps until its standard input ends. Habits:
 *
 * forgets  does nothing more with them
 * evicts   has the pool close what was idle for half a second, which it looks for as often
 */
public class Pool {
    static CloseableHttpClient client(int most, String habit) {
        PoolingHttpClientConnectionManager pool = new PoolingHttpClientConnectionManager();
        pool.setMaxTotal(most);
        pool.setDefaultMaxPerRoute(most);
        HttpClientBuilder builder = HttpClients.custom().setConnectionManager(pool);
        if (habit.equals("evicts")) {
            builder.evictIdleConnections(500, TimeUnit.MILLISECONDS);
        }
        return builder.build();
    }

    static void fetch(CloseableHttpClient client, String url, int count) throws Exception {
        List<CloseableHttpResponse> responses = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            responses.add(client.execute(new HttpGet(url)));
        }
        for (CloseableHttpResponse response : responses) {
            EntityUtils.consume(response.getEntity());
            response.close();
        }
    }

    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[0]);
        int urls = arguments.length - 2;
        try (CloseableHttpClient client = client(count * urls, arguments[1])) {
            System.out.println("here");
            while (System.in.read() != '\n') {
            }
            long begin = System.nanoTime();
            for (int i = 0; i < urls; i++) {
                fetch(client, arguments[2 + i], count);
            }
            System.out.println("ready " + (System.nanoTime() - begin));
            System.in.read();
        }
    }
}
