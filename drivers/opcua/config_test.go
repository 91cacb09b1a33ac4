package opcua

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"
)

func load(t *testing.T, text string) (*driver, error) {
	t.Helper()
	b := newBench(t)
	d, err := Kind.New(b.env(), decodeYAML(text))
	if err != nil {
		return nil, err
	}
	return d.(*driver), nil
}

func TestTheSampleIsAWorkingConfiguration(t *testing.T) {
	d, err := load(t, Kind.Sample)
	if err != nil {
		t.Fatal(err)
	}
	c := d.config
	if c.SecurityPolicy != "Basic256Sha256" || c.SecurityMode != "SignAndEncrypt" || c.ApplicationURI != "urn:linekeeper:hamburg:line1" ||
		c.PublishingInterval != 250*time.Millisecond || c.KeepAlive != 2*time.Second || c.Lifetime != 10*time.Minute ||
		c.SessionTimeout != 10*time.Minute {
		t.Errorf("the defaults are %+v", c)
	}
	if n := c.Nodes[0]; *n.Sampling != 100*time.Millisecond || n.Queue != 1000 {
		t.Errorf("the defaults of a node are %s and %d", *n.Sampling, n.Queue)
	}
	// What the comments show must work as well, but for the lines that exclude others.
	var all []string
	for _, line := range strings.Split(Kind.Sample, "\n") {
		text := strings.TrimLeft(line, " ")
		key, _, found := strings.Cut(strings.TrimPrefix(text, "# "), ":")
		if strings.HasPrefix(text, "# ") && found && !strings.Contains(key, " ") && key != "anonymous" && key != "certificate" && key != "key" && key != "token_file" && key != "deadband_percent" {
			line = strings.Replace(line, "# ", "", 1)
		}
		all = append(all, line)
	}
	if _, err := load(t, strings.Join(all, "\n")); err != nil {
		t.Errorf("the sample with all its comments: %v", err)
	}
}

