package hub

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/trading"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// BusinessConfig says which business objects of an ERP are read, and whether the API may write them. Without an entry nothing is.
type BusinessConfig struct {
	ERP string `yaml:"erp"`
	// Kinds are item, party, purchase_order, sales_order, shipment, invoice, cycle_count, inventory_movement; or all, alone.
	Kinds []string `yaml:"kinds"`
	// Every is the pause between two questions. Default 30s. Whole is how often a kind is read from its beginning. Default 24h.
	Every time.Duration `yaml:"every"`
	Whole time.Duration `yaml:"whole"`
	// Write lets whoever may write to the API bring objects into the ERP.
	Write bool `yaml:"write"`
}

const allKinds = "all"

// read is what an entry lets be read, of what a connector can.
func (b BusinessConfig) read(c connector.BusinessReader) []object.BusinessKind {
	if slices.Equal(b.Kinds, []string{allKinds}) {
		return c.ReadsBusiness()
	}
	var kinds []object.BusinessKind
	for _, k := range b.Kinds {
		kinds = append(kinds, object.BusinessKind(k))
	}
	return kinds
}

// checkBusiness also asks the connectors what they can read and write.
func (c *Config) checkBusiness(kinds []ConnectorKind) (faults []Fault) {
	seen := map[string]bool{}
	for i, b := range c.Business {
		add := func(key, hint, format string, args ...any) {
			faults = append(faults, Fault{Where: fmt.Sprintf("business[%d].%s", i+1, key), Text: fmt.Sprintf(format, args...), Hint: hint})
		}
		if seen[b.ERP] {
			add("erp", "name all kinds in one entry", "ERP %q is there twice", b.ERP)
		}
		seen[b.ERP] = true
		for key, d := range map[string]time.Duration{"every": b.Every, "whole": b.Whole} {
			if d < 0 {
				add(key, "write a duration such as 30s", "%s is negative", d)
			}
		}
		if len(b.Kinds) == 0 && !b.Write {
			add("kinds", "write kinds: [all], or write: true", "nothing is read and nothing is written")
		}
		at := slices.IndexFunc(c.ERPs, func(e ERPConfig) bool { return e.Name == b.ERP })
		if at < 0 {
			add("erp", "name one of erps", "ERP %q is not configured", b.ERP)
			continue
		}
		k, ok := findKind(kinds, c.ERPs[at].Kind)
		if !ok {
			continue // a fault of its own
		}
		erp, err := k.New(b.ERP, filepath.Dir(c.Path), c.ERPs[at].Decode)
		if err != nil {
			continue
		}
		reader, reads := erp.(connector.BusinessReader)
		if !reads && len(b.Kinds) > 0 {
			add("kinds", "see CONNECTORS.md for those that do", "the connector of ERP %q reads no business objects", b.ERP)
		}
		if _, writes := erp.(connector.BusinessWriter); b.Write && !writes {
			add("write", "see CONNECTORS.md for those that do", "the connector of ERP %q writes no business objects", b.ERP)
		}
		if !reads {
			continue
		}
		for j, kind := range b.read(reader) {
			if can := reader.ReadsBusiness(); !slices.Contains(can, kind) {
				add("kinds", "use all alone, or some of "+joined(can), "the connector of ERP %q does not read %q", b.ERP, kind)
			} else if len(b.Kinds) > 1 && slices.Index(b.Kinds, string(kind)) < j {
				add("kinds", "name each once", "%q is there twice", kind)
			}
		}
	}
	return faults
}

func joined(kinds []object.BusinessKind) string {
	var words []string
	for _, k := range kinds {
		words = append(words, string(k))
	}
	return strings.Join(words, ", ")
}

// tradingOptions are those of the part that reads and writes business objects.
func (h *Hub) tradingOptions(connectors map[string]connector.Connector) trading.Options {
	o := trading.Options{Store: h.store, Connectors: connectors, Posting: h.posting, Now: h.now}
	for _, b := range h.cfg.Business {
		if r, ok := connectors[b.ERP].(connector.BusinessReader); ok && len(b.Kinds) > 0 {
			o.Mirrors = append(o.Mirrors, trading.Mirror{ERP: b.ERP, Kinds: b.read(r), Every: b.Every, Whole: b.Whole})
		}
		if b.Write {
			o.Writes = append(o.Writes, b.ERP)
		}
	}
	return o
}

// trader gives the API the writer's errors in the API's words.
type trader struct{ *trading.Trader }

func traded(err error) error {
	switch {
	case errors.Is(err, trading.ErrInvalid):
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case errors.Is(err, trading.ErrOther), errors.Is(err, trading.ErrNotParked):
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return err
}

func (t trader) Submit(ctx context.Context, w store.Write) (store.Write, bool, error) {
	stored, known, err := t.Trader.Submit(ctx, w)
	return stored, known, traded(err)
}

func (t trader) Replay(ctx context.Context, key factkey.Key, accept []string, by string) error {
	return traded(t.Trader.Replay(ctx, key, accept, by))
}

func (t trader) Settle(ctx context.Context, key factkey.Key, document, note, by string) error {
	return traded(t.Trader.Settle(ctx, key, document, note, by))
}

func (t trader) WriteAgain(ctx context.Context, key factkey.Key, note, by string) error {
	return traded(t.Trader.WriteAgain(ctx, key, note, by))
}
