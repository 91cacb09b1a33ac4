package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linekeeper/linekeeper/drivers/opcua"
)

type trustCmd struct {
	Source      string `arg:"" optional:"" help:"Name of the OPC UA source."`
	Fingerprint string `arg:"" optional:"" help:"SHA-256 fingerprint (or its first 8 digits or more) of the certificate to trust; without it the refused ones are listed."`
	Own         bool   `help:"Show the agent's own certificate instead, which the server has to trust, with its PEM text to be carried there."`
	JSON        bool   `help:"Print JSON."`
}

func (trustCmd) Help() string {
	return examples("Compare the fingerprint with the one that the machine shows before you trust it. A running agent connects within seconds.", "plantagent trust", "plantagent trust press1 4f1c09ab", "plantagent trust press1 --own")
}

// refused are the certificates of one source that wait for a decision.
type refused struct {
	Source   string        `json:"source"`
	Rejected []certificate `json:"rejected"`
}

type certificate struct {
	Fingerprint    string    `json:"fingerprint"`
	Thumbprint     string    `json:"sha1"`
	Subject        string    `json:"subject"`
	Issuer         string    `json:"issuer"`
	ApplicationURI string    `json:"application_uri,omitempty"`
	Hosts          []string  `json:"hosts,omitempty"`
	NotBefore      time.Time `json:"not_before"`
	NotAfter       time.Time `json:"not_after"`
	Seen           time.Time `json:"seen"`
}

// Run works on the trust folders; a running agent notices by itself.
func (t trustCmd) Run(e *env) error {
	folders, err := t.folders(e)
	if err != nil {
		return err
	}
	switch {
	case t.Own && t.Fingerprint != "":
		return errors.New("--own shows a certificate, a fingerprint trusts one: leave one of them out")
	case t.Own:
		return t.own(e, folders)
	case t.Fingerprint != "":
		return t.trust(e, folders[0].dir)
	}
	list := []refused{}
	for _, f := range folders {
		r, err := listRefused(f.source, f.dir)
		if err != nil {
			return err
		}
		list = append(list, r)
	}
	if t.JSON {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	return printRefused(e.out, list)
}

type trustFolder struct{ source, dir string }

// folders returns those of the sources that are meant, at least one.
func (t trustCmd) folders(e *env) ([]trustFolder, error) {
	cfg, err := load(e.cli.Config)
	if err != nil {
		return nil, err
	}
	cfg.Check(nil) // fills the data folder's default
	var found []trustFolder
	for _, s := range cfg.Sources {
		if s.Kind == opcua.Kind.Name && (t.Source == "" || t.Source == s.Name) {
			found = append(found, trustFolder{s.Name, filepath.Join(cfg.DataDir, "sources", s.Name)})
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case t.Source != "":
		return nil, fmt.Errorf("%s has no OPC UA source %q", e.cli.Config, t.Source)
	}
	return nil, errors.New("there is no OPC UA source in " + e.cli.Config)
}

func (t trustCmd) trust(e *env, dir string) error {
	if err := opcua.Trust(dir, t.Fingerprint); err != nil {
		return err
	}
	if t.JSON {
		return json.NewEncoder(e.out).Encode(map[string]string{"source": t.Source, "trusted": t.Fingerprint})
	}
	fmt.Fprintf(e.out, "source %s trusts %s now\n", t.Source, t.Fingerprint)
	return nil
}

// ownCertificate is the agent's certificate for one source.
type ownCertificate struct {
	Source      string    `json:"source"`
	File        string    `json:"file"`
	Subject     string    `json:"subject"`
	URI         string    `json:"application_uri"`
	Hosts       []string  `json:"hosts"`
	Fingerprint string    `json:"fingerprint"`
	Thumbprint  string    `json:"sha1"`
	NotAfter    time.Time `json:"not_after"`
	Next        bool      `json:"next"`
	PEM         string    `json:"pem"`
}

func (t trustCmd) own(e *env, folders []trustFolder) error {
	list := []ownCertificate{}
	for _, f := range folders {
		found, err := opcua.Own(f.dir)
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(e.err, "source %s has no certificate of its own yet: run `plantagent doctor %s` or start the agent\n", f.source, f.source)
			continue
		}
		if err != nil {
			return fmt.Errorf("source %q: %w", f.source, err)
		}
		for _, c := range found {
			list = append(list, ownCertificate{f.source, c.File, c.Subject, c.ApplicationURI, c.Hosts, c.Fingerprint, c.Thumbprint, c.NotAfter, c.Next, c.PEM})
		}
	}
	if t.JSON {
		return printJSON(e.out, list)
	}
	for _, c := range list {
		which := "in use"
		if c.Next {
			which = "the next one, to be trusted in time"
		}
		fmt.Fprintf(e.out, "source           %s (%s)\nsubject          %s\napplication URI  %s\nhosts            %s\nvalid until      %s\nSHA-1            %s\nSHA-256          %s\nfile             %s\n%s\n",
			c.Source, which, c.Subject, c.URI, strings.Join(c.Hosts, ", "), c.NotAfter.Local().Format(time.DateOnly), c.Thumbprint, c.Fingerprint, c.File, c.PEM)
	}
	if len(list) == 0 {
		return exitError(exitFailed)
	}
	return nil
}

func listRefused(source, dir string) (refused, error) {
	found, err := opcua.ListRejected(dir)
	if err != nil {
		return refused{}, fmt.Errorf("source %q: %w", source, err)
	}
	r := refused{Source: source, Rejected: []certificate{}}
	for _, c := range found {
		r.Rejected = append(r.Rejected, certificate(c))
	}
	return r, nil
}

func printRefused(w io.Writer, list []refused) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := 0
	for _, r := range list {
		for _, c := range r.Rejected {
			if rows++; rows == 1 {
				fmt.Fprintln(table, "SOURCE\tFIRST SEEN\tVALID UNTIL\tSUBJECT\tFINGERPRINT (SHA-256)")
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.Source, c.Seen.Local().Format(time.DateTime), c.NotAfter.Local().Format(time.DateOnly), cmp.Or(c.Subject, c.ApplicationURI, "-"), c.Fingerprint)
		}
	}
	if rows == 0 {
		fmt.Fprintln(w, "no certificate waits for a decision")
		return nil
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nCompare the fingerprint with the one that the machine shows, then: plantagent trust SOURCE FINGERPRINT")
	return err
}
