package setup

import (
	"strings"
	"testing"
)

func TestAnswersNameWhatIsMissing(t *testing.T) {
	for text, want := range map[string]string{
		"plant: ulm\nagent: a\n":                                                                               "no source",
		"agent: a\nsources: [{name: x, kind: opcua, address: h}]":                                              "plant and agent",
		"plant: u\nagent: a\nsources: [{name: x, kind: opcua}]":                                                "needs an address",
		"plant: u\nagent: a\nsources: [{name: x, kind: opcua, address: h}, {name: x, kind: mqtt, address: h}]": "named twice",
		"plant: u\nagent: a\nwork_orders: mes\nsources: [{name: x, kind: opcua, address: h}]":                  "not among the sources",
		"plant: u\nagent: a\ncolour: red\nsources: [{name: x, kind: opcua, address: h}]":                       "colour",
	} {
		if _, err := ReadAnswers([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
