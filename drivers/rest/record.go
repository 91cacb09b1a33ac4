package rest

import (
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// record is one record of an answer.
type record struct {
	signal signal.Signal
	at     *value // of the cursor's field; nil when there is none
}

// record makes a signal of a record. One that cannot be used becomes a problem of its own and stops nobody.
func (p *poller) record(item any) record {
	text := canonical(item)
	r := record{signal: signal.Signal{Tag: p.query.Tag, Value: item, Payload: text, ReceivedTime: time.Now()}}
	path, _, _ := strings.Cut(p.query.URL, "?")
	fields, ok := item.(map[string]any)
	if !ok && (len(p.query.Key) > 0 || p.query.byField() || p.answers != nil) {
		r.spoil(path, "bad_record", p.section, "the record is no object with fields", "correct records, or the MES")
		return r
	}
	if p.query.byField() {
		v, ok := readValue(find(fields, p.query.Cursor.Field), p.zone)
		if !ok || !p.query.overlap.suits(v) {
			r.spoil(path, "cursor_missing", p.query.Cursor.Field, fmt.Sprintf("field %q of the record is no place to go on from", p.query.Cursor.Field), "correct cursor or overlap, or the MES")
			return r
		}
		r.at = &v
	}
	identity, missing := p.identity(fields, text)
	if missing != "" {
		r.spoil(path, "key_missing", missing, fmt.Sprintf("field %q, which is part of the record's key, is empty or no single value", missing), "correct key, or the MES")
		return r
	}
	r.signal.Position = path + "|" + identity
	if p.query.Time != "" {
		if s, ok := plain(find(item, p.query.Time)); ok {
			r.signal.SourceTime, _ = payload.Time(s, p.zone)
		}
	}
	if p.answers != nil {
		r.answer(p)
	}
	return r
}

func (r *record) spoil(path, code, item, reason, next string) {
	r.signal.Value = nil
	r.signal.Position = path + "|" + contentHash(r.signal.Payload)
	r.signal.Problem = &signal.Problem{Code: code, Item: item, Reason: reason, NextStep: next}
}

// identity is the key and the version of a record; missing names a key field that is not there.
func (p *poller) identity(fields map[string]any, text []byte) (identity, missing string) {
	if len(p.query.Key) == 0 {
		return contentHash(text), ""
	}
	parts := make([]string, len(p.query.Key))
	for i, k := range p.query.Key {
		v, ok := plain(find(fields, k))
		if !ok {
			return "", k
		}
		parts[i] = escape(v)
	}
	version := ""
	switch p.query.Version {
	case "":
	case "content":
		version = contentHash(text)
	default:
		v, ok := plain(find(fields, p.query.Version))
		if !ok {
			return "", p.query.Version
		}
		version = escape(v)
	}
	return strings.Join(parts, ",") + "|" + version, ""
}
