import java.io.ByteArrayInputStream;
import java.io.FileInputStream;
import java.net.CookieManager;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandler;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Java's own HttpClient, which says nothing of trailers. usage: Client.java VERSION CA DOWNLOAD PACKED ORIGINS TRAILERS */
public class Client {
    interface Check {
        void run() throws Exception;
    }

    private static HttpClient.Version version;
    private final HttpClient client;
    private final String origin;

    private Client(SSLContext tls, String origin) {
        this.origin = origin;
        client = HttpClient.newBuilder().sslContext(tls).version(version).cookieHandler(new CookieManager()).build();
    }

    private static void same(Object got, Object wanted) {
        if (!got.equals(wanted)) {
            throw new IllegalStateException(got + ", not " + wanted);
        }
    }

    private static String sha256(byte[] bytes) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    }

    private <T> HttpResponse<T> send(String method, String path, BodyPublisher body, BodyHandler<T> handler) throws Exception {
        var uri = URI.create("https://" + origin + ".walk.test" + path);
        var request = HttpRequest.newBuilder(uri).method(method, body).timeout(Duration.ofSeconds(30)).build();
        var response = client.send(request, handler);
        same(response.statusCode(), 200);
        same(response.version(), version);
        same(response.headers().firstValue("X-Origin").orElse(""), origin);
        return response;
    }

    private <T> T get(String path, BodyHandler<T> handler) throws Exception {
        return send("GET", path, BodyPublishers.noBody(), handler).body();
    }

    private void upload(byte[] body, BodyPublisher publisher) throws Exception {
        same(send("POST", "/digest", publisher, BodyHandlers.ofString()).body(), sha256(body) + " " + body.length);
    }

    private void events() throws Exception {
        var lines = new ArrayList<String>();
        var times = new ArrayList<Long>();
        get("/events", BodyHandlers.ofLines()).filter(line -> !line.isEmpty()).forEach(line -> {
            lines.add(line);
            times.add(System.nanoTime());
        });
        same(lines, List.of("data: 0", "data: 1", "data: 2"));
        if (times.get(2) - times.get(0) < 250_000_000) {
            throw new IllegalStateException("all events at once");
        }
    }

    private void cookies() throws Exception {
        var first = send("GET", "/cookies", BodyPublishers.noBody(), BodyHandlers.ofString());
        same(first.headers().allValues("Set-Cookie").size(), 2);
        var both = get("/cookies", BodyHandlers.ofString()).split("; ");
        Arrays.sort(both);
        same(List.of(both), List.of("a=1", "b=2"));
    }

    private Map<String, Check> checks(String download, String packed) {
        var sized = "0123456789".repeat(10_000).getBytes();
        var streamed = "x".repeat((1 << 20) + 1).getBytes();
        var checks = new LinkedHashMap<String, Check>();
        checks.put("get", () -> same(get("/text", BodyHandlers.ofString()), "hello\n"));
        checks.put("head", () -> same(send("HEAD", "/text", BodyPublishers.noBody(), BodyHandlers.ofString()).body(), ""));
        checks.put("post", () -> upload(sized, BodyPublishers.ofByteArray(sized)));
        checks.put("stream", () -> upload(streamed, BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(streamed))));
        checks.put("download", () -> same(sha256(get("/download", BodyHandlers.ofByteArray())), download));
        checks.put("packed", () -> same(sha256(get("/packed", BodyHandlers.ofByteArray())), packed));
        checks.put("events", this::events);
        checks.put("cookies", this::cookies);
        return checks;
    }

    public static void main(String[] words) throws Exception {
        version = words[0].equals("2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1;
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var file = new FileInputStream(words[1])) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        for (var origin : words[4].split(",")) {
            for (var check : new Client(tls, origin).checks(words[2], words[3]).entrySet()) {
                var said = "ok";
                try {
                    check.getValue().run();
                } catch (Exception error) {
                    said = error.toString().replace("\n", " ");
                }
                System.out.println(origin + " " + check.getKey() + " " + said);
            }
        }
        System.exit(0);
    }
}
