"""A handler behind HTTP: it is sent events, and must answer with a verdict for each.

    python3 handler.py 7623
"""
import json, sqlite3, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

shop = sqlite3.connect("shop.db", isolation_level=None)
shop.executescript("""
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL);
    INSERT OR IGNORE INTO stock VALUES ('mug', 10), ('tray', 10), ('lamp', 10);
    CREATE TABLE IF NOT EXISTS done (idempotency_key TEXT PRIMARY KEY);
""")


def reserve(event):
    """The verdict for one event; the same event may come again, after a crash or a lost answer."""
    order, key = event["data"], event["idempotency_key"]
    if shop.execute("SELECT 1 FROM done WHERE idempotency_key = ?", [key]).fetchone():
        return {"verdict": "applied"}
    if not shop.execute("SELECT 1 FROM stock WHERE sku = ?", [order["sku"]]).fetchone():
        return {"verdict": "dead-letter", "reason": "unknown_sku"}
    take = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku AND on_hand >= :quantity"
    taken = shop.execute(take, {"quantity": order["quantity"], "sku": order["sku"]})
    if taken.rowcount == 0:
        return {"verdict": "dead-letter", "reason": "insufficient_stock"}
    shop.execute("INSERT INTO done VALUES (?)", [key])  # in the transaction of the effect, or it is worth nothing
    return {"verdict": "applied"}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["events"]
        shop.execute("BEGIN IMMEDIATE")
        try:
            verdicts = [{"position": event["position"], **reserve(event)} for event in events]
            shop.execute("COMMIT")
        except BaseException:
            shop.execute("ROLLBACK")
            raise  # no answer: Recount waits, and sends these again
        answer = json.dumps({"verdicts": verdicts}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
