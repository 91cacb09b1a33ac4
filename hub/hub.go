package hub

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/console"
	"github.com/linekeeper/linekeeper/hub/desk"
	"github.com/linekeeper/linekeeper/hub/dispatch"
	"github.com/linekeeper/linekeeper/hub/inbox"
	"github.com/linekeeper/linekeeper/hub/ingest"
	"github.com/linekeeper/linekeeper/hub/lookout"
	"github.com/linekeeper/linekeeper/hub/notify"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/trading"
	"github.com/linekeeper/linekeeper/hub/tunnel"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// ErrConfig says that the configuration has faults; the text lists them.
var ErrConfig = errors.New("configuration")

// Options are what the command decides.
type Options struct {
	Version string
	Logger  *slog.Logger
	Kinds   []ConnectorKind
	// Now is the clock for everything that is stored and compared; nil means time.Now. Pauses are timed by the machine's own.
	Now func() time.Time
	// Listen opens the addresses of agents and API; nil means net.Listen.
	Listen func(network, address string) (net.Listener, error)
	// VFS is the name of the SQLite VFS that reaches the store's file; empty means SQLite's own.
	VFS string
}

// Hub is one sync hub. Make it with New, then Run it once.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	store    *store.Store
	ingest   *ingest.Server
	tunnel   *tunnel.Tunnel
	posting  *posting.Engine
	dispatch *dispatch.Dispatcher
	check    *checking.Checker
	desk     *desk.Desk
	notify   *notify.Notifier
	lookout  *lookout.Lookout
	trading  *trading.Trader
	grpc     *grpc.Server
	http     *http.Server
	grpcL    net.Listener
	httpL    net.Listener
}

