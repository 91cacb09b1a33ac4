package inbox

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// FuzzFile opens an inbox file that was spoiled from an offset on, or cut there: it opens as it was, or says that it begins
// anew; and it takes what the hub then sends.
func FuzzFile(f *testing.F) {
	content := filledFile(f)
	f.Add(uint32(0), []byte{})
	f.Add(uint32(0), make([]byte, 4096))
	f.Add(uint32(16), make([]byte, 8192))
	f.Add(uint32(4096*3+8), []byte{1, 0, 255, 255})
	f.Add(uint32(9000), []byte{})
	f.Add(uint32(12_300), []byte{0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, offset uint32, patch []byte) {
		spoiled := bytes.Clone(content)
		if at := int(offset) % len(spoiled); len(patch) == 0 {
			spoiled = spoiled[:at]
		} else {
			copy(spoiled[at:], patch)
		}
		path := filepath.Join(t.TempDir(), "inbox.db")
		if err := os.WriteFile(path, spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := Open(path)
		if err != nil {
			t.Fatalf("the inbox does not open: %v", err)
		}
		defer in.Close()
		// Without an epoch the hub sends everything again.
		if epoch, seq := in.Position(); in.Recovered() == "" && seq != 0 && epoch != "" && (epoch != "e" || seq > 20) {
			t.Fatalf("the inbox stands at %q, %d", epoch, seq)
		}
		for _, o := range in.Orders() {
			if !strings.HasPrefix(o.OrderNo, "WO-") || o.Revision != 1 {
				t.Fatalf("the inbox shows an order that was never sent: %+v", o)
			}
		}
		in.Receipts(10)
		if err := in.Store("e2", []*pb.Delivery{{Seq: 1, Kind: &pb.Delivery_WorkOrder{WorkOrder: order("WO-9", 1, pb.WorkOrder_STATE_RELEASED)}}}); err != nil {
			t.Fatalf("the inbox takes nothing: %v", err)
		}
	})
}

func filledFile(f *testing.F) []byte {
	f.Helper()
	path := filepath.Join(f.TempDir(), "inbox.db")
	in, err := Open(path)
	if err != nil {
		f.Fatal(err)
	}
	var list []*pb.Delivery
	for i := range 20 {
		d := &pb.Delivery{Seq: int64(i + 1)}
		if i%2 == 0 {
			d.Kind = &pb.Delivery_WorkOrder{WorkOrder: order("WO-"+string(rune('A'+i)), 1, pb.WorkOrder_STATE_RELEASED)}
		} else {
			d.Kind = &pb.Delivery_Receipt{Receipt: receipt(i, pb.Receipt_OUTCOME_POSTED, time.Unix(1_700_000_000, 0))}
		}
		list = append(list, d)
	}
	if err := in.Store("e", list); err != nil {
		f.Fatal(err)
	}
	if err := in.Close(); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return content
}

// FuzzDeliveries stores anything that a hub may send and opens the file again: it holds the same.
func FuzzDeliveries(f *testing.F) {
	for _, d := range []*pb.Delivery{
		{Seq: 1, Kind: &pb.Delivery_WorkOrder{WorkOrder: order("WO-1", 3, pb.WorkOrder_STATE_CANCELLED)}},
		{Seq: -5, Kind: &pb.Delivery_WorkOrder{WorkOrder: &pb.WorkOrder{Revision: -1}}},
		{Seq: 2, Kind: &pb.Delivery_Receipt{Receipt: receipt(1, pb.Receipt_OUTCOME_REJECTED, time.Unix(1_700_000_000, 0))}},
		{Seq: 3, Kind: &pb.Delivery_Receipt{Receipt: &pb.Receipt{FactKey: []byte("short")}}},
		{Seq: 1 << 62},
	} {
		raw, err := proto.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(binary.AppendUvarint(nil, uint64(len(raw))), raw...))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "inbox.db")
		in, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for len(raw) > 0 {
			size, n := binary.Uvarint(raw)
			if n <= 0 || size > uint64(len(raw)-n) {
				break
			}
			var d pb.Delivery
			if proto.Unmarshal(raw[n:n+int(size)], &d) == nil {
				if err := in.Store("e", []*pb.Delivery{&d}); err != nil {
					t.Logf("refused: %v", err)
				}
			}
			raw = raw[n+int(size):]
		}
		epoch, seq := in.Position()
		orders := len(in.Orders())
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		if in, err = Open(path); err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if e, s := in.Position(); in.Recovered() != "" || e != epoch || s != seq || len(in.Orders()) != orders {
			t.Fatalf("opened again it stands at %q, %d with %d orders instead of %q, %d with %d; %s", e, s, len(in.Orders()), epoch, seq, orders, in.Recovered())
		}
	})
}
