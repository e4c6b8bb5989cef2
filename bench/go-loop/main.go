// The best consumer that one would write by hand in Go: franz-go and pgx, a goroutine and a transaction of up
// to 500 orders a partition, statements sent in one batch with one sync, offsets committed after the
// transaction (at least once). It keeps no ledger; what it doesn't apply it counts and forgets.
//
//	go-loop SERVERS TOPIC GROUP POSTGRES_URL EVENTS plain|checks
//
// It ends when it has seen that many events. `cargo xtask bench loop --source kafka` compares with it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	batchEvents = 500
	take        = "UPDATE stock SET on_hand = on_hand - $1 WHERE sku = $2 AND on_hand >= $1"
	// Several rows by one statement: what is applied is known only after the updates.
	effect  = `INSERT INTO recount_effect (flow, source_id, partition, "offset", event_id) SELECT $1, $2, $3, * FROM unnest($4::bigint[], $5::text[])`
	unknown = "SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = $1)"
	// As long as the one that Recount writes, so that the rows are alike.
	sourceID = "kafka:0000000000000000000000:0000000000000000000000"
)

type order struct {
	ID       string  `json:"id"`
	SKU      string  `json:"sku"`
	Quantity int64   `json:"quantity"`
	Amount   float64 `json:"amount"`
	offset   int64
}

type counts struct {
	applied, zeroQuantity, negativeAmount, bulk, unknownSKU, insufficient atomic.Int64
}

type loop struct {
	client *kgo.Client
	url    string
	topic  string
	checks bool
	all    int64
	seen   atomic.Int64
	done   context.CancelFunc
	counts counts
}

func main() {
	if len(os.Args) != 7 {
		log.Fatal("go-loop SERVERS TOPIC GROUP POSTGRES_URL EVENTS plain|checks")
	}
	all, err := strconv.ParseInt(os.Args[5], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	ctx, done := context.WithCancel(context.Background())
	l := &loop{url: os.Args[4], topic: os.Args[2], checks: os.Args[6] == "checks", all: all, done: done}
	l.client, err = kgo.NewClient(
		kgo.SeedBrokers(os.Args[1]), kgo.ConsumeTopics(l.topic), kgo.ConsumerGroup(os.Args[3]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer l.client.Close()
	l.poll(ctx)
	c := &l.counts
	fmt.Printf(`{"events":%d,"applied":%d,"zero_quantity":%d,"negative_amount":%d,"bulk_order":%d,"unknown_sku":%d,"insufficient_stock":%d}`+"\n",
		l.seen.Load(), c.applied.Load(), c.zeroQuantity.Load(), c.negativeAmount.Load(), c.bulk.Load(),
		c.unknownSKU.Load(), c.insufficient.Load())
}

// Polls, and hands each partition's records to its goroutine; a queue of a few keeps memory bounded.
func (l *loop) poll(ctx context.Context) {
	queues := map[int32]chan []*kgo.Record{}
	var workers sync.WaitGroup
	for ctx.Err() == nil {
		fetches := l.client.PollFetches(ctx)
		l.client.AllowRebalance()
		fetches.EachError(func(_ string, _ int32, err error) {
			if ctx.Err() == nil {
				log.Fatal(err)
			}
		})
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) == 0 {
				return
			}
			queue, there := queues[p.Partition]
			if !there {
				queue = make(chan []*kgo.Record, 8)
				queues[p.Partition] = queue
				workers.Add(1)
				go func() {
					defer workers.Done()
					l.partition(p.Partition, queue)
				}()
			}
			queue <- p.Records
		})
	}
	for _, queue := range queues {
		close(queue)
	}
	workers.Wait()
}

func (l *loop) partition(partition int32, queue <-chan []*kgo.Record) {
	ctx := context.Background()
	connection, err := pgx.Connect(ctx, l.url)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close(ctx)
	name := strconv.Itoa(int(partition))
	for records := range queue {
		for len(records) > 0 {
			n := min(len(records), batchEvents)
			if err := l.batch(ctx, connection, name, records[:n]); err != nil {
				log.Fatal(err)
			}
			if err := l.client.CommitRecords(ctx, records[n-1]); err != nil {
				log.Fatal(err)
			}
			records = records[n:]
			if l.seen.Add(int64(n)) >= l.all {
				l.done()
			}
		}
	}
}

// One transaction: the updates in one batch with one sync, then the effects and what refused them.
func (l *loop) batch(ctx context.Context, connection *pgx.Conn, partition string, records []*kgo.Record) error {
	orders := make([]order, 0, len(records))
	batch := &pgx.Batch{}
	batch.Queue("BEGIN")
	for _, record := range records {
		o := order{offset: record.Offset}
		if err := json.Unmarshal(record.Value, &o); err != nil {
			return err
		}
		if l.checks && !l.passes(&o) {
			continue
		}
		batch.Queue(take, o.Quantity, o.SKU)
		orders = append(orders, o)
	}
	results := connection.SendBatch(ctx, batch)
	if _, err := results.Exec(); err != nil {
		return err
	}
	offsets, ids := make([]int64, 0, len(orders)), make([]string, 0, len(orders))
	refused := []string{}
	for _, o := range orders {
		tag, err := results.Exec()
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 1 {
			offsets, ids = append(offsets, o.offset), append(ids, o.ID)
		} else {
			refused = append(refused, o.SKU)
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	return l.finish(ctx, connection, partition, offsets, ids, refused)
}

func (l *loop) finish(ctx context.Context, connection *pgx.Conn, partition string, offsets []int64, ids, refused []string) error {
	batch := &pgx.Batch{}
	for _, sku := range refused {
		batch.Queue(unknown, sku)
	}
	batch.Queue(effect, "reserve-stock", sourceID, partition, offsets, ids)
	batch.Queue("COMMIT")
	results := connection.SendBatch(ctx, batch)
	for range refused {
		var isUnknown bool
		if err := results.QueryRow().Scan(&isUnknown); err != nil {
			return err
		}
		if isUnknown {
			l.counts.unknownSKU.Add(1)
		} else {
			l.counts.insufficient.Add(1)
		}
	}
	for range 2 {
		if _, err := results.Exec(); err != nil {
			return err
		}
	}
	l.counts.applied.Add(int64(len(offsets)))
	return results.Close()
}

func (l *loop) passes(o *order) bool {
	switch {
	case o.Quantity <= 0:
		l.counts.zeroQuantity.Add(1)
		return false
	case o.Amount < 0:
		l.counts.negativeAmount.Add(1)
		return false
	case o.Quantity > 100:
		l.counts.bulk.Add(1)
	}
	return true
}
