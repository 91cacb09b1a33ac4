package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
)

// reconcileCmd prints what plant and outside systems say of the same orders.
type reconcileCmd struct {
	Plant string `help:"Only this plant." placeholder:"PLANT"`
	Order string `help:"Only this work order." placeholder:"NUMBER"`
	From  string `help:"Orders with facts that occurred at or after: 2026-11-26, or with a time and a zone." placeholder:"TIME"`
	To    string `help:"Orders with facts that occurred before." placeholder:"TIME"`
	CSV   bool   `name:"csv" help:"Print the whole statement as CSV: each sum, under it each fact with its counter range and its document."`
	Heal  bool   `help:"Compare and heal what the rules allow first; without it nothing is changed."`
	remote
}

// query says which orders.
func (c reconcileCmd) query() (url.Values, error) {
	q := url.Values{}
	for name, text := range map[string]string{"from": c.From, "to": c.To} {
		if text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			if at, err = time.Parse(time.DateOnly, text); err != nil {
				return nil, usage(fmt.Sprintf("--%s %q is no time: write 2026-11-26 (midnight UTC) or 2026-11-26T06:00:00+01:00", name, text))
			}
		}
		q.Set(name, at.Format(time.RFC3339))
	}
	for name, text := range map[string]string{"plant": c.Plant, "order_no": c.Order} {
		if text != "" {
			q.Set(name, text)
		}
	}
	return q, nil
}

// Run implements the command. It fails when a system and the plant do not agree, so that a script can ask.
func (c reconcileCmd) Run(e *env) error {
	q, err := c.query()
	if err != nil {
		return err
	}
	if c.Heal {
		body := map[string]string{}
		for name := range q {
			body[name] = q.Get(name)
		}
		var run api.Reconciliation
		quiet := c.remote
		quiet.JSON = false
		if err := quiet.call(e, "POST", "/v1/reconciliations", body, &run); err != nil {
			return err
		}
		fmt.Fprintf(e.err, "compared %d orders, %d facts and %d documents: %d discrepancies, %d heals begun, %d orders could not be asked for; %d writes read back, %d could not be\n",
			run.Orders, run.Facts, run.Documents, run.Found, run.Begun, run.Unasked, run.Writes, run.UnaskedWrites)
	}
	format := "csv"
	if c.JSON {
		format = "json"
	}
	q.Set("format", format)
	res, err := c.stream(e, "/v1/reconciliations/statement?"+q.Encode())
	if err != nil {
		return err
	}
	defer res.Close()
	if c.JSON || c.CSV {
		_, err := io.Copy(e.out, res)
		return err
	}
	return table(e.out, res)
}

// stream asks for something long and hands over the answer as it comes.
func (r remote) stream(e *env, path string) (io.ReadCloser, error) {
	client, base, err := r.client(e)
	if err != nil {
		return nil, err
	}
	client.Timeout = 0
	req, err := http.NewRequest(http.MethodGet, strings.TrimSuffix(base, "/")+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the hub: %w", err)
	}
	if r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the hub: %w (is it running? name another with --url)", err)
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		raw, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		return nil, refusal(res, raw)
	}
	return res.Body, nil
}

// errDisagree makes the command end with a failure.
var errDisagree = errors.New("plant and outside systems do not agree: --csv shows each fact with its counter range and its document")

// table prints the sums for a person.
func table(out io.Writer, statement io.Reader) error {
	rows := csv.NewReader(statement)
	header, err := rows.Read()
	if err != nil {
		return fmt.Errorf("read the statement: %w", err)
	}
	column := map[string]int{}
	for i, name := range header {
		column[name] = i
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	shown := []string{"plant", "erp", "order_no", "operation", "item", "kind", "unit", "counted", "received", "intended", "held_by_erp", "mes", "agrees"}
	fmt.Fprintln(w, strings.ToUpper(strings.Join(shown, "\t")))
	agree := true
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the statement: %w", err)
		}
		switch row[column["level"]] {
		case "incomplete":
			w.Flush()
			return fmt.Errorf("the statement is not complete: %s", row[column["discrepancies"]])
		case "sum":
			agree = agree && row[column["agrees"]] == "true"
			fields := make([]string, len(shown))
			for i, name := range shown {
				fields[i] = row[column[name]]
			}
			fmt.Fprintln(w, strings.Join(fields, "\t"))
		}
	}
	if err := w.Flush(); err != nil || agree {
		return err
	}
	return errDisagree
}
