package localui

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Admin lets those in who may change something at this computer: whoever can read the token's file. Commands send the token with
// each request; a browser gets a session for it that ends after eight hours or with the agent.
type Admin struct {
	token [sha256.Size]byte
	now   func() time.Time

	mu       sync.Mutex
	sessions map[[sha256.Size]byte]time.Time // their ends, by the hash of the cookie
	failures int                             // in a row
	shut     time.Time                       // until then nobody gets in: somebody guesses
}

const (
	adminCookie  = "linekeeper_admin"
	adminSession = 8 * time.Hour
)

// TokenFile is where the token lies in an agent's data folder.
func TokenFile(dataDir string) string { return filepath.Join(dataDir, "admin.token") }

// NewAdmin reads the token from its file, and makes both where there is none. Only the agent's own account can read the file.
func NewAdmin(file string, now func() time.Time) (*Admin, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		raw = []byte(rand.Text() + "\n")
		err = os.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if len(token) < 16 {
		return nil, fmt.Errorf("admin token in %s is too short: delete the file, the agent makes a new one at its next start", file)
	}
	return &Admin{token: sha256.Sum256([]byte(token)), now: now, sessions: map[[sha256.Size]byte]time.Time{}}, nil
}

// Require lets only admins through to next, and changes (anything but GET and HEAD) only from the page itself or with the token.
// Browsers without a session are led to the login page.
func (a *Admin) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			if !a.right(token) {
				http.Error(w, "the admin token is wrong: `plantagent token` prints it", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		if !a.session(r) {
			if strings.HasPrefix(r.URL.Path, "/api/") {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "the admin token is needed: send it as Authorization: Bearer; `plantagent token` prints it", http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, "/login?to="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !sameOrigin(r) {
			http.Error(w, "this came from another page", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// sameOrigin says that a browser sent a form of this very page.
func sameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	u, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && u.Host == r.Host
}

// right compares a token, slowly when somebody guesses.
func (a *Admin) right(token string) bool {
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if now.Before(a.shut) {
		return false
	}
	if subtle.ConstantTimeCompare(sum[:], a.token[:]) == 1 {
		a.failures = 0
		return true
	}
	if a.failures++; a.failures >= 5 {
		a.shut = now.Add(time.Minute)
	}
	return false
}

func (a *Admin) session(r *http.Request) bool {
	c, err := r.Cookie(adminCookie)
	if err != nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	end, ok := a.sessions[sha256.Sum256([]byte(c.Value))]
	return ok && a.now().Before(end)
}

// login makes a session for whoever knows the token. The cookie goes to this page only, never along with a link from elsewhere.
func (a *Admin) login(w http.ResponseWriter, token string) bool {
	if !a.right(token) {
		return false
	}
	value := rand.Text()
	now := a.now()
	a.mu.Lock()
	for k, end := range a.sessions {
		if now.After(end) {
			delete(a.sessions, k)
		}
	}
	a.sessions[sha256.Sum256([]byte(value))] = now.Add(adminSession)
	a.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: adminCookie, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(adminSession / time.Second)})
	return true
}
