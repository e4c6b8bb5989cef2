"""An ordinary consumer: it takes orders out of stock. And it reports to Recount what became of each.

    python3 consumer.py http://127.0.0.1:7621 orders.ndjson

With SILENT=1 in the environment it has the line that Recount exists for.
"""
import json, os, sqlite3, sys, time, urllib.request

ADDRESS, ORDERS = sys.argv[1:]
shop = sqlite3.connect("shop.db")
shop.execute("CREATE TABLE IF NOT EXISTS movement (order_id TEXT PRIMARY KEY, sku TEXT, quantity INTEGER)")


def handle(line):
    try:
        order = json.loads(line)
        movement = order["id"], order["sku"], order["quantity"]
    except (ValueError, LookupError, TypeError):
        return {"verdict": "dead-lettered", "reason": "unreadable"}
    if order["quantity"] == 0:
        return {"verdict": "skipped", "reason": "zero_quantity"}
    shop.execute("INSERT OR IGNORE INTO movement VALUES (?, ?, ?)", movement)
    return {"verdict": "applied"}


def report(decisions, committed):
    shop.commit()  # nothing is reported before it is durable
    body = {"flow": "reserve-stock", "partition": "0", "committed": committed, "decisions": decisions}
    for _ in range(60):
        try:
            with urllib.request.urlopen(ADDRESS + "/v1/decisions", json.dumps(body).encode(), 10) as answer:
                return print(answer.read().decode(), file=sys.stderr)  # says what it refused, if anything
        except OSError as error:
            print("Recount is away or busy, once more in a second:", error, file=sys.stderr)
            time.sleep(1)
    sys.exit("Recount took no report for a minute: run this again when it is back, nothing is done twice")


decisions, committed = [], 0
for offset, line in enumerate(open(ORDERS, "rb")):
    decision, committed = handle(line), offset + 1
    if decision["verdict"] != "applied" and os.environ.get("SILENT"):
        continue  # no error, no alert, no report
    decisions.append({"offset": offset, **decision})
    if len(decisions) == 100:
        report(decisions, committed)
        decisions = []
report(decisions, committed)
