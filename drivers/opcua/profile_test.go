package opcua

import (
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestServersAreKnownByWhatTheySayOfThemselves(t *testing.T) {
	for _, tt := range []struct {
		build ua.BuildInfo
		want  string
	}{
		{ua.BuildInfo{ManufacturerName: "Siemens AG", ProductName: "SIMATIC.S7-1500.OPC-UA.Application:PLC_1", ProductURI: "https://www.siemens.com/s7-1500"}, "Siemens S7-1500"},
		{ua.BuildInfo{ManufacturerName: "Siemens AG", ProductName: "S7-1200", ProductURI: "https://www.siemens.com/s7-1200"}, "Siemens S7-1200"},
		{ua.BuildInfo{ManufacturerName: "Siemens AG", ProductURI: "https://www.siemens.com/s7-1200"}, "Siemens S7-1200"},
		{ua.BuildInfo{ManufacturerName: "Siemens AG", ProductName: "WinCC"}, "generic"},
		{ua.BuildInfo{ManufacturerName: "SOMEBODY", ProductName: "Gateway 1500"}, "generic"},
		{ua.BuildInfo{ManufacturerName: "Kepware", ProductName: "KEPServerEX"}, "KEPServerEX"},
		{ua.BuildInfo{ManufacturerName: "PTC Inc.", ProductName: "ThingWorx Kepware Server"}, "KEPServerEX"},
		{ua.BuildInfo{ManufacturerName: "", ProductName: "KEPServerEX/UA Server Driver"}, "KEPServerEX"},
		{ua.BuildInfo{ManufacturerName: "Captcha Ltd", ProductName: "Server"}, "generic"},
		{ua.BuildInfo{ManufacturerName: "Inductive Automation", ProductName: "Ignition OPC UA Server"}, "Ignition"},
		{ua.BuildInfo{ManufacturerName: "Node-OPCUA : MIT Licence", ProductName: "plant"}, "generic"},
		{ua.BuildInfo{}, "generic"},
	} {
		if got := profileOf(tt.build); got.name != tt.want {
			t.Errorf("%+v is taken for %q, want %q", tt.build, got.name, tt.want)
		}
	}
}

func TestEveryProfileCanBeWorkedWith(t *testing.T) {
	for _, p := range append(profiles, struct {
		maker, product string
		profile
	}{profile: generic}) {
		if p.name == "" || p.itemsPerCall < 1 || p.readsPerCall < 1 || p.browsesPerCall < 1 || p.sampling > time.Second || p.publishing > time.Second {
			t.Errorf("profile %+v", p)
		}
	}
}

func TestTheSmallerLimitCounts(t *testing.T) {
	for _, tt := range []struct {
		known int
		named uint32
		want  int
	}{{100, 0, 100}, {100, 50, 50}, {100, 4_000_000_000, 100}, {0, 50, 50}, {0, 0, 0}} {
		if got := limit(tt.known, tt.named); got != tt.want {
			t.Errorf("limit(%d, %d) = %d", tt.known, tt.named, got)
		}
	}
}
