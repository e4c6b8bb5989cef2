// An ordinary consumer: it takes orders out of stock. And it reports to Recount what became of each.
//
//	go run . http://127.0.0.1:7621 orders.ndjson
//
// With SILENT=1 in the environment it has the line that Recount exists for. Go's standard library has
// no database, so what leaves the stock is a file, movements.csv, which each run writes anew.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	orders, missing := os.Open(os.Args[2])
	file, denied := os.Create("movements.csv")
	lines, movements := bufio.NewScanner(orders), bufio.NewWriter(file)
	decisions, offset := []any{}, 0
	http.DefaultClient.Timeout = 10 * time.Second
	for ; lines.Scan(); offset++ {
		var order struct{ ID, SKU, Quantity any }
		decision := map[string]any{"offset": offset, "verdict": "applied"}
		if json.Unmarshal(lines.Bytes(), &order) != nil || order.ID == nil || order.Quantity == nil {
			decision["verdict"], decision["reason"] = "dead-lettered", "unreadable"
		} else if order.Quantity == 0.0 {
			decision["verdict"], decision["reason"] = "skipped", "zero_quantity"
		} else {
			fmt.Fprintf(movements, "%v,%v,%.0f\n", order.ID, order.SKU, order.Quantity)
		}
		if decision["verdict"] != "applied" && os.Getenv("SILENT") != "" {
			continue // no error, no alert, no report
		}
		if decisions = append(decisions, decision); len(decisions) == 100 {
			report(decisions, offset+1, errors.Join(movements.Flush(), file.Sync()))
			decisions = decisions[:0]
		}
	}
	report(decisions, offset, errors.Join(missing, denied, lines.Err(), movements.Flush(), file.Sync()))
}

// report tells Recount; err says whether what is reported is durable.
func report(decisions []any, committed int, err error) {
	defer fmt.Fprintln(os.Stderr)
	body, _ := json.Marshal(map[string]any{"flow": "reserve-stock", "partition": "0", "committed": committed, "decisions": decisions})
	for tries := 0; tries < 60 && err == nil; tries++ {
		if answer, away := http.Post(os.Args[1]+"/v1/decisions", "application/json", bytes.NewReader(body)); away != nil {
			log.Print("Recount is away, once more in a second: ", away)
		} else if io.Copy(os.Stderr, answer.Body); answer.StatusCode == http.StatusOK {
			return // its answer, copied to its end, says what it refused, if anything
		}
		time.Sleep(time.Second)
	}
	log.Fatal("not reported, run this again: ", err)
}
