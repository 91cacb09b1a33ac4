package realparts

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TrytonServer is a real ERP, Tryton 6.0 on a PostgreSQL of its own, with a small company in it: items RM-STEEL (kg), RM-SCREW
// (u) and FG-GEAR (u, with a bill of material and a routing), RM-ALLOY (kg) and FG-SHAFT (u) of which every piece has a lot,
// warehouse WH, a scrap location SCRAP, ample stock (of RM-ALLOY in lot HEAT-1), supplier SUP-1, customer CUST-1, a chart of
// accounts, and User, the account of an integration that has the rights it needs and no others. The embedded Process is trytond: Kill and Run it.
//
// The first start on a machine takes a minute or two, because Tryton builds its database then; the result is kept as a
// dump in the user's cache folder (or $LINEKEEPER_CACHE), and later starts take seconds.
type TrytonServer struct {
	*Process
	// URL is the JSON-RPC address of the database, with a slash at its end.
	URL string
	// User and Password are the integration's account; Admin may do everything.
	User, Password       string
	Admin, AdminPassword string
	// IDs are record ids of the seed by name: steel, screw, gear, unit, kg, warehouse, storage, scrap, user, ...
	IDs map[string]int
	// DB is the PostgreSQL under it, DSN the ERP's database there: the truth, past the ERP's own code.
	DB  *Database
	DSN string

	folder string
	admin  *trytonClient
}

const (
	trytonDatabase = "erp"
	trytonSeed     = "erp_seed"
	trytonBackup   = "erp_backup"
	trytonAdmin    = "lk-Admin-7310"
	trytonUser     = "lk-User-4826"
)

// Tryton starts Tryton with its seed.
func Tryton(t testing.TB) *TrytonServer {
	t.Helper()
	server := Need(t, "trytond", "tryton-server")
	port := FreePort(t)
	e := &TrytonServer{
		URL:  fmt.Sprintf("http://127.0.0.1:%d/%s/", port, trytonDatabase),
		User: "linekeeper", Password: trytonUser, Admin: "admin", AdminPassword: trytonAdmin,
		folder: t.TempDir(),
		DB:     Postgres(t),
	}
	e.DSN = e.DB.DSN(trytonDatabase)
	config := e.writeConfig(t, port)
	logging := WriteFile(t, filepath.Join(e.folder, "logging.conf"), trytonLogging)
	e.Process = &Process{
		Name:     "trytond",
		Patience: 2 * time.Minute,
		Command: func() *exec.Cmd {
			cmd := exec.Command(server, "-c", config, "-d", trytonDatabase, "--logconf", logging)
			cmd.Dir = e.folder
			cmd.Env = append(os.Environ(), "TZ=UTC") // it compares its own clock with the database's, without zones
			return cmd
		},
		Ready: func() error { return trytonReady(port) },
	}
	e.provideSeed(t, config)
	e.put(t, trytonDatabase, trytonSeed)
	e.Start(t)
	return e
}

// Reset puts the seeded state back and starts trytond again.
func (e *TrytonServer) Reset(t testing.TB) {
	t.Helper()
	e.stopped(t, func() { e.put(t, trytonDatabase, trytonSeed) })
}

// Backup copies the books; trytond is started again for it.
func (e *TrytonServer) Backup(t testing.TB) {
	t.Helper()
	e.stopped(t, func() { e.put(t, trytonBackup, trytonDatabase) })
}

// Restore puts the books back to the last Backup.
func (e *TrytonServer) Restore(t testing.TB) {
	t.Helper()
	e.stopped(t, func() { e.put(t, trytonDatabase, trytonBackup) })
}

// stopped does something while trytond is down.
func (e *TrytonServer) stopped(t testing.TB, do func()) {
	t.Helper()
	e.Kill(syscall.SIGKILL)
	do()
	e.admin = nil
	if err := e.Run(); err != nil {
		t.Fatalf("start trytond again: %v\n%s", err, e.Output())
	}
}

