package localui

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
)

var zone = time.FixedZone("CET", 3600)

// sample reads a snapshot from testdata.
func sample(t testing.TB, name string) status.Snapshot {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var s status.Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func handler(s status.Snapshot, hosts ...string) http.Handler {
	return New(Deps{Snapshot: func() status.Snapshot { return s }, Hosts: hosts, Zone: zone})
}

func get(t testing.TB, h http.Handler, method, host, target string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, h http.Handler, target string) string {
	t.Helper()
	res := get(t, h, "GET", "localhost:8480", target)
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s: %s", target, res.Status, b)
	}
	return string(b)
}

func TestOnlyTheOwnNamesAreAnswered(t *testing.T) {
	h := handler(sample(t, "ok"), "Panel7.plant.local", "10.1.2.3")
	for host, want := range map[string]int{
		"localhost:8480": 200, "LOCALHOST": 200, "127.0.0.1:8480": 200, "[::1]:8480": 200, "[::1]": 200,
		"panel7.plant.local:8480": 200, "panel7.plant.local.": 200, "10.1.2.3:80": 200,
		"evil.example.com": 403, "localhost.evil.example.com": 403, "127.0.0.1.nip.io:8480": 403, "": 403, "[::2]:8480": 403, "10.1.2.4": 403,
	} {
		for _, target := range []string{"/", "/api/v1/status", "/metrics", "/healthz", "/assets/style.css"} {
			if got := get(t, h, "GET", host, target).StatusCode; got != want {
				t.Errorf("host %q, %s: %d, want %d", host, target, got, want)
			}
		}
	}
}

func TestOnlyReadsAreAnswered(t *testing.T) {
	h := handler(sample(t, "ok"))
	for _, m := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
		for _, target := range []string{"/", "/api/v1/status", "/metrics"} {
			res := get(t, h, m, "localhost", target)
			if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %s", m, target, res.Status)
			}
		}
	}
	if res := get(t, h, "HEAD", "localhost", "/"); res.StatusCode != 200 {
		t.Errorf("HEAD /: %s", res.Status)
	}
	if res := get(t, h, "GET", "localhost", "/nothing"); res.StatusCode != 404 {
		t.Errorf("GET /nothing: %s", res.Status)
	}
	for _, target := range []string{"/assets/../page.html", "/assets/", "/assets/nothing.css", "/assets/%2e%2e/page.html"} {
		if res := get(t, h, "GET", "localhost", target); res.StatusCode == 200 {
			t.Errorf("GET %s is answered", target)
		}
	}
}

func TestNothingForeignIsLoadedAndNothingFramesThePage(t *testing.T) {
	h := handler(sample(t, "degraded"))
	res := get(t, h, "GET", "localhost", "/")
	csp := res.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'self'", "frame-ancestors 'none'", "form-action 'none'"} {
		if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
			t.Errorf("policy is %q, lacks %q", csp, want)
		}
	}
	if res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers are %v", res.Header)
	}
	total := 0
	for _, target := range []string{"/", "/assets/style.css", "/assets/live.js", "/assets/icon.svg"} {
		text := body(t, h, target)
		total += len(text)
		text = strings.ReplaceAll(text, `xmlns="http://www.w3.org/2000/svg"`, "")
		if m := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9][a-z0-9.-]*\.[a-z]+[^\s"']*|url\(|@import`).FindString(text); m != "" && !strings.Contains(m, "10.3.1.12") {
			t.Errorf("%s refers to %q", target, m)
		}
	}
	page := body(t, h, "/")
	// The policy forbids these: a browser would ignore them.
	if m := regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+=|<style|<script>|javascript:`).FindString(page); m != "" {
		t.Errorf("page holds %q, which its own policy forbids", m)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1) {
		body(t, h, m[1]) // every reference is answered here
	}
	if total > 300_000 {
		t.Errorf("first load is %d bytes", total)
	}
}

func TestAssetsMayBeKeptOnlyUnderTheirVersion(t *testing.T) {
	h := handler(sample(t, "ok"))
	ref := regexp.MustCompile(`/assets/style\.css\?v=[0-9a-f]+`).FindString(body(t, h, "/"))
	if cc := get(t, h, "GET", "localhost", ref).Header.Get("Cache-Control"); !strings.Contains(cc, "immutable") {
		t.Errorf("%s: %q", ref, cc)
	}
	if cc := get(t, h, "GET", "localhost", "/assets/style.css?v=old").Header.Get("Cache-Control"); cc != "no-store" {
		t.Errorf("another version may be kept: %q", cc)
	}
}

// text takes the tags from a page.
func text(page string) string {
	page = regexp.MustCompile(`(?s)<svg class="defs.*?</svg>\n|<head>.*?</head>`).ReplaceAllString(page, "")
	page = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, " ")
	page = strings.NewReplacer(narrow, " ", "&#39;", "'", "&#34;", `"`, "’", "'").Replace(page)
	return strings.Join(strings.Fields(page), " ")
}

