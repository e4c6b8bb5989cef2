// An ordinary consumer: it takes orders out of stock. And it reports to Recount what became of each.
//
//     java Consumer.java http://127.0.0.1:7621 orders.ndjson
//
// With SILENT=1 in the environment it has the line that Recount exists for. Java's standard library has
// neither JSON nor a database: orders are read by a pattern, which does for flat ones, and what leaves
// the stock is a file, movements.csv, which each run writes anew.

import java.io.FileOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;

class Consumer {
    static final HttpClient HTTP = HttpClient.newHttpClient();
    static final String APPLIED = "\"applied\"";
    static final Pattern ORDER =
            Pattern.compile("\"id\": *\"([^\"]*)\".*\"sku\": *\"([^\"]*)\".*\"quantity\": *(\\d+)");

    public static void main(String[] args) throws IOException, InterruptedException {
        try (var orders = Files.newBufferedReader(Path.of(args[1]));
                var movements = new FileOutputStream("movements.csv")) {
            var decisions = new ArrayList<String>();
            var offset = 0;
            for (String line; (line = orders.readLine()) != null; offset++) {
                var verdict = handle(line, movements);
                if (!verdict.equals(APPLIED) && "1".equals(System.getenv("SILENT"))) continue; // no error, no report
                decisions.add("{\"offset\": %d, \"verdict\": %s}".formatted(offset, verdict));
                if (decisions.size() == 100) report(args[0], decisions, offset + 1, movements);
            }
            report(args[0], decisions, offset, movements);
        }
    }

    static String handle(String line, FileOutputStream movements) throws IOException {
        var order = ORDER.matcher(line);
        if (!order.find()) return "\"dead-lettered\", \"reason\": \"unreadable\"";
        if (order.group(3).equals("0")) return "\"skipped\", \"reason\": \"zero_quantity\"";
        movements.write("%s,%s,%s\n".formatted(order.group(1), order.group(2), order.group(3)).getBytes());
        return APPLIED;
    }

    static void report(String address, List<String> decisions, int committed, FileOutputStream movements)
            throws IOException, InterruptedException {
        movements.getFD().sync(); // nothing is reported before it is durable
        var body = "{\"flow\": \"reserve-stock\", \"partition\": \"0\", \"committed\": %d, \"decisions\": %s}";
        var request = HttpRequest.newBuilder(URI.create(address + "/v1/decisions"))
                .timeout(Duration.ofSeconds(10))
                .POST(BodyPublishers.ofString(body.formatted(committed, decisions)))
                .build();
        for (var tries = 0; tries < 60; tries++) {
            try {
                var answer = HTTP.send(request, BodyHandlers.ofString());
                System.err.println(answer.body()); // says what it refused, if anything
                if (answer.statusCode() == 200) {
                    decisions.clear();
                    return;
                }
            } catch (IOException error) {
                System.err.println("Recount is away, once more in a second: " + error);
            }
            Thread.sleep(1000);
        }
        throw new IOException("Recount took no report for a minute: run this again when it is back");
    }
}