// put makes a database anew as a copy of another; both are closed to others meanwhile.
func (e *TrytonServer) put(t testing.TB, name, from string) {
	t.Helper()
	execute(t, "pgx", e.DB.DSN("postgres"), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
	execute(t, "pgx", e.DB.DSN("postgres"), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+from+"'")
	execute(t, "pgx", e.DB.DSN("postgres"), "CREATE DATABASE "+name+" TEMPLATE "+from)
}

func (e *TrytonServer) writeConfig(t testing.TB, port int) string {
	t.Helper()
	uri := fmt.Sprintf("postgresql://%s:%s@127.0.0.1:%d/", e.DB.User, e.DB.Password, e.DB.Port)
	return WriteFile(t, filepath.Join(e.folder, "trytond.conf"), fmt.Sprintf(
		"[web]\nlisten = 127.0.0.1:%d\nroot =\n[database]\nuri = %s\npath = %s\n", port, uri, e.folder))
}

// trytonLogging leaves out a line for each request, which would hide what went wrong.
const trytonLogging = `[loggers]
keys=root
[handlers]
keys=stderr
[formatters]
keys=line
[logger_root]
level=WARNING
handlers=stderr
[handler_stderr]
class=StreamHandler
args=(sys.stderr,)
formatter=line
[formatter_line]
format=%(asctime)s %(levelname)s %(name)s %(message)s
`

// trytonReady asks for the server's version, which needs no account.
func trytonReady(port int) error {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Post(fmt.Sprintf("http://127.0.0.1:%d/", port), "application/json",
		strings.NewReader(`{"id":0,"method":"common.server.version","params":[]}`))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("trytond answers %s", resp.Status)
	}
	return nil
}

// provideSeed leaves the seeded database in the cluster under trytonSeed: from the cache, or built and then cached. Only one
// process of the machine builds; the others wait for it.
func (e *TrytonServer) provideSeed(t testing.TB, config string) {
	t.Helper()
	folder := cacheFolder(t)
	lock, err := os.OpenFile(filepath.Join(folder, "tryton.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatalf("lock the cache folder: %v", err)
	}
	defer lock.Close() // which also gives the lock back
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("lock %q: %v", lock.Name(), err)
	}
	dump := filepath.Join(folder, "tryton-"+trytonKey(t)+".dump")
	if e.restoreSeed(t, dump) {
		return
	}
	t.Logf("building Tryton's database; later starts take %q", dump)
	e.buildSeed(t, config)
	e.saveSeed(t, dump)
}

// trytonKey names what a dump depends on: the packages, the way it is seeded, and the year of its dates.
func trytonKey(t testing.TB) string {
	t.Helper()
	versions, err := exec.Command("dpkg-query", "-W", "-f", "${Package} ${Version}\n", "tryton-*").Output()
	if err != nil {
		t.Fatalf("ask for the versions of Tryton's packages: %v", err)
	}
	h := sha256.New()
	h.Write(versions)
	source, err := os.ReadFile(filepath.Join(Root(), "buildscripts", "realparts", "tryton_seed.go"))
	if err != nil {
		t.Fatalf("read the seed's source: %v", err)
	}
	h.Write(source)
	fmt.Fprint(h, time.Now().UTC().Year())
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

func cacheFolder(t testing.TB) string {
	t.Helper()
	folder := os.Getenv("LINEKEEPER_CACHE")
	if folder == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("find a cache folder: %v; set LINEKEEPER_CACHE to one", err)
		}
		folder = filepath.Join(user, "linekeeper")
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatalf("make the cache folder: %v", err)
	}
	return folder
}

// restoreSeed reports whether there was a dump.
func (e *TrytonServer) restoreSeed(t testing.TB, dump string) bool {
	t.Helper()
	ids, err := os.ReadFile(dump + ".json")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatalf("read the seed's record ids: %v", err)
	}
	if err := json.Unmarshal(ids, &e.IDs); err != nil {
		t.Fatalf("read the seed's record ids from %q: %v", dump+".json", err)
	}
	execute(t, "pgx", e.DB.DSN("postgres"), "CREATE DATABASE "+trytonSeed+" TEMPLATE template0 ENCODING 'UTF8'")
	e.run(t, e.postgresTool(t, "pg_restore", "--no-owner", "-j", "2", "-d", e.DB.DSN(trytonSeed), dump))
	execute(t, "pgx", e.DB.DSN(trytonSeed), "ANALYZE")
	return true
}

func (e *TrytonServer) saveSeed(t testing.TB, dump string) {
	t.Helper()
	e.run(t, e.postgresTool(t, "pg_dump", "--no-owner", "-Fc", "-f", dump+".new", e.DB.DSN(trytonSeed)))
	if err := os.Rename(dump+".new", dump); err != nil {
		t.Fatalf("keep the seeded database: %v", err)
	}
	ids, err := json.Marshal(e.IDs)
	if err != nil {
		t.Fatalf("write the seed's record ids: %v", err)
	}
	WriteFile(t, dump+".json", string(ids)) // last: it says that the dump is whole
}