// New checks the configuration, opens the store and both ports. The caller must Run the hub or Close it. The error wraps
// ErrConfig when the configuration is to blame, and store.ErrLocked when another hub has the store.
func New(ctx context.Context, cfg Config, o Options) (*Hub, error) {
	if faults := cfg.Check(o.Kinds); len(faults) > 0 {
		var list []error
		for _, f := range faults {
			list = append(list, errors.New(f.String()))
		}
		return nil, fmt.Errorf("%w: %w", ErrConfig, errors.Join(list...))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Listen == nil {
		o.Listen = net.Listen
	}
	h := &Hub{cfg: cfg, log: o.Logger, now: o.Now}
	if err := h.open(ctx, o); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *Hub) open(ctx context.Context, o Options) error {
	tlsConfig, err := h.cfg.TLS.load()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(h.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if h.store, err = store.Open(ctx, filepath.Join(h.cfg.DataDir, "hub.db"), store.Options{Now: h.now, VFS: o.VFS}); err != nil {
		return err
	} // Before anybody can connect: an agent that came first would be marked as gone.
	if err := h.store.DisconnectAll(ctx); err != nil {
		return fmt.Errorf("clear the connections of the hub before: %w", err)
	}

	connectors := map[string]connector.Connector{}
	for _, e := range h.cfg.ERPs {
		k, _ := findKind(o.Kinds, e.Kind)
		if connectors[e.Name], err = k.New(e.Name, filepath.Dir(h.cfg.Path), e.Decode); err != nil {
			return fmt.Errorf("%w: ERP %q: %w", ErrConfig, e.Name, err)
		}
	}
	var routes []dispatch.Route
	for _, r := range h.cfg.Routes {
		routes = append(routes, dispatch.Route(r))
	}
	h.dispatch = dispatch.New(dispatch.Options{
		Store: h.store, Connectors: connectors, Routes: routes, Poll: h.cfg.Dispatch.Every, Now: h.now, Logger: o.Logger.With("part", "dispatch"),
	})
	policies, _ := h.cfg.policies()
	compare := h.cfg.Reconcile.policy()
	compare.Of = rules(policies, connectors, compare)
	var judge *reconcile.Policy
	if h.cfg.Reconcile.Every > 0 {
		judge = &compare
	}
	h.posting = posting.New(posting.Options{
		Store: h.store, Connectors: connectors, FetchOrder: h.dispatch.Fetch, Workers: h.cfg.Posting.Workers,
		MayClose: h.mayClose, CloseAfter: h.cfg.Posting.CloseAfter, Now: h.now,
		Policies: policies, Zones: h.cfg.zones(), Judge: judge,
		Logger: o.Logger.With("part", "posting"),
	})
	watches, err := h.cfg.Reconcile.watches(connectors)
	if err != nil {
		return err
	}
	business := h.tradingOptions(connectors)
	business.Logger = o.Logger.With("part", "trading")
	h.trading = trading.New(business)
	h.desk = desk.New(desk.Options{Store: h.store, Books: h.posting, Now: h.now, Logger: o.Logger.With("part", "desk")})
	h.check = checking.New(checking.Options{
		Store: h.store, Connectors: connectors, Books: h.posting, Policy: compare, Every: h.cfg.Reconcile.Every,
		Nightly: cmp.Or(h.cfg.Reconcile.Nightly, 2*time.Hour), Watches: watches, BalancesEvery: h.cfg.Reconcile.BalancesEvery,
		Trade: h.trading, WritesEvery: h.cfg.Reconcile.WritesEvery, WritesWindow: h.cfg.Reconcile.WritesWindow, Now: h.now, Logger: o.Logger.With("part", "reconciliation"),
	})
	h.notify, err = notify.New(notify.Options{
		Store: h.store, Inbox: &inbox.Reader{Store: h.store, Policy: compare, Now: h.now}, Config: h.cfg.Notify, Currency: h.cfg.Reconcile.Currency, Zones: h.cfg.zones(),
		Now: h.now, Logger: o.Logger.With("part", "messages"),
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	h.ingest = ingest.New(ingest.Options{Store: h.store, Directory: &h.cfg, Version: o.Version, Judge: judge, Now: h.now, Logger: o.Logger.With("part", "ingest")})
	h.lookout = lookout.New(lookout.Options{Store: h.store, Known: h.cfg.Known, Heard: h.ingest.Heard, Limits: h.cfg.Alarms.limits(), Zones: h.cfg.zones(), Now: h.now, Logger: o.Logger.With("part", "alarms")})
	h.tunnel = tunnel.New(tunnel.Options{Logger: o.Logger.With("part", "tunnel")})
	h.grpc = grpc.NewServer(append(ingest.ServerOptions(), grpc.Creds(h.tunnel.Credentials(tlsConfig)))...)
	pb.RegisterUplinkServer(h.grpc, h.ingest)

	keys, err := h.cfg.wakeKeys()
	if err != nil {
		return fmt.Errorf("%w: api.wake_secrets: %w", ErrConfig, err)
	}
	handler := api.New(h.store, poster{h.posting}, api.Options{Version: o.Version, Tokens: h.cfg.API.Tokens, Now: h.now, Health: h.erpHealth, Reconciler: reconciler{h.check},
		Trader: trader{h.trading}, Policy: compare, Currency: h.cfg.Reconcile.Currency, Wake: h.wake, ERPs: h.cfg.erpNames(), WakeKeys: keys, Logger: o.Logger.With("part", "API")})
	h.http = &http.Server{
		Handler: h.tunnel.Before(console.New(handler)), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(o.Logger.With("part", "API").Handler(), slog.LevelDebug),
	}
	if h.grpcL, err = o.Listen("tcp", h.cfg.Listen.GRPC); err != nil {
		return fmt.Errorf("open the agents' address %q: %w (choose another in listen.grpc)", h.cfg.Listen.GRPC, err)
	}
	if h.httpL, err = o.Listen("tcp", h.cfg.Listen.HTTP); err != nil {
		return fmt.Errorf("open the API's address %q: %w (choose another in listen.http)", h.cfg.Listen.HTTP, err)
	}
	if h.cfg.TLS.HTTP {
		h.httpL = tls.NewListener(h.httpL, &tls.Config{Certificates: tlsConfig.Certificates, MinVersion: tls.VersionTLS12})
	}
	return nil
}

// wake lets an ERP be asked at once for what changed.
func (h *Hub) wake(erp string) {
	h.dispatch.Wake(erp)
	h.trading.Wake(erp)
}

// load reads the hub's certificate and demands one of the agents' authority from everybody.
func (c TLSConfig) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%w: tls.cert_file: read the hub's certificate and key: %w (make it with `synchub cert init`)", ErrConfig, err)
	}
	raw, err := os.ReadFile(c.AgentsCAFile)
	if err != nil {
		return nil, fmt.Errorf("%w: tls.agents_ca_file: read the agents' authority: %w (make it with `synchub cert init`)", ErrConfig, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%w: tls.agents_ca_file: %q holds no PEM certificate", ErrConfig, c.AgentsCAFile)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}, nil
}

func (h *Hub) erpHealth() map[string]api.ERPHealth {
	out := map[string]api.ERPHealth{}
	for name, x := range h.posting.Health() {
		out[name] = api.ERPHealth(x)
	}
	return out
}

// poster gives the API the engine's errors in the API's words.
type poster struct{ *posting.Engine }

func conflict(err error) error {
	if errors.Is(err, posting.ErrNotParked) || errors.Is(err, posting.ErrNotNow) || errors.Is(err, posting.ErrNotInBooks) || errors.Is(err, posting.ErrNotHeld) {
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return err
}

func (p poster) ReplayFact(ctx context.Context, key, by string) error {
	return conflict(p.Engine.ReplayFact(ctx, key, by))
}

func (p poster) Accept(ctx context.Context, key, document, note, by string) error {
	return conflict(p.Engine.Accept(ctx, key, document, note, by))
}

func (p poster) Approve(ctx context.Context, key, date, note, by string) error {
	return conflict(p.Engine.Approve(ctx, key, date, note, by))
}

func (p poster) PostAgain(ctx context.Context, key, note, by string) error {
	return conflict(p.Engine.PostAgain(ctx, key, note, by))
}

func (p poster) Correct(ctx context.Context, key string, want store.Values, note, by string) error {
	return conflict(p.Engine.Correct(ctx, key, want, note, by))
}

func (p poster) Reverse(ctx context.Context, key, note, by string) error {
	return conflict(p.Engine.Reverse(ctx, key, note, by))
}

// HTTPAddr is the address of API and console.
func (h *Hub) HTTPAddr() string { return h.httpL.Addr().String() }

// GRPCAddr is the address for agents.
func (h *Hub) GRPCAddr() string { return h.grpcL.Addr().String() }

// Handler answers the API's and the console's requests without a network.
func (h *Hub) Handler() http.Handler { return h.http.Handler }

// Close lets go of everything New opened. Run does it by itself.
func (h *Hub) Close() error {
	var errs []error
	for _, l := range []net.Listener{h.grpcL, h.httpL} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	return errors.Join(errs...)
}

// URL is where a browser finds API and console.
func (h *Hub) URL() string {
	if h.cfg.TLS.HTTP {
		return "https://" + h.HTTPAddr()
	}
	return "http://" + h.HTTPAddr()
}

// endHTTP lets requests that are under way be answered, for a short while.
func (h *Hub) endHTTP(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if h.http.Shutdown(ctx) != nil {
		h.http.Close()
	}
}

// Run works until ctx ends or a part fails. Agents are let go first, the store is closed last.
func (h *Hub) Run(ctx context.Context) error {
	defer h.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	part := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	part("store", h.store.Guard)
	part("ingest", h.ingest.Run)
	part("posting", h.posting.Run)
	part("dispatch", h.dispatch.Run)
	part("desk", h.desk.Run)
	part("messages", h.notify.Run)
	part("answers of ERPs", (&answering{store: h.store, names: h.cfg.erpNames(), health: h.posting.Health, log: h.log}).run)
	part("alarms", h.lookout.Run)
	part("trading", h.trading.Run)
	if h.cfg.Reconcile.Every > 0 {
		part("reconciliation", h.check.Run)
	}
	part("agents' port", func(context.Context) error { return h.grpc.Serve(h.grpcL) })
	part("agents' tunnels", func(context.Context) error { return h.grpc.Serve(h.tunnel) })
	plain := h.tunnel.PlainServer()
	part("tunnels at the agents' port", func(context.Context) error { return plain.Serve(h.tunnel.PlainListener()) })
	part("API", func(context.Context) error { return h.http.Serve(h.httpL) })
	h.log.Info("the hub runs", "console", h.URL(), "agents", h.GRPCAddr())
	<-ctx.Done()
	h.endHTTP(context.WithoutCancel(ctx))
	h.tunnel.Close()
	plain.Close()
	h.grpc.Stop() // agents send again what was not acknowledged
	parts.Wait()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	h.log.Info("the hub has stopped")
	return errors.Join(err, h.Close())
}
