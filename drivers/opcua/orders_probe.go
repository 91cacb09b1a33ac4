package opcua

import (
	"context"
	"errors"
	"fmt"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// machines looks for the machines that take work orders, as a delivery would. It calls and writes nothing. One that is missing
// keeps no value from being read: the others are looked at all the same.
func (p *prober) machines(ctx context.Context) bool {
	if p.config.WorkOrders == nil {
		return true
	}
	l := &live{link: p.link, facts: p.facts}
	for _, m := range newOrders(p.env, p.config.WorkOrders, &lobby{}).machines {
		name := fmt.Sprintf("the machine of work centre %q takes orders", m.center())
		if m.center() == "" {
			name = "the machine takes orders"
		}
		if found, err := m.probe(ctx, l); err != nil {
			problem := p.inWords(err)
			problem.Code, problem.Item = "machine_takes_no_orders", m.name()
			var u *unusable
			if errors.As(err, &u) {
				problem.Reason, problem.NextStep = u.reason, u.nextStep
			}
			p.steps = append(p.steps, signal.Step{Name: name, Problem: problem})
		} else {
			p.ok(name, found)
		}
	}
	return true
}

// probe finds the receiver and reads its list.
func (m *jobMachine) probe(ctx context.Context, l *live) (string, error) {
	s, err := l.locate(ctx, m.receiver.Node)
	if err != nil {
		return "", err
	}
	m.session, m.spot = l, s
	m.lobby.open(l)
	list, err := m.list(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("job control at %s, %d jobs in its list", s.object, len(list)), nil
}

// probe reads the nodes.
func (m *blockMachine) probe(ctx context.Context, l *live) (string, error) {
	b, err := m.read(ctx, l)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d nodes, order %q stands in them", len(b.fields), fmt.Sprint(b.now["order_no"].Value())), nil
}