func TestPageSaysWhatAnOperatorNeedsInTheAgreedOrder(t *testing.T) {
	for name, want := range map[string][]string{
		"ok": {"OK", "since 1 Mar 07:20 (31 h)", "Is my data safe? Yes.", "Dropped 0", "Sources 4", "connected hub.example.com:9443", "started 1004711 1200 pcs A-100 bracket", "posted", "4900012345", "verified", "0000812/00000017", "Nothing. Every input became a fact.", "Ledger", "648 pcs 600 pcs 48"},
		"offline": {"OFFLINE – collecting and storing", "since 12:03:07 (2 h 17 min)", "Proxy asks for login (407).", "What to do: Set user and password", "Whom to call: plant IT, extension 4711",
			"Is my data safe? Yes.", "Waiting for hub 12 431 records on disk", "Oldest of them 2 h 17 min", "317 MiB", "15 % of 2.0 GiB", "Time until full 3 d 4 h", "Dropped 0", "Free disk 41.0 GiB", "Sources", "offline hub.example.com:9443", "next try in 18 s", "proxy_login", "Work orders", "buffered"},
		"losing": {"LOSING DATA", "What to do: Restore the line", "Not all of it.", "Time until full full sources held back", "Dropped 0", "41 822 dropped", "held back press1", "648 pcs 650 pcs -2"},
		"degraded": {"DEGRADED", "(and 3 more)", "Kept aside 2", "failed press2", "1 problem line4", "is not a number", "set decimal_comma: true", "41 min 12 s behind the hub's",
			"rejected 1004720", "tool T-17 is not mounted", "cancelled 1004719", "the shop floor does not know yet", "1 needs a person", "1 in doubt", "rejected 1004711", "in doubt", "at the hub",
			"wrong_type line4", "2026-03-02T13:11:00Z", "unknown_unit mes", `"\x53\x54\x4b\x00"`},
	} {
		t.Run(name, func(t *testing.T) {
			rest := text(body(t, handler(sample(t, name)), "/"))
			for _, w := range want {
				at := strings.Index(rest, w)
				if at < 0 {
					t.Fatalf("lacks %q after what came before it; the rest is:\n%s", w, rest)
				}
				rest = rest[at+len(w):]
			}
		})
	}
}

func TestStateIsNeverToldByColourAlone(t *testing.T) {
	for name, shape := range map[string]string{"ok": "i-ok", "degraded": "i-warn", "offline": "i-off", "losing": "i-bad"} {
		page := body(t, handler(sample(t, name)), "/")
		if !regexp.MustCompile(`(?s)<section class="banner[^>]*>\s*<svg[^>]*><use href="#` + shape + `"/>.*?<h1>[A-Z]`).MatchString(page) {
			t.Errorf("%s: the banner lacks shape %s or its word", name, shape)
		}
		for _, m := range regexp.MustCompile(`<use href="#([a-z-]+)"`).FindAllStringSubmatch(page, -1) {
			if !strings.Contains(page, `<symbol id="`+m[1]+`"`) {
				t.Errorf("%s: shape %s is not drawn", name, m[1])
			}
		}
	}
}

func TestPageWorksWithoutScriptAndWithNothingToShow(t *testing.T) {
	page := body(t, handler(status.Snapshot{}), "/")
	if !strings.Contains(page, `<noscript><meta http-equiv="refresh"`) || !strings.Contains(page, `lang="en"`) {
		t.Error("page does not refresh itself without script, or names no language")
	}
	if !strings.Contains(text(page), "No source is configured.") {
		t.Errorf("page of an empty agent: %s", text(page))
	}
}

