package mqtt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

const (
	// listening is how long a look listens: retained messages come at once, others when somebody sends them.
	listening = 3 * time.Second
	// lookFresh is how long what was heard serves further looks.
	lookFresh = time.Minute
	// lookTopics bounds what a look keeps.
	lookTopics = 50_000
)

// look is what was heard at the broker, by topic: the latest payload.
type look struct {
	mu    sync.Mutex
	heard map[string][]byte
	at    time.Time
	more  bool // topics beyond the bound
}

// newExplorer makes a driver that only looks around; its topics may be empty.
func newExplorer(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	return makeDriver(env, decode, true)
}

// aside connects beside the running agent: under a name of its own, without a session that stays.
func (d *driver) aside(ctx context.Context) (*mqttlink.Session, mqttlink.Options, error) {
	o := d.options()
	o.ClientID += "-look"
	o.Clean, o.SessionExpiry, o.Will = true, 0, nil
	s, err := mqttlink.Connect(ctx, o)
	return s, o, err
}

// Probe implements signal.Prober.
func (d *driver) Probe(ctx context.Context) (steps []signal.Step) {
	step := func(name, detail string, p *signal.Problem) bool {
		steps = append(steps, signal.Step{Name: name, Detail: detail, Problem: p})
		return p == nil
	}
	host := d.broker.Hostname()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		step("name "+host+" is known", "", &signal.Problem{Code: "name_unknown", Item: host, Reason: fmt.Sprintf("this computer cannot resolve it: %v", err),
			NextStep: "correct the host in broker, or this computer's name server"})
		return steps
	}
	step("name "+host+" is known", strings.Join(addresses, ", "), nil)
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", d.broker.Host)
	if err != nil {
		o := d.options()
		step("port "+d.broker.Port()+" is open", "", mqttlink.Explain(err, &o))
		return steps
	}
	conn.Close()
	step("port "+d.broker.Port()+" is open", "", nil)
	s, o, err := d.aside(ctx)
	if err != nil {
		step("the broker lets the agent in", "", mqttlink.Explain(err, &o))
		return steps
	}
	defer s.Close()
	step("the broker lets the agent in", "MQTT "+string(s.Version), nil)
	for _, wanted := range d.rules.subscriptions() {
		grants, err := s.Subscribe(ctx, []mqttlink.Subscription{wanted})
		name := "topic " + wanted.Filter + " may be read"
		switch {
		case err != nil:
			step(name, "", mqttlink.Explain(err, &o))
			return steps
		case len(grants) == 1 && grants[0].Refused != nil:
			step(name, "", &signal.Problem{Code: "topic_refused", Item: wanted.Filter, Reason: "the broker refuses it: " + grants[0].Refused.String(),
				NextStep: "allow the agent's user to read the topic at the broker (access list)"})
		default:
			step(name, "", nil)
		}
	}
	return steps
}

// listen hears what is said at the broker for a while, unless that was done lately.
func (d *driver) listen(ctx context.Context) (map[string][]byte, bool, error) {
	l := &d.look
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heard != nil && time.Since(l.at) < lookFresh {
		return l.heard, l.more, nil
	}
	s, o, err := d.aside(ctx)
	if err != nil {
		p := mqttlink.Explain(err, &o)
		return nil, false, fmt.Errorf("%s (%s)", p.Reason, p.NextStep)
	}
	defer s.Close()
	grants, err := s.Subscribe(ctx, []mqttlink.Subscription{{Filter: "#"}})
	if err != nil {
		return nil, false, fmt.Errorf("listen to all topics: %w", err)
	}
	if len(grants) == 1 && grants[0].Refused != nil {
		return nil, false, fmt.Errorf("the broker lets this user not listen to all topics (%s): write the topics by hand, or allow it for the time of setting up", grants[0].Refused)
	}
	heard, more := map[string][]byte{}, false
	enough := time.NewTimer(listening)
	defer enough.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-s.Done():
			return nil, false, fmt.Errorf("listen to all topics: %w", s.Err())
		case <-enough.C:
			l.heard, l.at, l.more = heard, time.Now(), more
			return heard, more, nil
		case <-s.Ready():
		}
		batch := s.Take(nil, 1000)
		for _, m := range batch {
			if _, known := heard[m.Topic]; !known && len(heard) >= lookTopics {
				more = true
				continue
			}
			heard[m.Topic] = m.Payload[:min(len(m.Payload), 64<<10)]
		}
		if _, err := s.Acknowledge(batch); err != nil {
			return nil, false, fmt.Errorf("listen to all topics: %w", err)
		}
	}
}

