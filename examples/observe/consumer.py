"""An ordinary consumer: no error, no alert. It is meant to leave a movement for every order."""
import json
import sqlite3

shop = sqlite3.connect("shop.db")
shop.execute("CREATE TABLE IF NOT EXISTS movement (order_id TEXT PRIMARY KEY, sku TEXT, units INTEGER)")


def is_valid(order):
    return 0 < order["quantity"] <= 24  # nobody buys more than two dozen, somebody thought


with open("orders.ndjson") as orders, shop:
    for line in orders:
        order = json.loads(line)
        if not is_valid(order):
            continue  # the silent line
        movement = (order["id"], order["sku"], order["quantity"])
        shop.execute("INSERT OR IGNORE INTO movement VALUES (?, ?, ?)", movement)

print("consumed: 0 errors, 0 alerts")