func TestMistakesAreNamedWithTheNextStep(t *testing.T) {
	const good = `
endpoint: opc.tcp://host:4840
user: {name: u, password_file: p}
nodes: [{tag: a, node: "ns=2;s=A"}]
`
	for _, also := range []string{good, good + "security_policy: Basic256\nallow_deprecated: true\n", good + "certificate: a\nkey: b\n",
		strings.Replace(good, "node: \"ns=2;s=A\"", "path: Objects/2:A", 1)} {
		if _, err := load(t, also); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ name, from, to, want string }{
		{"unknown key", "user:", "speed: 3\nuser:", "speed"},
		{"other protocol", "opc.tcp", "http", "opc.tcp://host:4840"},
		{"no user", "user: {name: u, password_file: p}", "", "anonymous: true"},
		{"user and anonymous", "user:", "anonymous: true\nuser:", "remove one"},
		{"name and certificate", "name: u,", "name: u, certificate: c, key: k,", "remove one"},
		{"no password", ", password_file: p", "", "password_file"},
		{"certificate without key", "{name: u, password_file: p}", "{certificate: c}", "certificate and key"},
		{"unknown policy", "user:", "security_policy: Basic256\nuser:", "Basic256Sha256"},
		{"elliptic curves", "user:", "security_policy: ECC_nistP256\nuser:", "elliptic curves"},
		{"deprecated policy", "user:", "security_policy: Basic128Rsa15\nuser:", "allow_deprecated: true"},
		{"own certificate without key", "user:", "certificate: own.pem\nuser:", "belong together"},
		{"neither node nor path", "node: \"ns=2;s=A\"", "queue: 7", "browse path"},
		{"bad path", "node: \"ns=2;s=A\"", "path: \"<urn:a\"", "namespace"},
		{"unknown mode", "user:", "security_mode: Encrypt\nuser:", "SignAndEncrypt"},
		{"token and name", "password_file: p}", "password_file: p, token_file: t}", "remove one"},
		{"token without encryption", "user: {name: u, password_file: p}", "user: {token_file: t}\nsecurity_policy: None", "allow_insecure_password"},
		{"password without encryption", "user:", "security_policy: None\nuser:", "allow_insecure_password"},
		{"mode without policy", "user: {name: u, password_file: p}", "anonymous: true\nsecurity_policy: None\nsecurity_mode: Sign", "leave it out"},
		{"tag twice", "nodes: [", "nodes: [{tag: a, node: \"ns=2;s=B\"}, ", "used twice"},
		{"no nodes", "[{tag: a, node: \"ns=2;s=A\"}]", "[]", "at least one"},
		{"no tag", "tag: a, ", "", "no tag"},
		{"bad node", "ns=2;s=A", "Press.Good", "ns=2;s=Press1.Good"},
		{"bad number", "ns=2;s=A", "ns=2;i=A", "i=A"},
		{"short lifetime", "user:", "lifetime: 12s\nkeep_alive: 5s\nuser:", "three times"},
		{"mad keep alive", "user:", "keep_alive: 1ms\nuser:", "out of range"},
		{"negative sampling", "node: \"ns=2;s=A\"", "node: \"ns=2;s=A\", sampling: -1s", "0s to 1h"},
		{"negative deadband", "node: \"ns=2;s=A\"", "node: \"ns=2;s=A\", deadband: -1", "deadband"},
		{"unknown tolerance", "user:", "tolerate: [all]\nuser:", "expired"},
		{"no URI", "user:", "application_uri: agent\nuser:", "urn:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(good, tt.from, tt.to, 1)
			if text == good {
				t.Fatalf("%q is not in the configuration", tt.from)
			}
			_, err := load(t, text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestNoneWorksWhenWrittenOut(t *testing.T) {
	for _, user := range []string{"anonymous: true", "user: {name: u, password_file: p}\nallow_insecure_password: true"} {
		if _, err := load(t, "endpoint: opc.tcp://h:1\nsecurity_policy: None\n"+user+"\nnodes: [{tag: a, node: i=2258}]"); err != nil {
			t.Error(err)
		}
	}
}

func TestNodeNamesKeepTheirMeaningWhenTheServersTableChanges(t *testing.T) {
	before := []string{"http://opcfoundation.org/UA/", "urn:server", "urn:maker", "urn:a;b%"}
	later := []string{"http://opcfoundation.org/UA/", "urn:server", "urn:new", "urn:maker"}
	for _, tt := range []struct{ text, before, later string }{
		{"ns=2;s=Press1;Good=1", "ns=2;s=Press1;Good=1", "ns=3;s=Press1;Good=1"},
		{"nsu=urn:maker;i=77", "ns=2;i=77", "ns=3;i=77"},
		{"i=2258", "i=2258", "i=2258"},
		{"ns=9;s=A", "ns=9;s=A", "ns=9;s=A"},
		{"ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63", "ns=1;g=72962B91-FA75-4AE6-8D28-B404DC7DAF63", "ns=1;g=72962B91-FA75-4AE6-8D28-B404DC7DAF63"},
		{"nsu=urn:a%3Bb%25;s=A", "ns=3;s=A", ""},
	} {
		n, err := parseNode(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		n = n.pinned(before)
		got := [2]string{}
		for i, table := range [][]string{before, later} {
			if id, err := n.resolve(table); err == nil {
				got[i] = id.String()
			}
		}
		if d := cmp.Diff([2]string{tt.before, tt.later}, got); d != "" {
			t.Errorf("%s: %s", tt.text, d)
		}
	}
}

func endpoint(url, policy string, mode ua.MessageSecurityMode, tokens ...*ua.UserTokenPolicy) *ua.EndpointDescription {
	return &ua.EndpointDescription{EndpointURL: url, SecurityPolicyURI: ua.FormatSecurityPolicyURI(policy), SecurityMode: mode,
		TransportProfileURI: uaTCP, UserIdentityTokens: tokens}
}

func TestTheEndpointOfOurOwnAddressComesFirst(t *testing.T) {
	const both = ua.MessageSecurityModeSignAndEncrypt
	all := []*ua.EndpointDescription{
		endpoint("opc.tcp://inside:4840/plant", "Basic256Sha256", both),
		endpoint("opc.tcp://gate:4840/plant", "None", ua.MessageSecurityModeNone),
		endpoint("opc.tcp://gate:4840/plant", "Basic256Sha256", ua.MessageSecurityModeSign),
		endpoint("opc.tcp://Gate:4840/plant/", "Basic256Sha256", both),
	}
	c := &Config{Endpoint: "opc.tcp://gate:4840/plant", SecurityPolicy: "Basic256Sha256", SecurityMode: "SignAndEncrypt"}
	got, err := chooseEndpoints(all, c)
	if err != nil || len(got) != 2 || got[0] != all[3] || got[1] != all[0] {
		t.Errorf("chosen: %v %v", got, err)
	}
	c.SecurityPolicy = "Aes256_Sha256_RsaPss"
	if _, err := chooseEndpoints(all, c); err == nil || !strings.Contains(err.Error(), "Basic256Sha256/SignAndEncrypt, None/None, Basic256Sha256/Sign") {
		t.Errorf("error is %v, want it to name what is offered", err)
	}
}

func TestAPasswordIsNeverSentWhereItCouldBeRead(t *testing.T) {
	plainToken := &ua.UserTokenPolicy{PolicyID: "plain", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: ua.SecurityPolicyURINone}
	safeToken := &ua.UserTokenPolicy{PolicyID: "safe", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: ua.SecurityPolicyURIBasic256Sha256}
	oldToken := &ua.UserTokenPolicy{PolicyID: "old", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: ua.SecurityPolicyURIBasic128Rsa15}
	nobodyToken := &ua.UserTokenPolicy{PolicyID: "nobody", TokenType: ua.UserTokenTypeAnonymous}
	for _, tt := range []struct {
		name     string
		mode     ua.MessageSecurityMode
		tokens   []*ua.UserTokenPolicy
		insecure bool
		want     string
	}{
		{"the encrypted way is preferred", ua.MessageSecurityModeSign, []*ua.UserTokenPolicy{plainToken, safeToken, nobodyToken}, false, "safe"},
		{"plain inside an encrypted channel", ua.MessageSecurityModeSignAndEncrypt, []*ua.UserTokenPolicy{plainToken}, false, "plain"},
		{"plain in a signed channel", ua.MessageSecurityModeSign, []*ua.UserTokenPolicy{plainToken}, false, ""},
		{"plain in a signed channel when allowed", ua.MessageSecurityModeSign, []*ua.UserTokenPolicy{plainToken}, true, "plain"},
		{"an outdated way", ua.MessageSecurityModeSignAndEncrypt, []*ua.UserTokenPolicy{oldToken}, false, ""},
		{"only anonymous", ua.MessageSecurityModeSignAndEncrypt, []*ua.UserTokenPolicy{nobodyToken}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &reader{config: Config{User: &User{Name: "u", PasswordFile: "p"}, AllowInsecurePassword: tt.insecure}}
			got, err := r.chooseToken(endpoint("opc.tcp://h:1", "Basic256Sha256", tt.mode, tt.tokens...))
			id := ""
			if got != nil {
				id = got.PolicyID
			}
			if id != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("chosen %q, %v, want %q", id, err, tt.want)
			}
		})
	}
}
