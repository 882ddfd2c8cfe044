import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;

/**
 * Tomcat with nothing to offer: Server ADDRESS DIRECTORY PORT MILLISECONDS [PORT MILLISECONDS ...] has a connector
 * for each port, which closes what was idle for so long. Lives until its standard input ends.
 */
public class Server {
    public static void main(String[] arguments) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(arguments[1]);
        for (int i = 2; i < arguments.length; i += 2) {
            Connector connector = new Connector();
            connector.setProperty("address", arguments[0]);
            connector.setPort(Integer.parseInt(arguments[i]));
            connector.setProperty("keepAliveTimeout", arguments[i + 1]);
            tomcat.setConnector(connector);
        }
        tomcat.addContext("", arguments[1]);
        tomcat.start();
        System.in.read();
        System.exit(0);
    }
}
