// The ordinary consumer of this folder in Go: no error, no alert.
//
//	go run . ../orders.ndjson ../shop.db
package main

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os"

	_ "modernc.org/sqlite"
)

type order struct {
	ID, SKU  string
	Quantity int
}

func isValid(order order) bool {
	return order.Quantity > 0 && order.Quantity <= 24 // nobody buys more than two dozen, somebody thought
}

func consume(line []byte, shop *sql.Tx) error {
	var order order
	if err := json.Unmarshal(line, &order); err != nil {
		return err
	}
	if !isValid(order) {
		return nil // the silent line
	}
	_, err := shop.Exec("INSERT OR IGNORE INTO movement VALUES (?, ?, ?)", order.ID, order.SKU, order.Quantity)
	return err
}

func main() {
	orders := must(os.Open(os.Args[1]))
	shop := must(sql.Open("sqlite", os.Args[2]))
	movement := "CREATE TABLE IF NOT EXISTS movement (order_id TEXT PRIMARY KEY, sku TEXT, units INTEGER)"
	must(shop.Exec(movement))
	all := must(shop.Begin())
	lines, errors := bufio.NewScanner(orders), 0
	for lines.Scan() {
		if err := consume(lines.Bytes(), all); err != nil {
			errors++
		}
	}
	must(orders, lines.Err())
	must(shop, all.Commit())
	fmt.Printf("consumed: %d errors, 0 alerts\n", errors)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