func (e *TrytonServer) postgresTool(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	return exec.Command(Need(t, program, "postgresql", "/usr/lib/postgresql/*/bin"), args...)
}

func (e *TrytonServer) run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("run %s: %v\n%s", filepath.Base(cmd.Path), err, out)
	}
}

// Call calls a method of a model as a person with all rights would, and returns the result.
func (e *TrytonServer) Call(t testing.TB, model, method string, args ...any) json.RawMessage {
	t.Helper()
	result, err := e.TryCall(model, method, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return result
}

// TryCall is Call for what may go wrong.
func (e *TrytonServer) TryCall(model, method string, args ...any) (json.RawMessage, error) {
	if e.admin == nil {
		c := &trytonClient{url: e.URL}
		if err := c.login(e.Admin, e.AdminPassword); err != nil {
			return nil, err
		}
		e.admin = c
	}
	return e.admin.call(model, method, args...)
}

// Forget drops the session that Call uses, for tests that end all sessions.
func (e *TrytonServer) Forget() { e.admin = nil }

// TrytonOrder describes a production order for CreateProductionOrder.
type TrytonOrder struct {
	// Item is the code of the item to make: one with a bill of material.
	Item string
	// Quantity is a decimal in the item's own unit.
	Quantity string
	// Reference is the planner's text; may be empty.
	Reference string
	// Draft leaves the order in the state draft; otherwise it is released (state waiting).
	Draft bool
	// Routed gives the order the routing of FG-GEAR, so that it has works.
	Routed bool
}

// CreateProductionOrder makes an order with the inputs and outputs of the item's bill of material, on work centre Line 1,
// and returns its number.
func (e *TrytonServer) CreateProductionOrder(t testing.TB, o TrytonOrder) string {
	t.Helper()
	product := e.id(t, "product.product", []any{"code", "=", o.Item})
	today := time.Now().UTC()
	values := map[string]any{
		"product": product, "bom": e.IDs["bom_"+o.Item], "uom": e.IDs["unit"], "quantity": json.Number(o.Quantity),
		"warehouse": e.IDs["warehouse"], "location": e.IDs["production"], "company": e.IDs["company"],
		"reference": o.Reference, "work_center": e.IDs["line"],
		"planned_start_date": trytonDate(today), "planned_date": trytonDate(today.AddDate(0, 0, 1)),
	}
	if o.Routed {
		values["routing"] = e.IDs["routing"]
	}
	e.explode(t, values)
	var made []int
	decodeTryton(t, e.Call(t, "production", "create", []any{values}), &made)
	if !o.Draft {
		e.Call(t, "production", "wait", made)
	}
	var read []struct{ Number string }
	decodeTryton(t, e.Call(t, "production", "read", made, []string{"number"}), &read)
	return read[0].Number
}

// explode fills in the moves of the bill of material, as Tryton's own client lets the server work them out.
func (e *TrytonServer) explode(t testing.TB, values map[string]any) {
	t.Helper()
	form := map[string]any{"id": -1, "inputs": []any{}, "outputs": []any{}}
	for k, v := range values {
		form[k] = v
	}
	var changes []map[string]json.RawMessage
	decodeTryton(t, e.Call(t, "production", "on_change", form, []string{"bom"}), &changes)
	for _, side := range []string{"inputs", "outputs"} {
		var x struct{ Add [][2]json.RawMessage }
		decodeTryton(t, changes[0][side], &x)
		var rows []any
		for _, add := range x.Add {
			var row map[string]any
			decodeTryton(t, add[1], &row)
			for k := range row {
				if strings.HasSuffix(k, ".") || k == "id" || k == "unit_price_required" {
					delete(row, k)
				}
			}
			rows = append(rows, row)
		}
		values[side] = []any{[]any{"create", rows}}
	}
}

// ChangeQuantity changes the quantity of a released order as a planner does: back to draft, new quantity, released again.
func (e *TrytonServer) ChangeQuantity(t testing.TB, number, quantity string) {
	t.Helper()
	id := e.OrderID(t, number)
	e.Call(t, "production", "draft", []int{id})
	var read []map[string]json.RawMessage
	decodeTryton(t, e.Call(t, "production", "read", []int{id},
		[]string{"product", "bom", "uom", "warehouse", "location", "company", "inputs", "outputs"}), &read)
	values := map[string]any{"quantity": json.Number(quantity)}
	for _, k := range []string{"product", "bom", "uom", "warehouse", "location", "company"} {
		values[k] = read[0][k]
	}
	e.explode(t, values)
	for _, side := range []string{"inputs", "outputs"} {
		var old []int
		decodeTryton(t, read[0][side], &old)
		values[side] = append([]any{[]any{"delete", old}}, values[side].([]any)...)
	}
	e.Call(t, "production", "write", []int{id}, values)
	e.Call(t, "production", "wait", []int{id})
}

// CancelOrder cancels a production order as a planner does.
func (e *TrytonServer) CancelOrder(t testing.TB, number string) {
	t.Helper()
	e.Call(t, "production", "cancel", []int{e.OrderID(t, number)})
}

// OrderID returns the record id of a production order.
func (e *TrytonServer) OrderID(t testing.TB, number string) int {
	t.Helper()
	return e.id(t, "production", []any{"number", "=", number})
}

func (e *TrytonServer) id(t testing.TB, model string, domain ...any) int {
	t.Helper()
	var found []int
	decodeTryton(t, e.Call(t, model, "search", domain, 0, 2, nil), &found)
	if len(found) != 1 {
		t.Fatalf("Tryton has %d records %s with %v, want one", len(found), model, domain)
	}
	return found[0]
}

// TrytonEffects is what Tryton's database holds for an order and an item: sums over done moves, as decimal text in the
// item's own unit, and how many moves there are.
type TrytonEffects struct {
	Yield, Scrap     string // moved from production to storage, and to a scrap location
	Issued, Returned string // material moved to production, and back
	Done, Open       int    // moves that are done; moves still draft or assigned
	Loose            int    // those of the open ones that the integration's account made, not a planner
}

// Effects reads straight from PostgreSQL, past the ERP's own code.
func (e *TrytonServer) Effects(t testing.TB, order, item string) TrytonEffects {
	t.Helper()
	db := e.open(t)
	defer db.Close()
	var x TrytonEffects
	err := db.QueryRow(`
		SELECT trim_scale(coalesce(sum(m.quantity::numeric) FILTER (WHERE done AND outward AND made AND dest = 'storage'), 0))::text,
		       trim_scale(coalesce(sum(m.quantity::numeric) FILTER (WHERE done AND outward AND dest = 'lost_found'), 0))::text,
		       trim_scale(coalesce(sum(m.quantity::numeric) FILTER (WHERE done AND NOT outward), 0))::text,
		       trim_scale(coalesce(sum(m.quantity::numeric) FILTER (WHERE done AND outward AND NOT made AND dest = 'storage'), 0))::text,
		       count(*) FILTER (WHERE done),
		       count(*) FILTER (WHERE open), count(*) FILTER (WHERE open AND m.login = $3)
		FROM (SELECT m.internal_quantity AS quantity, m.state = 'done' AS done,
		             m.state IN ('draft', 'assigned') AS open, u.login, m.production_output IS NOT NULL AS outward,
		             o.product = m.product AS made, l.type AS dest
		      FROM stock_move m
		      JOIN production o ON o.id = coalesce(m.production_output, m.production_input)
		      JOIN product_product p ON p.id = m.product
		      JOIN stock_location l ON l.id = m.to_location
		      JOIN res_user u ON u.id = m.create_uid
		      WHERE o.number = $1 AND p.code = $2) m`, order, item, e.User).
		Scan(&x.Yield, &x.Scrap, &x.Issued, &x.Returned, &x.Done, &x.Open, &x.Loose)
	if err != nil {
		t.Fatalf("read the moves of order %q from Tryton's database: %v", order, err)
	}
	return x
}

// OrderState reads an order's state straight from PostgreSQL.
func (e *TrytonServer) OrderState(t testing.TB, number string) string {
	t.Helper()
	db := e.open(t)
	defer db.Close()
	var state string
	if err := db.QueryRow(`SELECT state FROM production WHERE number = $1`, number).Scan(&state); err != nil {
		t.Fatalf("read the state of order %q from Tryton's database: %v", number, err)
	}
	return state
}

// CutDatabase terminates every connection that trytond has to its database, and returns how many there were.
func (e *TrytonServer) CutDatabase(t testing.TB) int {
	t.Helper()
	db := e.open(t)
	defer db.Close()
	var n int
	err := db.QueryRow(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&n)
	if err != nil {
		t.Fatalf("cut trytond's database connections: %v", err)
	}
	return n
}