// What an entry's ID begins with.
const (
	levelID = "level:"
	topicID = "topic:"
)

// Browse implements signal.Browser: levels, topics below them, and the fields of a topic's latest message.
func (d *driver) Browse(ctx context.Context, at, page string, limit int) ([]signal.Entry, string, error) {
	heard, _, err := d.listen(ctx)
	if err != nil {
		return nil, "", err
	}
	var all []signal.Entry
	if topic, ok := strings.CutPrefix(at, topicID); ok {
		message, known := heard[topic]
		if !known {
			return nil, "", fmt.Errorf("no message was heard on topic %q", topic)
		}
		all = fieldsOf(topic, message)
	} else {
		all = levelsBelow(heard, strings.TrimPrefix(at, levelID))
	}
	from := 0
	if page != "" {
		from, _ = slices.BinarySearchFunc(all, page, func(e signal.Entry, id string) int { return cmp.Compare(sortKey(e.ID), sortKey(id)) })
	}
	all = all[from:]
	if limit > 0 && len(all) > limit {
		return all[:limit], all[limit].ID, nil
	}
	return all, "", nil
}

// sortKey orders entries by their path; a level comes before the topic of the same name.
func sortKey(id string) string {
	_, path, _ := strings.Cut(id, ":")
	return path + "\x00" + id
}

func levelsBelow(heard map[string][]byte, at string) []signal.Entry {
	found := map[string]signal.Entry{}
	for topic, message := range heard {
		rest := topic
		if at != "" {
			var below bool
			if rest, below = strings.CutPrefix(topic, at+"/"); !below {
				continue
			}
		}
		name, deeper, isLevel := strings.Cut(rest, "/")
		path := name
		if at != "" {
			path = at + "/" + name
		}
		if isLevel && deeper != "" {
			found[levelID+path] = signal.Entry{ID: levelID + path, Path: path, Name: name, Kind: "level", Children: true}
		} else {
			e := topicEntry(topic, message)
			found[e.ID] = e
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b signal.Entry) int { return cmp.Compare(sortKey(a.ID), sortKey(b.ID)) })
}

var plainNumber = regexp.MustCompile(`^[+-]?[0-9]+([.][0-9]+)?$`)

func topicEntry(topic string, message []byte) signal.Entry {
	name := topic[strings.LastIndexByte(topic, '/')+1:]
	e := signal.Entry{ID: topicID + topic, Path: topic, Name: name, Kind: "topic", Readable: true, Value: excerpt(message)}
	format := "json"
	switch value, err := payload.JSON(message); {
	case err != nil && plainNumber.Match(message):
		format, e.Type = "number", "number"
	case err != nil:
		format, e.Type = "text", "text"
	default:
		if e.Type = typeOf(value); e.Type == "object" {
			e.Children = true
		}
	}
	e.Tag = fmt.Sprintf("tag: %q\ntopic: %q\nformat: %s\n", name, topic, format)
	return e
}

func typeOf(value any) string {
	switch v := value.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "list"
	case signal.Number:
		if plainNumber.MatchString(string(v)) && !strings.Contains(string(v), ".") {
			return "integer"
		}
		return "number"
	case string:
		return "text"
	case bool:
		return "boolean"
	}
	return ""
}

