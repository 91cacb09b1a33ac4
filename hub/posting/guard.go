package posting

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// CodeConnectorBroke is the code of a fact on which a connector broke down.
const CodeConnectorBroke = "connector_broke"

// guarded keeps a connector that breaks down on one fact (a panic) from ending the hub, which would come up to the same fact
// again and again. What is said of the effect is what may be believed then.
type guarded struct {
	connector.Connector
	erp string
	log *slog.Logger
}

// broke says what happened, if anything did, and calls then with the sentence.
func (g guarded) broke(p connector.Posting, then func(reason string)) {
	problem := recover()
	if problem == nil {
		return
	}
	g.log.Error("a connector broke down", "erp", g.erp, "fact", p.Fact.Key.String(), "problem", problem, "stack", string(debug.Stack()))
	then(fmt.Sprintf("the connector of %q broke down on this fact: %v", g.erp, problem))
}

const afterUpgrade = "report this with the hub's version and log; replay the fact after an upgrade"

// Prepare changes nothing outside, so the fact is rejected.
func (g guarded) Prepare(ctx context.Context, p connector.Posting) (intent []byte, early *connector.Outcome, err error) {
	defer g.broke(p, func(reason string) {
		intent, err = nil, nil
		early = &connector.Outcome{Result: connector.Rejected, Class: connector.Fatal, Code: CodeConnectorBroke, Reason: reason, NextStep: afterUpgrade}
	})
	return g.Connector.Prepare(ctx, p)
}

// Post may have sent something.
func (g guarded) Post(ctx context.Context, p connector.Posting, intent []byte) (out connector.Outcome) {
	defer g.broke(p, func(reason string) { out = connector.Outcome{Result: connector.InDoubt, Reason: reason} })
	return g.Connector.Post(ctx, p, intent)
}

// Lookup leaves the question to a person.
func (g guarded) Lookup(ctx context.Context, p connector.Posting, intent []byte) (f connector.Finding, err error) {
	defer g.broke(p, func(reason string) { f, err = connector.Finding{Presence: connector.CannotTell, Reason: reason}, nil })
	return g.Connector.Lookup(ctx, p, intent)
}

// Verify leaves the comparison to a person.
func (g guarded) Verify(ctx context.Context, p connector.Posting, intent []byte, doc connector.Document) (v connector.Verification, err error) {
	defer g.broke(p, func(reason string) { v, err = connector.Verification{Difference: reason}, nil })
	return g.Connector.Verify(ctx, p, intent, doc)
}

// VerifyMany lets each be asked about alone when the connector broke down: then it is known on which. So it does with answers of
// which nobody can say whose they are.
func (g guarded) VerifyMany(ctx context.Context, all []connector.ToVerify) (answers []connector.Verification, err error) {
	each := func(reason, stack string) {
		g.log.Error("postings cannot be read back together, and are read back one by one", "erp", g.erp, "first", all[0].Posting.Fact.Key.String(), "postings", len(all),
			"reason", reason, "stack", stack)
		answers, err = slices.Repeat([]connector.Verification{{Alone: true}}, len(all)), nil
	}
	defer func() {
		if problem := recover(); problem != nil {
			each(fmt.Sprintf("the connector broke down: %v", problem), string(debug.Stack()))
		}
	}()
	answers, err = g.Connector.(connector.ManyVerifier).VerifyMany(ctx, all)
	if err == nil && len(answers) != len(all) {
		each(fmt.Sprintf("the connector gave %d answers to %d questions", len(answers), len(all)), "")
	}
	return answers, err
}
