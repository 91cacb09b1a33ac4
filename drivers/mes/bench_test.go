package mes

import (
	"context"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// BenchmarkRowsFromPostgres reads rows of a confirmation with an emit that only counts.
func BenchmarkRowsFromPostgres(b *testing.B) {
	server := realparts.Postgres(b)
	l := newLabOn(b, "postgres", server)
	l.exec(b, `CREATE TABLE confirmation (id bigserial PRIMARY KEY, order_no text NOT NULL, operation text NOT NULL, item text NOT NULL,
		good numeric(18, 3) NOT NULL, scrap numeric(18, 3) NOT NULL, unit text NOT NULL, lot text, finished_at timestamptz NOT NULL)`)
	l.exec(b, `INSERT INTO confirmation (order_no, operation, item, good, scrap, unit, lot, finished_at)
		SELECT 'WO-' || i % 500, '0010', 'FG-GEAR', 12.5, 1, 'C62', 'L2026-' || i % 1000, now() FROM generate_series(1, ?::int) AS i`, b.N)
	p := newPlant(b)
	d := p.make(l.section("queries:\n- {tag: c, table: confirmation, key: [id], poll: 10ms}"))
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	b.ReportAllocs()
	b.ResetTimer()
	err := d.Run(ctx, nil, func(_ context.Context, batch signal.Batch) error {
		if n += len(batch.Signals); n == b.N {
			cancel()
		}
		return nil
	})
	if err != nil || n != b.N {
		b.Fatalf("%d rows, %v", n, err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