func fieldsOf(topic string, message []byte) (list []signal.Entry) {
	value, err := payload.JSON(message)
	fields, ok := value.(map[string]any)
	if err != nil || !ok {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		list = append(list, signal.Entry{ID: topicID + topic + "\x00" + name, Path: topic + "/" + name, Name: name, Kind: "field",
			Type: typeOf(fields[name]), Value: excerpt([]byte(fmt.Sprint(fields[name])))})
	}
	return list
}

// excerpt is the beginning of a payload as one line of text.
func excerpt(message []byte) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(message[:min(len(message), 200)]), "?")), " ")
	if len(message) > 80 && len(text) > 80 {
		text = strings.ToValidUTF8(text[:80], "") + "..."
	}
	return text
}

// Find implements signal.Browser.
func (d *driver) Find(ctx context.Context, at, glob string, f func(signal.Entry) bool) error {
	match, err := signal.Glob(glob)
	if err != nil {
		return err
	}
	heard, more, err := d.listen(ctx)
	if err != nil {
		return err
	}
	at = strings.TrimPrefix(at, levelID)
	for _, topic := range slices.Sorted(maps.Keys(heard)) {
		if (at == "" || strings.HasPrefix(topic, at+"/")) && match(topic) && !f(topicEntry(topic, heard[topic])) {
			return nil
		}
	}
	if more {
		return fmt.Errorf("more than %d topics were heard, the others were not looked at", lookTopics)
	}
	return nil
}

// discover tries the ways to a broker at an address: encrypted and not, on the usual ports unless one is named.
func discover(ctx context.Context, _ signal.Env, address string) (offers []signal.Offer, err error) {
	candidates, err := candidatesOf(address)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, u := range candidates {
		o := mqttlink.Options{Broker: u, ClientID: "linekeeper-discover", Clean: true, Version: mqttlink.Auto}
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := mqttlink.Connect(attempt, o)
		cancel()
		offer := signal.Offer{Secure: u.Scheme == "tls", Section: fmt.Sprintf("broker: %s\n", u)}
		var refused *mqttlink.Refused
		switch p := (*signal.Problem)(nil); {
		case err == nil:
			offer.Title = fmt.Sprintf("%s, MQTT %s, without a user", u, s.Version)
			s.Close()
		case errors.As(err, &refused):
			offer.Title = u.String() + ", with a user"
			offer.Notes = []string{mqttlink.Explain(err, &o).Reason + ": set username and password_file"}
		case u.Scheme == "tls" && isCertificate(mqttlink.Explain(err, &o)):
			p = mqttlink.Explain(err, &o)
			offer.Title = u.String()
			offer.Notes = []string{p.Reason + ": " + p.NextStep}
		default:
			failed = append(failed, fmt.Errorf("%s: %s", u, mqttlink.Explain(err, &o).Reason))
			continue
		}
		if !offer.Secure {
			offer.Notes = append(offer.Notes, "what is sent and read can be seen and changed on the network")
		}
		offers = append(offers, offer)
	}
	if len(offers) == 0 {
		return nil, errors.Join(failed...)
	}
	return offers, nil
}

func isCertificate(p *signal.Problem) bool { return strings.HasPrefix(p.Code, "certificate") }

func candidatesOf(address string) ([]*url.URL, error) {
	if strings.Contains(address, "://") {
		u, err := mqttlink.ParseBroker(address)
		if err != nil {
			return nil, err
		}
		return []*url.URL{u}, nil
	}
	var list []*url.URL
	_, _, err := net.SplitHostPort(address)
	for _, scheme := range []string{"tls", "tcp"} {
		text := scheme + "://" + address
		if err != nil && strings.Count(address, ":") > 1 && !strings.HasPrefix(address, "[") { // an IPv6 address
			text = scheme + "://[" + address + "]"
		}
		u, err := mqttlink.ParseBroker(text)
		if err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	return list, nil
}
