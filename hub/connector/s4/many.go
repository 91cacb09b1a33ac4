package s4

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

var _ connector.ManyVerifier = (*Connector)(nil)

// found is what was read of SAP under several keys at once, by key. A nil one asks SAP.
type found struct {
	confs map[string][]sapConfirmation
	docs  map[string][]sapDocument
}

func (f *found) confirmations(ctx context.Context, c *Connector, uuid string) ([]sapConfirmation, error) {
	if f == nil {
		return c.findConfirmations(ctx, uuid)
	}
	return f.confs[uuid], nil
}

func (f *found) documents(ctx context.Context, c *Connector, ref string) ([]sapDocument, error) {
	if f == nil {
		return c.findDocuments(ctx, ref)
	}
	return f.docs[ref], nil
}

// VerifyMany implements connector.ManyVerifier: it searches for all confirmations by one question, and for all material documents by another.
// What is read of an order (its end, that of an operation) or was not prepared is read back alone, and so is a document with more items than
// SAP lists at once.
func (c *Connector) VerifyMany(ctx context.Context, all []connector.ToVerify) ([]connector.Verification, error) {
	answers := make([]connector.Verification, len(all))
	keys := make([]sought, len(all))
	var asked sought
	for i, q := range all {
		var ok bool
		if keys[i], ok = soughtBy(q); ok {
			asked.add(keys[i])
		} else {
			answers[i].Alone = true
		}
	}
	began := time.Now()
	read, cut, err := c.readMany(ctx, asked)
	if err != nil {
		return nil, fmt.Errorf("verify %d postings, %s first: %w", len(all), all[0].Posting.Fact.Key, err)
	}
	isCut := func(key string) bool { return cut[key] }
	for i, q := range all {
		switch {
		case answers[i].Alone:
		case slices.ContainsFunc(keys[i].confs, isCut) || slices.ContainsFunc(keys[i].docs, isCut):
			answers[i].Alone = true
		default:
			if answers[i], err = c.verify(ctx, q.Posting, q.Intent, q.Document, read, began); err != nil {
				return nil, err // it names the posting
			}
		}
	}
	return answers, nil
}

// sought is the keys by which confirmations and material documents are searched.
type sought struct{ confs, docs []string }

func (s *sought) add(other sought) {
	for _, x := range []struct{ into, from *[]string }{{&s.confs, &other.confs}, {&s.docs, &other.docs}} {
		for _, key := range *x.from {
			if !slices.Contains(*x.into, key) {
				*x.into = append(*x.into, key)
			}
		}
	}
}

// soughtBy is what a posting is read back by; not ok when more has to be read than what keys find.
func soughtBy(q connector.ToVerify) (keys sought, ok bool) {
	in, err := readIntent(q.Intent)
	if err != nil || len(in.Steps) == 0 {
		return keys, false
	}
	f := &q.Posting.Fact
	for _, s := range in.Steps {
		switch s.Do {
		case doConfirm:
			keys.confs = append(keys.confs, f.Key.UUID())
		case doCancel:
			keys.confs = append(keys.confs, f.Key.UUID(), f.Reverses.UUID())
		case doDocument:
			keys.docs = append(keys.docs, f.Key.String())
		default:
			return keys, false
		}
	}
	return keys, true
}

// readMany searches by keys, some at a time. cut are those of which not all items came.
func (c *Connector) readMany(ctx context.Context, asked sought) (read *found, cut map[string]bool, err error) {
	read, cut = &found{confs: map[string][]sapConfirmation{}, docs: map[string][]sapDocument{}}, map[string]bool{}
	for some := range slices.Chunk(asked.confs, headersAtOnce) {
		confs, err := c.confirmationsUnder(ctx, some)
		if err != nil {
			return nil, nil, err
		}
		for key, all := range confs {
			read.confs[key] = all
			cut[key] = cut[key] || slices.ContainsFunc(all, func(x sapConfirmation) bool { return x.Moves.Next != "" })
		}
	}
	for some := range slices.Chunk(asked.docs, headersAtOnce) {
		docs, err := c.documentsUnder(ctx, some)
		if err != nil {
			return nil, nil, err
		}
		for key, all := range docs {
			read.docs[key] = all
			cut[key] = cut[key] || slices.ContainsFunc(all, func(d sapDocument) bool { return d.Items.Next != "" })
		}
	}
	return read, cut, nil
}