func TestForeignTextCannotBecomeMarkup(t *testing.T) {
	s := sample(t, "degraded")
	evil := `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`
	s.Reason, s.Plant, s.Sources[0].Name, s.Sources[0].Reason = evil, evil, evil, evil
	s.Quarantine[0].Payload, s.WorkOrders[0].Item, s.Receipts[0].Document, s.Ledger[0].Item = evil, evil, evil, evil
	h := handler(s)
	if page := body(t, h, "/"); strings.Contains(page, "<script>alert") || strings.Contains(page, "<img") {
		t.Error("text of a source became markup")
	}
	if strings.Contains(body(t, h, "/api/v1/status"), "<script>") {
		t.Error("JSON holds markup that a browser might run")
	}
}

func TestLongListsAreCutAndSaySo(t *testing.T) {
	s := sample(t, "ok")
	for i := range 300 {
		s.Receipts = append(s.Receipts, status.Receipt{Key: fmt.Sprint(i), Outcome: "posted"})
		s.WorkOrders = append(s.WorkOrders, status.Order{OrderNo: fmt.Sprint(i), State: "stored"})
	}
	s.Receipts = append(s.Receipts, status.Receipt{Key: "TROUBLE", Outcome: "in_doubt"})
	s.Quarantined = 7000
	page := text(body(t, handler(s), "/"))
	for _, want := range []string{"256 more are in the data", "253 more are in the data", "7000 more are kept", "TROUBLE"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
}

func TestJSONIsTheSnapshot(t *testing.T) {
	want := sample(t, "degraded")
	res := get(t, handler(want), "GET", "localhost", "/api/v1/status")
	if ct := res.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("content type is %q", ct)
	}
	var got status.Snapshot
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if string(a) != string(b) {
		t.Errorf("got  %s\nwant %s", b, a)
	}
	var empty map[string]any
	if err := json.Unmarshal([]byte(body(t, handler(status.Snapshot{}), "/api/v1/status")), &empty); err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{"sources", "work_orders", "receipts", "quarantine", "ledger"} {
		if _, ok := empty[list].([]any); !ok {
			t.Errorf("%s is %v, want an empty list", list, empty[list])
		}
	}
}

// exposed reads the Prometheus text format and fails on anything that is not.
func exposed(t *testing.T, text string) map[string]string {
	t.Helper()
	out, typed := map[string]string{}, map[string]bool{}
	line := regexp.MustCompile(`^([a-z_][a-z0-9_]*)(\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+\})? (-?[0-9.e+-]+)$`)
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		l := sc.Text()
		if f := strings.Fields(l); strings.HasPrefix(l, "# TYPE ") {
			if typed[f[2]] {
				t.Errorf("%s has two types", f[2])
			}
			typed[f[2]] = true
			continue
		} else if strings.HasPrefix(l, "# HELP ") {
			continue
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Errorf("line %q is not a sample", l)
			continue
		}
		if !typed[m[1]] {
			t.Errorf("%s has no type", m[1])
		}
		if _, err := strconv.ParseFloat(m[3], 64); err != nil {
			t.Errorf("line %q: %v", l, err)
		}
		if _, twice := out[m[1]+m[2]]; twice {
			t.Errorf("%s%s comes twice", m[1], m[2])
		}
		out[m[1]+m[2]] = m[3]
	}
	return out
}

