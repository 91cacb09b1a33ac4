package sandbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/linekeeper/linekeeper/hub/connector"
)

var _ connector.ManyVerifier = (*Connector)(nil)

// keysAtOnce is by how many keys the ERP is searched at once; it refuses more than 50.
const keysAtOnce = 50

// VerifyMany implements connector.ManyVerifier: it searches by the keys of all postings at once. The state of an order, and a reversal of which
// nobody knows which document it takes back, are read back alone, and everything is where the ERP offers no search.
func (c *Connector) VerifyMany(ctx context.Context, all []connector.ToVerify) ([]connector.Verification, error) {
	answers := make([]connector.Verification, len(all))
	intents := make([]intent, len(all))
	var keys []string
	for i, q := range all {
		in, err := readIntent(q.Intent)
		reversed := in.Reverses == "" && !q.Posting.Fact.Reverses.IsZero()
		if answers[i].Alone = err != nil || reversed || q.Document.ID == stateID; answers[i].Alone {
			continue
		}
		intents[i] = in
		if key := q.Posting.Fact.Key.String(); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	there := map[string]found{}
	for some := range slices.Chunk(keys, keysAtOnce) {
		var err error
		if len(some) == 1 { // that is answered in another form
			there[some[0]], err = c.client.find(ctx, some[0])
		} else {
			var more map[string]found
			more, err = c.client.findMany(ctx, some)
			for key, f := range more {
				there[key] = f
			}
		}
		if err != nil && !unsearchable(err) {
			return nil, fmt.Errorf("verify %d postings, %s first: %w", len(all), all[0].Posting.Fact.Key, err)
		}
	}
	for i, q := range all {
		if answers[i].Alone {
			continue
		}
		f, told := there[q.Posting.Fact.Key.String()]
		if !told || f.AsOf.IsZero() {
			answers[i].Alone = true
			continue
		}
		answers[i] = readAs(q.Posting, intents[i], q.Document, f.Documents, f.mayAppear(intents[i]))
	}
	return answers, nil
}
