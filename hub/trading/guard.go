package trading

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/posting"
)

// guarded keeps a connector that breaks down on one write (a panic) from ending the hub, which would come up to the same write
// again and again. What is said of the effect is what may be believed then.
type guarded struct {
	connector.BusinessWriter
	erp string
	log *slog.Logger
}

func (g guarded) broke(w connector.Write, then func(reason string)) {
	problem := recover()
	if problem == nil {
		return
	}
	g.log.Error("a connector broke down", "erp", g.erp, "write", w.Key.String(), "problem", problem, "stack", string(debug.Stack()))
	then(fmt.Sprintf("the connector of %q broke down on this write: %v", g.erp, problem))
}

// PrepareBusiness makes nothing, so the write is rejected.
func (g guarded) PrepareBusiness(ctx context.Context, w connector.Write) (intent []byte, early *connector.Outcome, err error) {
	defer g.broke(w, func(reason string) {
		intent, err = nil, nil
		early = &connector.Outcome{Result: connector.Rejected, Class: connector.Fatal, Code: posting.CodeConnectorBroke, Reason: reason,
			NextStep: "report this with the hub's version and log; replay the write after an upgrade"}
	})
	return g.BusinessWriter.PrepareBusiness(ctx, w)
}

// WriteBusiness may have sent something.
func (g guarded) WriteBusiness(ctx context.Context, w connector.Write, intent []byte) (out connector.Outcome) {
	defer g.broke(w, func(reason string) { out = connector.Outcome{Result: connector.InDoubt, Reason: reason} })
	return g.BusinessWriter.WriteBusiness(ctx, w, intent)
}

// LookupBusiness leaves the question to a person.
func (g guarded) LookupBusiness(ctx context.Context, w connector.Write, intent []byte) (f connector.Finding, err error) {
	defer g.broke(w, func(reason string) { f, err = connector.Finding{Presence: connector.CannotTell, Reason: reason}, nil })
	return g.BusinessWriter.LookupBusiness(ctx, w, intent)
}

// VerifyBusiness leaves the comparison to a person.
func (g guarded) VerifyBusiness(ctx context.Context, w connector.Write, intent []byte, doc connector.Document) (v connector.Verification, err error) {
	defer g.broke(w, func(reason string) { v, err = connector.Verification{Difference: reason}, nil })
	return g.BusinessWriter.VerifyBusiness(ctx, w, intent, doc)
}
