package drill

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Report is what a drill found. Times carry their zone, durations are nanoseconds in JSON.
type Report struct {
	Began      time.Time `json:"began"`
	Ended      time.Time `json:"ended"`
	Host       string    `json:"host"`
	System     string    `json:"system"`
	Version    string    `json:"version"`
	Go         string    `json:"go"`
	Plant      string    `json:"plant"`
	Agent      string    `json:"agent"`
	ConfigFile string    `json:"config_file"`
	ConfigSHA  string    `json:"config_sha256"`
	Seed       uint64    `json:"seed"`
	Long       bool      `json:"long"`
	Sabotage   string    `json:"sabotage,omitempty"`
	Driven     []driven  `json:"driven"`
	LeftOut    []leftOut `json:"left_out"`
	Drills     []Result  `json:"drills"`
	Pass       bool      `json:"pass"`
}

// Result is one drill.
type Result struct {
	Word      string        `json:"drill"`
	Title     string        `json:"title"`
	Disaster  string        `json:"disaster"`
	Why       string        `json:"why"`
	Limit     string        `json:"limit,omitempty"`
	Steps     []Step        `json:"steps"`
	Counts    []Count       `json:"counts"`
	Lost      int64         `json:"lost"`
	Doubled   int64         `json:"doubled"`
	Named     int64         `json:"lost_and_named"` // of Lost, within ranges that the agent reported (corrupt only)
	Repeats   int           `json:"repeats"`        // facts that came a second time and did not count
	Restart   time.Duration `json:"slowest_start"`  // from the process's start to its page
	Recovered time.Duration `json:"recovered"`      // from the end of the trouble to the last count
	Took      time.Duration `json:"took"`
	Failures  []string      `json:"failures"`
	Pass      bool          `json:"pass"`
}

// Step is what was done or seen, and when.
type Step struct {
	At   time.Duration `json:"at"`
	Text string        `json:"text"`
}

func (r *Result) slowest(d time.Duration) { r.Restart = max(r.Restart, d) }

// Run drills what words name ("all" for all) and returns the report. Its error says that a drill could not be made at all,
// which is neither PASS nor FAIL.
func Run(ctx context.Context, o Options, words []string) (*Report, error) {
	list, err := chosen(words)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	sum := sha256.Sum256(raw)
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	rep := &Report{Began: time.Now(), Host: host, System: runtime.GOOS + "/" + runtime.GOARCH, Version: o.Version, Go: runtime.Version(),
		Plant: o.Config.Plant, Agent: o.Config.Agent, ConfigFile: o.ConfigFile, ConfigSHA: hex.EncodeToString(sum[:]), Seed: o.Seed, Long: o.Long,
		Sabotage: o.Sabotage, Pass: true, LeftOut: []leftOut{}}
	if err := rep.plan(o); err != nil {
		return nil, err
	}
	if rep.Drills, err = runAll(ctx, o, list); err != nil {
		return nil, err
	}
	for _, d := range rep.Drills {
		rep.Pass = rep.Pass && d.Pass
	}
	rep.Ended = time.Now()
	return rep, nil
}

// plan says which rules are driven.
func (r *Report) plan(o Options) error {
	p, err := makePlan(adapt(o.Config, spec{}), brokers(o.Config), time.Now())
	if err != nil {
		return err
	}
	r.LeftOut = append(r.LeftOut, p.out...)
	for _, t := range p.tags {
		r.Driven = append(r.Driven, *t)
	}
	return nil
}

// atOnce is how many drills run at the same time: they mostly wait.
const atOnce = 2

// runAll runs drills, each with a plant of its own. After an error it begins no other.
func runAll(ctx context.Context, o Options, list []disaster) ([]Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var say sync.Mutex
	if tell := o.Say; tell != nil {
		o.Say = func(line string) {
			say.Lock()
			defer say.Unlock()
			tell(line)
		}
	}
	results := make([]Result, len(list))
	turns := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, d := range list {
		turns <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-turns }()
			if err := runOne(ctx, o, d, &results[i]); err != nil {
				cancel(fmt.Errorf("drill %q: %w", d.word, err))
			}
		})
	}
	wg.Wait()
	return results, context.Cause(ctx)
}

func chosen(words []string) (list []disaster, err error) {
	for _, w := range words {
		if w == "all" {
			return disasters, nil
		}
		i := slices.IndexFunc(disasters, func(d disaster) bool { return d.word == w })
		if i < 0 {
			return nil, fmt.Errorf("there is no drill %q; there are all, %s", w, strings.Join(Words(), ", "))
		}
		list = append(list, disasters[i])
	}
	return list, nil
}

func runOne(ctx context.Context, o Options, d disaster, res *Result) error {
	*res = Result{Word: d.word, Title: d.title, Disaster: d.what, Why: d.why, Limit: d.limit, Failures: []string{}}
	r, err := newRig(o, res)
	if err != nil {
		return err
	}
	defer r.close()
	err = d.run(ctx, r)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil { // the agent did not do what it has to: that is a finding, not a fault of the drill
		r.must(false, "%v", err)
	}
	r.judge()
	return nil
}