func TestMetricsParseAndSayTheSame(t *testing.T) {
	s := sample(t, "losing")
	s.Sources[3].Name = "odd \"name\"\\ \n"
	got := exposed(t, body(t, handler(s), "/metrics"))
	for name, want := range map[string]string{
		`linekeeper_agent_info{version="1.0.0",plant="ulm",agent="hall1"}`:     "1",
		`linekeeper_agent_state{state="losing"}`:                               "1",
		`linekeeper_agent_state{state="ok"}`:                                   "0",
		`linekeeper_buffer_pending_records{stream="business"}`:                 "6812345",
		`linekeeper_buffer_bytes{stream="business"}`:                           "2147482648",
		`linekeeper_buffer_limit_bytes{stream="business"}`:                     "2147483648",
		`linekeeper_buffer_oldest_age_seconds{stream="business"}`:              "280800",
		`linekeeper_buffer_acked_sequence{stream="business"}`:                  "918231",
		`linekeeper_buffer_dropped_records_total{stream="telemetry"}`:          "41822",
		`linekeeper_buffer_dropped_records_total{stream="business"}`:           "0",
		`linekeeper_buffer_held{stream="business"}`:                            "1",
		`linekeeper_quarantined_records`:                                       "0",
		`linekeeper_uplink_connected`:                                          "0",
		`linekeeper_source_up{source="press1",kind="opcua"}`:                   "0",
		`linekeeper_source_up{source="odd \"name\"\\ \n",kind="mes"}`:          "1",
		`linekeeper_source_signals_total{source="line4",kind="mqtt"}`:          "5512033",
		`linekeeper_source_last_data_time_seconds{source="line4",kind="mqtt"}`: "1772457247",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	exposed(t, body(t, handler(status.Snapshot{}), "/metrics"))
}

func TestHealthIsAnswered(t *testing.T) {
	if got := body(t, handler(sample(t, "losing")), "/healthz"); got != "ok\n" {
		t.Errorf("health is %q", got)
	}
}

func TestColoursAreReadableInLightAndDark(t *testing.T) {
	css, err := files.ReadFile("assets/style.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, found := strings.Cut(string(css), "@media (prefers-color-scheme: dark)")
	if !found {
		t.Fatal("there is no dark set of colours")
	}
	for name, block := range map[string]string{"light": light, "dark": dark[:strings.Index(dark, "\n}\n")]} {
		c := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6})`).FindAllStringSubmatch(block, -1) {
			c[m[1]] = m[2]
		}
		pairs := [][2]string{{"bad-ink", "bad-bg"}, {"ink", "ok-bg"}, {"ink", "warn-bg"}, {"ink", "off-bg"}, {"ok", "ok-bg"}, {"warn", "warn-bg"}, {"off", "off-bg"}}
		for _, ink := range []string{"ink", "dim", "ok", "busy", "warn", "off", "bad", "idle"} {
			pairs = append(pairs, [2]string{ink, "bg"}, [2]string{ink, "card"})
		}
		for _, p := range pairs {
			if r := contrast(t, c[p[0]], c[p[1]]); r < 4.5 {
				t.Errorf("%s: %s on %s has contrast %.2f, want 4.5", name, p[0], p[1], r)
			}
		}
	}
}

// contrast is the ratio that WCAG 2 defines.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	lum := func(hex string) float64 {
		n, err := strconv.ParseUint(strings.TrimPrefix(hex, "#"), 16, 32)
		if err != nil {
			t.Fatalf("colour %q: %v", hex, err)
		}
		part := func(shift uint) float64 {
			v := float64(n>>shift&255) / 255
			if v <= 0.04045 {
				return v / 12.92
			}
			return math.Pow((v+0.055)/1.055, 2.4)
		}
		return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0)
	}
	x, y := lum(a), lum(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func TestNumbersAndSpansReadLikeAPersonWritesThem(t *testing.T) {
	for got, want := range map[string]string{
		count(uint64(0)): "0", count(int64(999)): "999", count(int64(1234567)): "1 234 567", count(int64(-1234)): "-1 234",
		size(612): "612 B", size(1536): "1.5 KiB", size(2 << 30): "2.0 GiB", size(300 << 20): "300 MiB",
		span(5 * time.Second): "5 s", span(65 * time.Second): "1 min 5 s", span(2*time.Hour + 17*time.Minute): "2 h 17 min",
		span(31 * time.Hour): "31 h", span(76 * time.Hour): "3 d 4 h",
		remainder("648", "600.50"): "47.5", remainder("0.1", "0.1"): "0", remainder("", ""): "0", remainder("x", "1"): "",
		skewWords("-41m12s"): "41 min 12 s behind the hub’s", skewWords("odd"): "odd",
	} {
		if got = strings.ReplaceAll(got, narrow, " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
