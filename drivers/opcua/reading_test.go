package opcua

import (
	"strings"
	"testing"
)

func TestTheWayOfReadingIsChecked(t *testing.T) {
	const good = "endpoint: opc.tcp://h:1\nanonymous: true\nread: poll\npoll_every: 2s\nskip_history: true\n" +
		"nodes:\n  - {tag: a, node: 's=a', deadband: 0.5, expect_every: 10s}\n  - {tag: b, node: 's=b', deadband_percent: 2}\n"
	b := newBench(t)
	c := b.driver(good, nil).config
	if c.Read != readPoll || c.PollEvery.String() != "2s" || !c.SkipHistory || c.Nodes[1].DeadbandPercent != 2 || c.Nodes[0].ExpectEvery.String() != "10s" {
		t.Errorf("read as %+v", c)
	}
	for _, tt := range []struct{ name, from, to, want string }{
		{"unknown way", "read: poll", "read: push", "subscribe or poll"},
		{"polled too often", "poll_every: 2s", "poll_every: 1ms", "50ms to 1h"},
		{"polled too rarely", "poll_every: 2s", "poll_every: 3h", "50ms to 1h"},
		{"deadband that is no number", "deadband: 0.5", "deadband: .nan", "tag \"a\""},
		{"more than all percent", "deadband_percent: 2", "deadband_percent: 101", "0 to 100"},
		{"two deadbands", "deadband_percent: 2", "deadband_percent: 2, deadband: 1", "exclude each other"},
		{"expected too often", "expect_every: 10s", "expect_every: 10ms", "1s to 168h"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Kind.New(b.env(), decodeYAML(strings.Replace(good, tt.from, tt.to, 1)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("refused with %v, want %q", err, tt.want)
			}
		})
	}
}