// judge makes the verdict.
func (r *rig) judge() {
	res := r.res
	res.Took, res.Repeats = time.Since(r.began), r.led.repeats()
	res.Counts = tally(r.machine, r.led)
	for _, c := range res.Counts {
		res.Lost, res.Doubled = res.Lost+c.Lost, res.Doubled+c.Doubled
		if c.Fault != "" {
			res.Failures = append(res.Failures, fmt.Sprintf("rule %q: %s", c.Rule, c.Fault))
		}
		if c.Counted == 0 {
			res.Failures = append(res.Failures, fmt.Sprintf("rule %q: nothing was counted, so nothing was shown", c.Rule))
		}
	}
	res.Named = min(res.Named, res.Lost) // rows that were read again are not lost any more
	for _, rule := range ownSources(&r.o.Config).rules() {
		if i := slices.IndexFunc(r.plan.out, func(o leftOut) bool { return o.Rule == rule.Name }); i >= 0 {
			res.Failures = append(res.Failures, fmt.Sprintf("rule %q, which every agent has to take, can not be driven: %s", rule.Name, r.plan.out[i].Reason))
		}
	}
	if open := res.Lost - res.Named; open > 0 {
		res.Failures = append(res.Failures, fmt.Sprintf("%d counts are missing at the receiver", open))
	}
	if res.Doubled > 0 {
		res.Failures = append(res.Failures, fmt.Sprintf("%d counts took effect twice", res.Doubled))
	}
	res.Pass = len(res.Failures) == 0
}

func verdict(pass bool) string {
	if pass {
		return "PASS"
	}
	return "FAIL"
}

// Text is the report for people.
func (r *Report) Text() string {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("LINEKEEPER DRILL REPORT")
	line("")
	line("date           %s to %s", r.Began.Format(time.RFC3339), r.Ended.Format(time.RFC3339))
	line("host           %s (%s)", r.Host, r.System)
	line("program        plantagent %s (%s)", r.Version, r.Go)
	line("plant, agent   %s, %s", r.Plant, r.Agent)
	line("configuration  %s", r.ConfigFile)
	line("  SHA-256      %s", r.ConfigSHA)
	line("seed           %d (the same times again: --seed %d)", r.Seed, r.Seed)
	if r.Long {
		line("length         long; the agent used its own time-outs")
	} else {
		line("length         short; confirmations close after 1 s, time-outs of the line are 4 to 6 s (--long uses the agent's own)")
	}
	if r.Sabotage != "" {
		line("sabotage       %s: a part was broken on purpose, this report shows nothing about the product", r.Sabotage)
	}
	line("")
	writeWrapped(&b, "", "The real agent ran as a process of its own, in a scratch folder, against a scratch receiver that stores before it "+
		"acknowledges. The live data folder, the live hub and the live sources were not touched: a generator of counts stood in for the sources.")
	line("")
	line("RULES THAT WERE DRIVEN")
	for _, d := range r.Driven {
		line("  %-8s %-36s %s/%s", d.Kind, d.Rule, d.Source, d.Tag)
	}
	for _, o := range r.LeftOut {
		writeWrapped(&b, "  not driven: ", fmt.Sprintf("rule %q: %s", o.Rule, o.Reason))
	}
	for i := range r.Drills {
		r.Drills[i].text(&b, i+1)
	}
	line("")
	line("%s", r.Verdict())
	return b.String()
}

// Verdict is the report's last line.
func (r *Report) Verdict() string {
	passed := 0
	var lost, named, doubled, counted int64
	for _, d := range r.Drills {
		if d.Pass {
			passed++
		}
		lost, named, doubled = lost+d.Lost-d.Named, named+d.Named, doubled+d.Doubled
		for _, c := range d.Counts {
			counted += c.Counted
		}
	}
	s := fmt.Sprintf("VERDICT: %s: %d of %d drills passed, counted %d, lost %d, doubled %d", verdict(r.Pass), passed, len(r.Drills), counted, lost, doubled)
	if named > 0 {
		s += fmt.Sprintf(", lost with a damaged file and named %d", named)
	}
	return s
}

func (d *Result) text(b *bytes.Buffer, n int) {
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	line("")
	line("%d  %s: %s: %s", n, strings.ToUpper(d.Word), d.Title, verdict(d.Pass))
	writeWrapped(b, "   disaster   ", d.Disaster)
	for i, s := range d.Steps {
		label := "   done       "
		if i > 0 {
			label = "              "
		}
		writeWrapped(b, label, fmt.Sprintf("%5.1f s  %s", s.At.Seconds(), s.Text))
	}
	line("   counts     %-36s %8s %8s %8s %6s %8s", "rule", "counted", "stored", "received", "lost", "doubled")
	for _, c := range d.Counts {
		line("              %-36s %8d %8d %8d %6d %8d", shorten(c.Rule, 36), c.Counted, c.Stored, c.Received, c.Lost, c.Doubled)
	}
	line("   repeated   %d facts came a second time, whole or in part, and did not count again", d.Repeats)
	line("   recovered  %.1f s from the end of the trouble to the last count; slowest start of the agent %.1f s", d.Recovered.Seconds(), d.Restart.Seconds())
	writeWrapped(b, "   shows      ", d.Why)
	if d.Limit != "" {
		writeWrapped(b, "   limit      ", d.Limit)
	}
	for _, f := range d.Failures {
		writeWrapped(b, "   FAILED     ", f)
	}
	line("   verdict    %s (took %.1f s)", verdict(d.Pass), d.Took.Seconds())
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-3]) + "..."
	}
	return s
}

// writeWrapped writes text after a label, at most 110 characters wide.
func writeWrapped(b *bytes.Buffer, label, text string) {
	const width = 110
	at := len(label)
	b.WriteString(label)
	first := true
	for word := range strings.FieldsSeq(text) {
		if !first && at+1+len(word) > width {
			b.WriteString("\n" + strings.Repeat(" ", len(label)))
			at, first = len(label), true
		}
		if !first {
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at, first = at+len(word), false
	}
	b.WriteByte('\n')
}
